package fleet

import (
	"iter"
	"slices"
	"sync"
)

// roll is a list of nodes on pages that versions share: to replace a node, its page is copied and the list of pages, not the whole, which
// in a large fleet is most of what a change would cost. The zero value is empty.
type roll struct {
	pages []*rollPage
	count int
}

const rollPageNodes = 16

// rollPage keeps apart what is asked for together.
type rollPage struct {
	briefs [rollPageNodes]Brief
	ids    [rollPageNodes]string
	nodes  [rollPageNodes]*Node
}

func (p *rollPage) set(i int, n *Node) {
	p.nodes[i], p.ids[i] = n, n.ID
	p.briefs[i] = Brief{Figures: n.Facts().Figures, Health: int8(n.Health), Healthy: n.State == Healthy} //nolint:gosec // 0 to 100
}

// Brief is what is asked of all nodes, one after the other. It stands beside those of the nodes before and after: in a large fleet, to go
// to each node for it would be a wait for memory each.
type Brief struct {
	Figures
	Health  int8
	Healthy bool
}

func newRoll(nodes []*Node) roll {
	r := roll{count: len(nodes)}
	for part := range slices.Chunk(nodes, rollPageNodes) {
		p := new(rollPage)
		for i, n := range part {
			p.set(i, n)
		}
		r.pages = append(r.pages, p)
	}
	return r
}

func (r roll) at(i int) *Node { return r.pages[i/rollPageNodes].nodes[i%rollPageNodes] }

func (r roll) brief(i int) *Brief { return &r.pages[i/rollPageNodes].briefs[i%rollPageNodes] }

func (r roll) id(i int) string { return r.pages[i/rollPageNodes].ids[i%rollPageNodes] }

// with has n in the place of the node at i.
func (r roll) with(i int, n *Node) roll {
	p := *r.pages[i/rollPageNodes]
	p.set(i%rollPageNodes, n)
	r.pages = slices.Clone(r.pages)
	r.pages[i/rollPageNodes] = &p
	return r
}

func (r roll) all() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for i := range r.count {
			if !yield(r.at(i)) {
				return
			}
		}
	}
}

// whole is a roll as one list, made when somebody wants it.
type whole struct {
	once  sync.Once
	nodes []*Node
}

func (w *whole) of(r roll) []*Node {
	w.once.Do(func() {
		w.nodes = make([]*Node, 0, r.count)
		for n := range r.all() {
			w.nodes = append(w.nodes, n)
		}
	})
	return w.nodes
}
