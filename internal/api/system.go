package api

import (
	"net/http"
	"runtime"

	"berth/internal/fleet"
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

// common are facts that one engine would have one of.
type common struct{ os, arch, kernel string }

// commonOf takes the most frequent value of what programs read. For what people read it says where nodes differ.
func commonOf(snap *fleet.Snapshot) common {
	nodes := snap.Nodes()
	pick := func(get func(*fleet.Node) string) (best string, mixed bool) {
		votes := map[string]int{}
		for _, n := range nodes {
			v := get(n)
			if v == "" {
				continue
			}
			if votes[v]++; best == "" || votes[v] > votes[best] {
				best = v
			}
		}
		return best, len(votes) > 1
	}
	var c common
	var mixed bool
	c.os, _ = pick(func(n *fleet.Node) string { return n.OS })
	c.arch, _ = pick(func(n *fleet.Node) string { return n.Arch })
	if c.kernel, mixed = pick(func(n *fleet.Node) string { return n.KernelVersion }); mixed {
		c.kernel = "mixed (" + count(len(nodes)) + " nodes)"
	}
	if c.os == "" {
		c.os, c.arch = "linux", runtime.GOARCH
	}
	return c
}
