package schedule

import "berth/internal/fleet"

// leader is the best node so far.
type leader struct {
	is bool // there is one
	at int  // its place in the fleet
	score
	hash uint64
}

// against compares a score to the leader's: below 0 it is better.
func (a *leader) against(s score) int {
	if !a.is {
		return -1
	}
	return s.compare(a.score)
}

// yields tells whether the leader has to go before the node at a place, whose score compares like this, if it fits.
func (p *plan) yields(lead *leader, order int, hash uint64, at int) bool {
	return order < 0 || order == 0 && (hash < lead.hash || hash == lead.hash && p.snapshot.At(at).ID < p.snapshot.At(lead.at).ID)
}

// best makes one pass over what is told in brief of the nodes; it is what each create waits for. Only a node that would be the new leader
// is put to the stages: in a fleet where most nodes fit, that is a handful.
func (p *plan) best() *fleet.Node {
	var lead leader
	full := new(candidate) // what stages are handed lives on the heap: one for all
	same := newEquals(p.snapshot.Len())
	loads := p.loads
	for i := range p.snapshot.Len() {
		b := p.snapshot.Brief(i)
		c := candidate{brief: b, load: loads.next(i)}
		if !b.Healthy {
			continue
		}
		p.measure(&c)
		s := p.promise(&c)
		order := lead.against(s)
		if order > 0 {
			continue
		}
		hash := p.hash(b.Hash)
		if p.yields(&lead, order, hash, i) {
			*full, full.node = c, p.snapshot.At(i)
			if full.facts = full.node.Facts(); p.refuses(full) {
				continue
			}
			s.granted = p.grants(full)
			if order = lead.against(s); order > 0 {
				continue
			}
			if order < 0 {
				same.clear()
			}
			if p.yields(&lead, order, hash, i) {
				lead = leader{true, i, s, hash}
			}
		}
		same.add(i)
	}
	switch {
	case !lead.is:
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
