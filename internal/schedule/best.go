package schedule

import "berth/internal/fleet"

// leader is the best node so far.
type leader struct {
	node *fleet.Node
	score
	hash uint64
	// equals counts the nodes that the strategy sees no difference to, whether they fit or not.
	equals int
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
	nodes := p.snapshot.Nodes()
	for i, n := range nodes {
		at := i % len(ahead.facts)
		if at == 0 {
			ahead.read(nodes[i:])
		}
		if n.State != fleet.Healthy {
			continue
		}
		c := candidate{node: n, facts: ahead.facts[at]}
		if p.loads != nil {
			c.load = p.loads[n]
		}
		p.measure(&c)
		next := leader{node: n, score: p.promise(&c), hash: p.hash(ahead.hash[at]), equals: 1}
		if next.beats(&lead) {
			if *full = c; p.refuses(full) {
				continue
			}
			next.granted = p.grants(full)
		}
		switch {
		case next.beats(&lead):
			if lead.node != nil && next.score == lead.score {
				next.equals += lead.equals
			}
			lead = next
		case next.score == lead.score:
			lead.equals++
		}
	}
	if lead.equals > 1 {
		return p.preferred(lead)
	}
	return lead.node
}

// window is what the pass needs first of the next nodes. In a large fleet each is a wait for memory, and waiting for many
// at once takes hardly longer than for one.
type window struct {
	facts [64]*fleet.Facts
	hash  [64]uint64
}

func (w *window) read(nodes []*fleet.Node) {
	nodes = nodes[:min(len(nodes), len(w.facts))]
	for i, n := range nodes {
		w.facts[i] = n.Facts()
	}
	for i, f := range w.facts[:len(nodes)] {
		w.hash[i] = f.Hash
	}
}

// preferred is the first of the nodes to prefer that is as good as the best.
func (p *plan) preferred(best leader) *fleet.Node {
	if p.random {
		return best.node
	}
	for _, id := range p.req.Prefer {
		n, ok := p.snapshot.Node(id)
		if !ok {
			continue
		}
		c := p.candidate(n)
		if !p.refuses(&c) && p.score(&c) == best.score {
			return n
		}
	}
	return best.node
}
