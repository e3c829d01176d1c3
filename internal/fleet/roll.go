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

const rollPageNodes = 32

type rollPage [rollPageNodes]*Node

func newRoll(nodes []*Node) roll {
	r := roll{count: len(nodes)}
	for part := range slices.Chunk(nodes, rollPageNodes) {
		p := new(rollPage)
		copy(p[:], part)
		r.pages = append(r.pages, p)
	}
	return r
}

func (r roll) at(i int) *Node { return r.pages[i/rollPageNodes][i%rollPageNodes] }

// with has n in the place of the node at i.
func (r roll) with(i int, n *Node) roll {
	p := *r.pages[i/rollPageNodes]
	p[i%rollPageNodes] = n
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
