package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// The engines of a fleet speak different API versions, and each request is moved into the range of the engine that it goes
// to. An engine leaves out without a word what it does not know. So what a client of a newer version asks for is done in
// another way (translate.go), or noted as lost in the answer's warnings where nothing depends on it, or keeps old engines
// from being chosen, which is what is here. A client of an older version gets what any engine would give it.

// need is something that only engines from an API version on can do.
type need struct{ api, what string }

// API versions that brought what is looked for here.
const (
	apiSignal      = "1.42" // of stop and restart
	apiAnnotations = "1.43"
	apiEndpoints   = "1.44" // several networks in a create, and a MAC address for each; also Healthcheck.StartInterval
	apiPlatform    = "1.48" // of load, save and history
	apiIPv4        = "1.48" // networks without IPv4, and the priority of gateways
	apiNoConfigMAC = "1.52" // MacAddress of the container as a whole is refused
)

// newerEndpoint is what is read of a container's place in a network.
type newerEndpoint struct {
	GwPriority int
	MacAddress string
	DriverOpts map[string]string
}

// needs lists what of a create rules old engines out.
func (c *creation) needs() []need {
	var all []need
	add := func(is bool, api, what string) {
		if is {
			all = append(all, need{api, what})
		}
	}
	for _, m := range c.config.HostConfig.Mounts {
		add(m.BindOptions.CreateMountpoint, "1.42", "bind-create-mountpoint")
		add(m.BindOptions.ReadOnlyForceRecursive, "1.44", "bind-recursive=readonly")
		add(m.VolumeOptions.Subpath != "", "1.45", "volume-subpath")
		add(len(m.TmpfsOptions.Options) > 0, "1.46", "a tmpfs option")
		add(m.Type == "image", "1.48", "a mount of type image")
	}
	for _, d := range c.config.HostConfig.DeviceRequests {
		add(d.Driver == "cdi", "1.44", "a CDI device")
	}
	endpoints := c.config.NetworkingConfig.EndpointsConfig
	if len(endpoints) == 0 {
		return all
	}
	main := mainNetwork(c.config.HostConfig.NetworkMode, c.body)
	for name, e := range endpoints {
		add(e.MacAddress != "" && name != main, apiEndpoints, "a MAC address on a second network")
		all = append(all, e.needs()...)
	}
	return all
}

// needs lists what of a container's place in a network old engines do not do, whenever it is connected.
func (e newerEndpoint) needs() []need {
	var all []need
	for key, n := range map[string]need{
		"com.docker.network.endpoint.sysctls": {"1.46", "a sysctl of an interface"},
		"com.docker.network.endpoint.ifname":  {"1.49", "the name of an interface"},
	} {
		if _, ok := e.DriverOpts[key]; ok {
			all = append(all, n)
		}
	}
	if e.GwPriority != 0 {
		all = append(all, need{apiIPv4, "gw-priority"})
	}
	return all
}

// newest is the need with the highest version among those that a client of a version can have; false if there is none.
func newest(needs []need, version string) (need, bool) {
	needs = slices.DeleteFunc(slices.Clone(needs), func(n need) bool { return fleet.CompareVersions(version, n.api) < 0 })
	if len(needs) == 0 {
		return need{}, false
	}
	return slices.MaxFunc(needs, func(a, b need) int {
		if c := fleet.CompareVersions(a.api, b.api); c != 0 {
			return c
		}
		return strings.Compare(b.what, a.what) // or the choice between equals would follow the order of a map
	}), true
}

// require rules out of a placement the nodes that cannot do what a client of a version needs. It is an error if no node of
// the fleet can.
func (s *Server) require(req *schedule.Request, version string, needs []need) error {
	n, any := newest(needs, version)
	if !any || req.NeedAPI != "" && fleet.CompareVersions(req.NeedAPI, n.api) >= 0 {
		return nil
	}
	best := ""
	for _, node := range s.fleet.Snapshot().Nodes() {
		if node.API != "" && (best == "" || fleet.CompareVersions(node.API, best) > 0) {
			best = node.API
		}
	}
	if best != "" && fleet.CompareVersions(best, n.api) < 0 {
		return invalidf("%s needs API v%s or newer on a node; the newest of the fleet speaks v%s", n.what, n.api, best)
	}
	req.NeedAPI, req.NeedWhat = n.api, n.what
	return nil
}

// able refuses what the one node in question cannot do.
func able(n *fleet.Node, version string, needs []need) error {
	if need, any := newest(needs, version); any && fleet.CompareVersions(n.API, need.api) < 0 {
		return invalidf("%s needs API v%s or newer; node %s speaks v%s", need.what, need.api, n.Name, n.API)
	}
	return nil
}

// signalled refuses a signal that the engine would not send: it would stop the container with another one.
func signalled(n *fleet.Node, r *request) error {
	if r.URL.Query().Get("signal") == "" {
		return nil
	}
	switch r.route.pattern {
	case "/containers/{id}/stop", "/containers/{id}/restart":
		return able(n, r.version, []need{{apiSignal, "a signal for " + r.route.pattern[strings.LastIndexByte(r.route.pattern, '/')+1:]}})
	}
	return nil
}

// needs is what a network needs of its node's engine.
func (m *making) needs() ([]need, error) {
	if m.kind != fleet.KindNetwork {
		return nil, nil
	}
	var b struct{ EnableIPv4 *bool }
	if err := decodeBody(m.body, &b); err != nil || b.EnableIPv4 == nil || *b.EnableIPv4 {
		return nil, err
	}
	return []need{{apiIPv4, "a network without IPv4"}}, nil
}

// platformed are the needs of a request about images that may name a platform.
func platformed(r *request) []need {
	since := apiPlatform
	switch r.route.pattern {
	case "/images/{name}/json":
		return nil // see onPlatform
	case "/images/{name}/push":
		since = "1.46"
	}
	if r.URL.Query().Get("platform") == "" {
		return nil
	}
	return []need{{since, "a choice of platform"}}
}

// ableNodes are those of several that can do what is needed; without any, the error says what the first lacks.
func ableNodes(nodes []*fleet.Node, r *request) ([]*fleet.Node, error) {
	needs := platformed(r)
	if len(needs) == 0 || len(nodes) == 0 {
		return nodes, nil
	}
	var fit []*fleet.Node
	for _, n := range nodes {
		if able(n, r.version, needs) == nil {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return nil, able(nodes[0], r.version, needs)
	}
	return fit, nil
}

// apiInspectPlatform is the API version since which an image can be inspected for one platform.
const apiInspectPlatform = "1.49"

// onPlatform answers for an old engine that ignores the platform: it has the image for one only. The text is the engine's.
func onPlatform(r *request, n *fleet.Node, ref string, inspection []byte) error {
	asked := r.URL.Query().Get("platform")
	if asked == "" || fleet.CompareVersions(r.version, apiInspectPlatform) < 0 || fleet.CompareVersions(n.API, apiInspectPlatform) >= 0 {
		return nil
	}
	var want, is struct {
		OS   string
		Arch string `json:"Architecture"`
	}
	if err := json.Unmarshal([]byte(asked), &want); err != nil {
		return invalidf("failed to parse platform: %v", err)
	}
	if err := decode(n, "inspect image", inspection, &is); err != nil {
		return err
	}
	if want.OS != "" && want.OS != is.OS || want.Arch != "" && want.Arch != is.Arch {
		return notFound(fmt.Sprintf("image with reference %s was found but does not provide the specified platform (%s/%s)", ref, want.OS, want.Arch))
	}
	return nil
}
