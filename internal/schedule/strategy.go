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

// score of a node that fits.
func (p *plan) score(c *candidate) score {
	s := p.promise(c)
	s.granted = p.grants(c)
	return s
}

// grants counts the wishes that the node grants.
func (p *plan) grants(c *candidate) int {
	granted := 0
	for _, holds := range p.wishes {
		if holds(c) {
			granted++
		}
	}
	return granted
}

// promise is the score if all wishes are granted. The weight is classic Swarm's: the shares of CPU and memory that would be
// given away, in whole percent, so that containers decide between nodes that are about equally full. A node that fails is
// worse by more than any share can make up for.
func (p *plan) promise(c *candidate) score {
	s := score{granted: len(p.wishes)}
	if p.random {
		return s
	}
	const healthWeight = 10
	weight := percent(c.cpus) + percent(c.memory) - p.sign*healthWeight*int(c.brief.Health)
	count := c.brief.Containers
	if p.runningOnly {
		count = c.brief.Running
	}
	s.cost, s.count = p.sign*weight, p.sign*int(count+c.load.count())
	return s
}

// percent cuts a share off to whole percent. One above 100 is refused, so it need not be told from others.
func percent(share float64) int { return int(min(share, 101)) }

// hash decides between equals: the same on every manager, different for each request.
func (p *plan) hash(node uint64) uint64 { return mix(p.seed ^ node) }

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
