package schedule

import (
	"cmp"
	"strings"

	"berth/internal/fleet"
)

// strategy chooses among the nodes that fit.
type strategy struct {
	random      bool
	sign        int // spread wants little of everything, binpack much
	runningOnly bool
	seed        uint64
}

func newStrategy(r *Request, p Policy) strategy {
	s := strategy{sign: 1, runningOnly: p.CountRunningOnly, seed: r.Seed}
	if s.seed == 0 {
		for _, c := range []byte(r.Name) {
			s.seed = mix(s.seed + uint64(c) + 1)
		}
	}
	switch p.strategy() {
	case Random:
		s.random = true
	case Binpack:
		s.sign = -1
	}
	return s
}

// score is what makes one node better than another; less is better, but for granted.
type score struct {
	granted int // wishes
	cost    int // the strategy's weight, and
	count   int // the containers, both turned around for binpack
}

func (a score) compare(b score) int {
	switch {
	case a.granted != b.granted:
		return cmp.Compare(b.granted, a.granted)
	case a.cost != b.cost:
		return cmp.Compare(a.cost, b.cost)
	}
	return cmp.Compare(a.count, b.count)
}

// score of a node that fits. The weight is classic Swarm's: the shares of CPU and memory that would be given away, in whole
// percent, so that containers decide between nodes that are about equally full. A node that fails is worse by more than
// any share can make up for.
func (p *plan) score(n *fleet.Node, l *load) score {
	var s score
	for _, granted := range p.wishes {
		if granted(n, l) {
			s.granted++
		}
	}
	if p.random {
		return s
	}
	const healthWeight = 10
	weight := int(p.cpuShare(n, l)) + int(p.memoryShare(n, l)) - p.sign*healthWeight*n.Health
	count := len(n.Containers)
	if p.runningOnly {
		count = n.Sum.Running + n.Sum.Paused
	}
	s.cost, s.count = p.sign*weight, p.sign*(count+l.count())
	return s
}

// hash decides between equals: the same on every manager, different for each request.
func (p *plan) hash(n *fleet.Node) uint64 { return mix(p.seed ^ n.Hash()) }

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// ranked is a node that fits.
type ranked struct {
	node *fleet.Node
	score
	preference int
	hash       uint64
}

func (a ranked) compare(b ranked) int {
	if c := a.score.compare(b.score); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.preference, b.preference), cmp.Compare(a.hash, b.hash), strings.Compare(a.node.ID, b.node.ID))
}
