package schedule

import (
	"fmt"

	"github.com/docker/go-units"

	"berth/internal/fleet"
)

// slotsStage refuses nodes whose label containerslots allows no further container, whatever state those there are in.
func slotsStage() *stage {
	return &stage{
		name: FilterSlots,
		check: func(n *fleet.Node, l *load) int {
			if limit, limited := n.Slots(); limited && len(n.Containers)+l.count() >= limit {
				return 0
			}
			return fits
		},
		reasons: []reason{{"has no container slot left", "have no container slot left"}},
		classic: []string{"available container slots"},
	}
}

// resources measures what a request would make of a node.
type resources struct {
	memory, nanoCPUs float64 // asked for; 0 is nothing
	factor           float64 // what a node has times this may be given away
}

func newResources(r *Request, overcommit float64) resources {
	return resources{
		memory:   float64(max(r.Memory, 0)),
		nanoCPUs: float64(max(r.NanoCPUs, 0)),
		factor:   1 + overcommit,
	}
}

// memoryShare is the percentage of a node's memory that is given away with the request, 100 if the request asks for none.
func (a resources) memoryShare(n *fleet.Node, l *load) float64 {
	if a.memory == 0 {
		return 100
	}
	used := float64(n.Sum.Memory) + a.memory
	if l != nil {
		used += float64(l.memory)
	}
	return used * 100 / (float64(n.Memory) * a.factor)
}

// cpuShare is memoryShare for CPUs.
func (a resources) cpuShare(n *fleet.Node, l *load) float64 {
	if a.nanoCPUs == 0 {
		return 100
	}
	used := float64(n.Sum.NanoCPUs) + a.nanoCPUs
	if l != nil {
		used += float64(l.nanoCPUs)
	}
	return used * 100 / (float64(n.CPUs) * 1e9 * a.factor)
}

// resourceStage refuses nodes that would have given away more than they may. One that has already done so is refused only
// what it lacks.
func resourceStage(a resources) *stage {
	if a.memory == 0 && a.nanoCPUs == 0 {
		return nil
	}
	memory := fmt.Sprintf("memory (need %s)", units.BytesSize(a.memory))
	cpus := fmt.Sprintf("CPUs (need %g)", a.nanoCPUs/1e9)
	return &stage{
		name: checkResources,
		check: func(n *fleet.Node, l *load) int {
			switch {
			case !(a.memoryShare(n, l) <= 100): // NaN and +Inf are nodes without memory
				return 0
			case !(a.cpuShare(n, l) <= 100):
				return 1
			}
			return fits
		},
		reasons: []reason{{"lacks " + memory, "lack " + memory}, {"lacks " + cpus, "lack " + cpus}},
	}
}
