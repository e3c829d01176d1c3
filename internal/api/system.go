package api

import (
	"net/http"
	"strings"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// ping answers by itself: clients ask it first, and give up after seconds.
func ping(s *Server, w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Builder-Version", "2")
	h.Set("Swarm", "inactive")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

// serverVersion is the version that we claim to be. Tools read a Docker version out of it, so it begins with the lowest one
// of the fleet; the suffix is what Debian's packages have proved to be understood.
func (s *Server) serverVersion(snap *fleet.Snapshot) string {
	return lowestVersion(snap) + "+berth." + strings.TrimPrefix(s.o.Version, "v")
}

// showVersion describes the endpoint as one engine.
func showVersion(s *Server, w http.ResponseWriter, _ *request) error {
	snap := s.fleet.Snapshot()
	version, api := s.serverVersion(snap), s.gate.advertised(snap)
	common := commonOf(snap)
	lowest, highest := engineVersions(snap)
	details := map[string]string{"ApiVersion": api, "MinAPIVersion": minAPI, "Os": common.os, "Arch": common.arch, "KernelVersion": common.kernel}
	writeJSON(w, http.StatusOK, map[string]any{
		"Platform": map[string]string{"Name": "berth"},
		"Components": []map[string]any{
			{"Name": "Engine", "Version": version, "Details": details},
			{"Name": "berth", "Version": s.o.Version, "Details": map[string]string{
				"Nodes": count(len(snap.Nodes())), "Engines": lowest + " to " + highest,
			}},
		},
		"Version": version, "ApiVersion": api, "MinAPIVersion": minAPI, "GitCommit": "", "GoVersion": "",
		"Os": common.os, "Arch": common.arch, "KernelVersion": common.kernel, "BuildTime": "",
	})
	return nil
}

// engineVersions are the lowest and the highest version of the fleet's engines.
func engineVersions(snap *fleet.Snapshot) (lowest, highest string) {
	lowest = lowestVersion(snap)
	highest = lowest
	for _, n := range snap.Nodes() {
		v, _, _ := strings.Cut(n.Version, "+")
		if v != "" && fleet.CompareVersions(v, highest) > 0 {
			highest = v
		}
	}
	return lowest, highest
}

// common are facts that one engine would have one of.
type common struct {
	os, arch, kernel, operatingSystem, driver string
}

// commonOf takes the value that all nodes share. Where they differ it is the most frequent for what programs read, and says
// so for what people read.
func commonOf(snap *fleet.Snapshot) common {
	nodes := snap.Nodes()
	pick := func(get func(*fleet.Node) string, mixed string) string {
		votes := map[string]int{}
		best := ""
		for _, n := range nodes {
			v := get(n)
			if v == "" {
				continue
			}
			votes[v]++
			if best == "" || votes[v] > votes[best] {
				best = v
			}
		}
		if len(votes) > 1 && mixed != "" {
			return mixed
		}
		return best
	}
	mixed := "mixed (" + count(len(nodes)) + " nodes)"
	c := common{
		os:              pick(func(n *fleet.Node) string { return n.OS }, ""),
		arch:            pick(func(n *fleet.Node) string { return n.Arch }, ""),
		kernel:          pick(func(n *fleet.Node) string { return n.KernelVersion }, mixed),
		operatingSystem: pick(func(n *fleet.Node) string { return n.OperatingSystem }, mixed),
		driver:          pick(func(n *fleet.Node) string { return n.StorageDriver }, "mixed"),
	}
	if c.os == "" {
		c.os, c.arch = "linux", "amd64"
	}
	return c
}

// infoObject is a node's GET /info, empty for one that was never reached.
func infoObject(n *fleet.Node) *rawjson.Object {
	o, err := rawjson.ParseTrusted(n.Info)
	if err != nil {
		return new(rawjson.Object)
	}
	return o
}
