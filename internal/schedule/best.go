package schedule

import "berth/internal/fleet"

// leader is the best node so far.
type leader struct {
	node *fleet.Node
	score
	hash uint64
}

// beats tells whether a node, if it fits, is to be preferred to the leader.
func (a *leader) beats(b *leader) bool {
	if b.node == nil {
		return true
	}
	if order := a.compare(b.score); order != 0 {
		return order < 0
	}
	if a.hash != b.hash {
		return a.hash < b.hash
	}
	return a.node.ID < b.node.ID
}

// best makes one pass over the nodes; it is what each create waits for. Only a node that would be the new leader is put to
// the stages: in a fleet where most nodes fit, that is a handful.
func (p *plan) best() *fleet.Node {
	var lead leader
	var ahead window
	full := new(candidate) // what stages are handed lives on the heap: one for all
	same := newEquals(p.snapshot.Len())
	for i := range p.snapshot.Len() {
		at := i % len(ahead.nodes)
		if at == 0 {
			ahead.read(p.snapshot, i)
		}
		n := ahead.nodes[at]
		if n.State != fleet.Healthy {
			continue
		}
		c := candidate{node: n, facts: ahead.facts[at], load: p.loads.at(i)}
		p.measure(&c)
		next := leader{node: n, score: p.promise(&c), hash: p.hash(ahead.hash[at])}
		if next.beats(&lead) {
			if *full = c; p.refuses(full) {
				continue
			}
			next.granted = p.grants(full)
		}
		if next.beats(&lead) {
			if lead.node == nil || next.score != lead.score {
				same.clear()
			}
			lead = next
		}
		if next.score == lead.score {
			same.add(i)
		}
	}
	if same.count > 1 {
		return p.preferred(lead, same)
	}
	return lead.node
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

// window is what the pass needs first of the next nodes. In a large fleet each is a wait for memory, and waiting for many
// at once takes hardly longer than for one.
type window struct {
	nodes [64]*fleet.Node
	facts [64]*fleet.Facts
	hash  [64]uint64
}

func (w *window) read(s *fleet.Snapshot, from int) {
	n := min(s.Len()-from, len(w.nodes))
	for i := range n {
		w.nodes[i] = s.At(from + i)
	}
	for i, node := range w.nodes[:n] {
		w.facts[i] = node.Facts()
	}
	for i, f := range w.facts[:n] {
		w.hash[i] = f.Hash
	}
}

// preferred is the first of the nodes to prefer that is as good as the best.
func (p *plan) preferred(best leader, same *equals) *fleet.Node {
	if p.random {
		return best.node
	}
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
		c := p.candidate(at)
		if !p.refuses(&c) && p.score(&c) == best.score {
			return c.node
		}
	}
	return best.node
}
