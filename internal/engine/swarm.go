package engine

import (
	"slices"
	"strings"

	"berth/internal/fleet"
)

// swarmInfo is what GET /info says of Swarm mode.
type swarmInfo struct {
	NodeID, NodeAddr, LocalNodeState string
	ControlAvailable                 bool
	Error                            string
	RemoteManagers                   []struct{ NodeID string }
	Cluster                          *struct {
		ID   string
		Spec struct{ Labels map[string]string }
	}
}

func (s *swarmInfo) fact() fleet.Swarm {
	f := fleet.Swarm{State: s.LocalNodeState, NodeID: s.NodeID, Addr: s.NodeAddr, Manager: s.ControlAvailable, Error: s.Error}
	for _, m := range s.RemoteManagers {
		f.Managers = append(f.Managers, m.NodeID)
	}
	if s.Cluster != nil {
		f.Cluster, f.Labels = s.Cluster.ID, s.Cluster.Spec.Labels
	}
	return f
}

// attachableAPI is the API version since which containers can be in overlay networks of Swarm mode.
const attachableAPI = "1.25"

// noOverlay says why an engine can take no part in overlay networks.
func noOverlay(p *probed) string {
	rootless := slices.ContainsFunc(p.info.SecurityOptions, func(o string) bool { return strings.HasPrefix(o, "name=rootless") })
	switch {
	case strings.Contains(strings.ToLower(p.info.OperatingSystem+string(p.versionRaw)), "podman"):
		return "Podman has no Swarm mode"
	case rootless:
		return "rootless engines cannot"
	case p.version.Os != "" && p.version.Os != "linux":
		return "it runs " + p.version.Os
	case fleet.CompareVersions(p.version.APIVersion, attachableAPI) < 0:
		return "it speaks API " + p.version.APIVersion + ", and attachable networks came with " + attachableAPI
	case p.info.Swarm.LocalNodeState == "":
		return "it has no Swarm mode"
	}
	return ""
}
