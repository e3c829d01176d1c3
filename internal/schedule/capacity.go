package schedule

import (
	"fmt"
	"math"

	"github.com/docker/go-units"
)

// slotsStage refuses nodes whose label containerslots allows no further container, whatever state those there are in.
func slotsStage() *stage {
	return &stage{
		name: FilterSlots,
		check: func(c *candidate) int {
			if c.facts.Containers+c.load.count() >= c.facts.Slots {
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

// measure works the shares out. What is not asked for counts as 100, as in classic Swarm.
func (a resources) measure(c *candidate) {
	c.memory, c.cpus = 100, 100
	if a.memory > 0 {
		c.memory = share(c.brief.UsedMemory, c.load.reserved().memory, a.memory, float64(c.brief.Memory)*a.factor)
	}
	if a.nanoCPUs > 0 {
		c.cpus = share(c.brief.UsedNanoCPUs, c.load.reserved().nanoCPUs, a.nanoCPUs, float64(c.brief.NanoCPUs)*a.factor)
	}
}

func share(used, pending int64, asked, total float64) float64 {
	if total <= 0 {
		return math.Inf(1)
	}
	return (float64(used) + float64(pending) + asked) * 100 / total
}

// memoryStage refuses nodes that would have given away more memory than they may. One that has already done so is refused
// only to those that ask for some.
func memoryStage(a resources) *stage {
	if a.memory == 0 {
		return nil
	}
	what := fmt.Sprintf("memory (need %s)", units.BytesSize(a.memory))
	return &stage{
		name: checkMemory,
		check: func(c *candidate) int {
			if c.memory > 100 {
				return 0
			}
			return fits
		},
		reasons: []reason{{"lacks " + what, "lack " + what}},
	}
}

// cpuStage is memoryStage of CPUs.
func cpuStage(a resources) *stage {
	if a.nanoCPUs == 0 {
		return nil
	}
	what := fmt.Sprintf("CPUs (need %g)", a.nanoCPUs/1e9)
	return &stage{
		name: checkCPUs,
		check: func(c *candidate) int {
			if c.cpus > 100 {
				return 0
			}
			return fits
		},
		reasons: []reason{{"lacks " + what, "lack " + what}},
	}
}
