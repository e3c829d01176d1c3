package schedule

import "berth/internal/fleet"

// leader is the best node so far.
type leader struct {
	brief *fleet.Brief // nil: none yet
	at    int          // its place in the fleet
	score
	hash uint64
}

// beats tells whether a node, if it fits, is to be preferred to the leader.
func (a *leader) beats(b *leader) bool {
	if b.brief == nil {
		return true
	}
	if order := a.compare(b.score); order != 0 {
		return order < 0
	}
	if a.hash != b.hash {
		return a.hash < b.hash
	}
	return a.brief.ID < b.brief.ID
}

// best makes one pass over what is told in brief of the nodes; it is what each create waits for. Only a node that would be the new leader
// is put to the stages: in a fleet where most nodes fit, that is a handful.
func (p *plan) best() *fleet.Node {
	var lead leader
	full := new(candidate) // what stages are handed lives on the heap: one for all
	same := newEquals(p.snapshot.Len())
	loads := p.loads
	for i := range p.snapshot.Len() {
		b, load := p.snapshot.Brief(i), loads.next(i)
		if !b.Healthy {
			continue
		}
		c := candidate{brief: b, load: load}
		p.measure(&c)
		next := leader{brief: b, at: i, score: p.promise(&c), hash: p.hash(b.Hash)}
		if next.beats(&lead) {
			*full, full.node = c, p.snapshot.At(i)
			if full.facts = full.node.Facts(); p.refuses(full) {
				continue
			}
			next.granted = p.grants(full)
		}
		if next.beats(&lead) {
			if lead.brief == nil || next.score != lead.score {
				same.clear()
			}
			lead = next
		}
		if next.score == lead.score {
			same.add(i)
		}
	}
	switch {
	case lead.brief == nil:
		return nil
	case same.count > 1:
		return p.preferred(lead, same)
	}
	return p.snapshot.At(lead.at)
}

// equals are the nodes, by their place in the fleet, that the strategy sees no difference to the best of, whether they fit or not.
type equals struct {
	at    []bool
	count int
}

func newEquals(nodes int) *equals { return &equals{at: make([]bool, nodes)} }

func (e *equals) add(i int) {
	e.at[i] = true
	e.count++
}

func (e *equals) clear() {
	clear(e.at)
	e.count = 0
}

// preferred is the first of the nodes to prefer that is as good as the best.
func (p *plan) preferred(best leader, same *equals) *fleet.Node {
	if p.random {
		return p.snapshot.At(best.at)
	}
	c := new(candidate) // one for all, as in best
	next := 0
	for _, id := range p.req.Prefer {
		at, ok := p.snapshot.Position(id, next) // they are in the order of the fleet, as a rule
		if !ok {
			continue
		}
		next = at + 1
		if !same.at[at] {
			continue
		}
		*c = p.candidate(at)
		if !p.refuses(c) && p.score(c) == best.score {
			return c.node
		}
	}
	return p.snapshot.At(best.at)
}
