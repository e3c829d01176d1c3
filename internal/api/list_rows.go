package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// run is what one node adds to a list: the rest of its containers, by age, and the next of them that belongs into the list.
type run struct {
	node *fleet.Node
	next *fleet.Container
	rest []*fleet.Container
	age  int64 // of next; here because most comparisons need no more
}

// advance goes to the next container that matches, and tells whether there is one.
func (r *run) advance(match test) bool {
	for i, c := range r.rest {
		if match(r.node, c) {
			r.next, r.age, r.rest = c, c.Created, r.rest[i+1:]
			return true
		}
	}
	return false
}

func (r *run) before(o *run) bool {
	if r.age != o.age {
		return r.age > o.age
	}
	return r.next.ID < o.next.ID
}

// runs merge the containers of many nodes into the order of the list, without sorting them: a heap, the youngest on top.
type runs []run

func (h *runs) add(n *fleet.Node, match test) {
	r := run{node: n, rest: n.Facts().ByAge()}
	if r.advance(match) {
		*h = append(*h, r)
	}
}

func (h runs) order() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.sink(i)
	}
}

func (h runs) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if right := child + 1; right < len(h) && h[right].before(&h[child]) {
			child = right
		}
		if !h[child].before(&h[i]) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// pop takes the youngest.
func (h *runs) pop(match test) (*fleet.Node, *fleet.Container) {
	top := &(*h)[0]
	n, c := top.node, top.next
	if !top.advance(match) {
		last := len(*h) - 1
		(*h)[0] = (*h)[last]
		*h = (*h)[:last]
	}
	h.sink(0)
	return n, c
}

// pageSize is how much of a list is made before it is sent. A client that reads slowly holds no more than that.
const pageSize = 128 << 10

var pages = sync.Pool{New: func() any {
	b := make([]byte, 0, pageSize+pageSize/4)
	return &b
}}

// writeRows sends the rows that the engines gave, with the statuses of this moment.
func (s *Server) writeRows(w http.ResponseWriter, all runs, l *listing) error {
	page, _ := pages.Get().(*[]byte)
	defer pages.Put(page)
	out := append((*page)[:0], '[')
	defer func() { *page = out[:0] }()
	w.Header().Set("Content-Type", "application/json")
	now := s.o.Now()
	began := false
	all.order()
	for count := 0; len(all) > 0 && (l.limit <= 0 || count < l.limit); count++ {
		if count > 0 {
			out = append(out, ',')
		}
		n, c := all.pop(l.match)
		var err error
		if out, err = l.appendRow(out, n, c, now); err != nil {
			if began {
				panic(http.ErrAbortHandler) // half a list must not be taken for a whole one
			}
			return err
		}
		if len(out) >= pageSize {
			began = true
			if _, err := w.Write(out); err != nil {
				return nil //nolint:nilerr // the client is gone
			}
			out = out[:0]
		}
	}
	out = append(out, ']', '\n')
	if !began {
		w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	}
	_, _ = w.Write(out) // a client that is gone cannot be told
	return nil
}

func (l *listing) appendRow(out []byte, n *fleet.Node, c *fleet.Container, now time.Time) ([]byte, error) {
	if n.State == fleet.Healthy && !l.size {
		out = append(out, c.Head...)
		out = rawjson.AppendString(out, c.StatusAt(now.Add(n.Skew)))
		return append(out, c.Tail...), nil
	}
	row, err := l.editedRow(n, c, now)
	return append(out, row...), err
}

// editedRow is a row with sizes, or of a container whose node does not answer.
func (l *listing) editedRow(n *fleet.Node, c *fleet.Container, now time.Time) ([]byte, error) {
	status := c.StatusAt(now.Add(n.Skew))
	if n.State != fleet.Healthy {
		status = "Host Down (node " + n.Name + " is unreachable)"
	}
	row := append(append(slices.Clone(c.Head), rawjson.Encode(status)...), c.Tail...)
	o, err := rawjson.ParseTrusted(row)
	if err != nil {
		return nil, fmt.Errorf("row of container %s: %w", c.ID, err)
	}
	o.Set("State", shownState(n, c))
	if sizes, ok := l.sizes[c.ID]; ok && l.size {
		for i, key := range []string{"SizeRw", "SizeRootFs"} {
			if sizes[i] != nil {
				o.SetRaw(key, sizes[i])
			}
		}
	}
	return o.Bytes(), nil
}
