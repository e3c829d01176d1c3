package schedule

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"berth/internal/fleet"
)

// stage is one reason why nodes may be refused: a filter, or a check that no policy switches off.
type stage struct {
	name string
	// check returns which of reasons speaks against the node, or fits.
	check   func(*candidate) int
	reasons []reason
	// classic is what classic Swarm's refusal lists for the filter.
	classic []string
}

// fits is what check returns for a node that may be taken.
const fits = -1

// reason completes a sentence that begins with a number of nodes.
type reason struct{ one, many string }

// The checks that are not filters.
const (
	checkState    = "state"
	checkExclude  = "exclude"
	checkAPI      = "api"
	checkPlatform = "platform"
	checkOverlay  = "overlay"
	checkTie      = "tie"
	checkMemory   = "memory"
	checkCPUs     = "cpus"
)

// Checks are the names that Reason.Filter may have: those of all filters, and of the checks that no policy switches off.
func Checks() []string {
	return append(allFilters(), checkState, checkExclude, checkAPI, checkPlatform, checkOverlay, checkTie, checkMemory, checkCPUs)
}

// stateStage lets only nodes through that answer and that the operator lets work: whatever the filters are, nothing can be
// created on the others.
func stateStage() *stage {
	return &stage{
		name: checkState,
		check: func(c *candidate) int {
			switch c.node.State {
			case fleet.Healthy:
				switch c.node.Availability {
				case fleet.Pause:
					return 3
				case fleet.Drain:
					return 4
				}
				return fits
			case fleet.Unhealthy:
				return 0
			case fleet.Pending:
				return 1
			default:
				return 2
			}
		},
		reasons: []reason{
			{"unhealthy", "unhealthy"}, {"not reached yet", "not reached yet"}, {"disconnected", "disconnected"},
			{"paused", "paused"}, {"draining", "draining"},
		},
	}
}

// healthStage refuses nodes that answer but fail too often.
func healthStage() *stage {
	return &stage{
		name: FilterHealth,
		check: func(c *candidate) int {
			if c.node.Health > 0 {
				return fits
			}
			return 0
		},
		reasons: []reason{{"fails too often", "fail too often"}},
	}
}

func excludeStage(r *Request) *stage {
	if len(r.Exclude) == 0 {
		return nil
	}
	whys := slices.Compact(slices.Sorted(maps.Values(r.Exclude)))
	s := &stage{name: checkExclude}
	for _, why := range whys {
		s.reasons = append(s.reasons, reason{"is ruled out: " + why, "are ruled out: " + why})
	}
	s.check = func(c *candidate) int {
		why, out := r.Exclude[c.node.ID]
		if !out {
			return fits
		}
		i, _ := slices.BinarySearch(whys, why)
		return i
	}
	return s
}

func apiStage(r *Request) *stage {
	if r.NeedAPI == "" {
		return nil
	}
	what := ""
	if r.NeedWhat != "" {
		what = " (for " + r.NeedWhat + ")"
	}
	return &stage{
		name: checkAPI,
		check: func(c *candidate) int {
			if fleet.CompareVersions(c.node.API, r.NeedAPI) < 0 {
				return 0
			}
			return fits
		},
		reasons: []reason{{"lacks API " + r.NeedAPI + what, "lack API " + r.NeedAPI + what}},
	}
}

func platformStage(r *Request) *stage {
	if r.OS == "" && r.Arch == "" {
		return nil
	}
	platform := strings.Trim(r.OS+"/"+r.Arch, "/")
	return &stage{
		name: checkPlatform,
		check: func(c *candidate) int {
			if r.OS != "" && c.node.OS != r.OS || r.Arch != "" && c.node.Arch != r.Arch {
				return 0
			}
			return fits
		},
		reasons: []reason{{"is not " + platform, "are not " + platform}},
	}
}

// tieStage keeps to the nodes that have everything the container uses.
func tieStage(s *fleet.Snapshot, ties []Tie) *stage {
	if len(ties) == 0 {
		return nil
	}
	where := make([]map[*fleet.Node]bool, len(ties))
	st := &stage{name: checkTie}
	for i, t := range ties {
		where[i] = make(map[*fleet.Node]bool, len(t.NodeIDs))
		for _, id := range t.NodeIDs {
			if n, ok := s.Node(id); ok {
				where[i][n] = true
			}
		}
		text := fmt.Sprintf("not where %s is (%s)", t.What, nodeNames(s, t.NodeIDs))
		st.reasons = append(st.reasons, reason{"is " + text, "are " + text})
	}
	st.check = func(c *candidate) int {
		for i := range where {
			if !where[i][c.node] {
				return i
			}
		}
		return fits
	}
	return st
}

// nodeNames names a few nodes. One that is not in the fleet goes by its ID.
func nodeNames(s *fleet.Snapshot, ids []string) string {
	const few = 3
	if len(ids) == 0 {
		return "nowhere"
	}
	var names []string
	for _, id := range ids[:min(few, len(ids))] {
		if n, ok := s.Node(id); ok {
			id = n.Name
		}
		names = append(names, id)
	}
	if more := len(ids) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
