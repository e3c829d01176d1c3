package schedule

import (
	"slices"

	"berth/internal/fleet"
)

// overlayStage keeps a container that uses an overlay network to the nodes that are in the cluster which carries it. Those that can
// be in none say why.
func overlayStage(snap *fleet.Snapshot, r *Request) *stage {
	if len(r.Overlays) == 0 {
		return nil
	}
	managers := snap.SwarmManagers(r.Swarm)
	var whys []string
	for _, n := range snap.Nodes() {
		if n.NoOverlay != "" && !slices.Contains(whys, n.NoOverlay) {
			whys = append(whys, n.NoOverlay)
		}
	}
	slices.Sort(whys)
	s := &stage{name: checkOverlay, reasons: []reason{
		{"has not joined the overlay networks", "have not joined the overlay networks"},
		{"is in another swarm", "are in another swarm"},
	}}
	first := len(s.reasons)
	for _, why := range whys {
		s.reasons = append(s.reasons, reason{"cannot join overlay networks: " + why, "cannot join overlay networks: " + why})
	}
	s.check = func(c *candidate) int {
		switch n := c.node; {
		case n.NoOverlay != "":
			i, _ := slices.BinarySearch(whys, n.NoOverlay)
			return first + i
		case !n.Swarm.Active():
			return 0
		case len(managers) > 0 && !n.Swarm.In(managers):
			return 1
		}
		return fits
	}
	return s
}
