package api

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// run is what one node adds to a list: the rest of its containers, by age, and the next of them that belongs into the list.
type run struct {
	next   fleet.Aged
	node   *fleet.Node
	rest   []fleet.Aged
	labels []column // of the rest
}

// column is a label that has to have a value, or any.
type column struct {
	values []fleet.Text
	want   fleet.Text
	any    bool
}

// advance goes to the next container that matches, and tells whether there is one. A nil match takes all, and looks at none.
func (r *run) advance(match test) bool {
	for i := range r.rest {
		if r.labelled(i) && (match == nil || match(r.node, r.rest[i].Container)) {
			r.next, r.rest = r.rest[i], r.rest[i+1:]
			for k := range r.labels {
				r.labels[k].values = r.labels[k].values[i+1:]
			}
			return true
		}
	}
	return false
}

func (r *run) labelled(i int) bool {
	for k := range r.labels {
		c := &r.labels[k]
		if c.values[i] == fleet.NoLabel || !c.any && c.values[i] != c.want {
			return false
		}
	}
	return true
}

// runs merge the containers of many nodes into the order of the list, without sorting them: a heap, the youngest on top.
type runs []run

func (h *runs) add(n *fleet.Node, labels []labelTest, match test) {
	f := n.Facts()
	r := run{node: n, rest: f.ByAge()}
	for _, l := range labels {
		r.labels = append(r.labels, column{f.Column(l.key), l.want, l.any})
	}
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
		if right := child + 1; right < len(h) && h[right].next.Before(&h[child].next) {
			child = right
		}
		if !h[child].next.Before(&h[i].next) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// pop takes the youngest.
func (h *runs) pop(match test) found {
	top := &(*h)[0]
	f := found{top.node, top.next.Container}
	if !top.advance(match) {
		last := len(*h) - 1
		(*h)[0] = (*h)[last]
		*h = (*h)[:last]
	}
	h.sink(0)
	return f
}

// found is one container of a list.
type found struct {
	node      *fleet.Node
	container *fleet.Container
}

// batch is the next few containers of a list. Their rows lie all over the memory: waiting for many at once takes hardly
// longer than for one.
type batch struct {
	found [64]found
	n     int
}

// fill takes up to max containers, and tells whether there was one.
func (b *batch) fill(all *runs, match test, max int) bool {
	for b.n = 0; b.n < min(len(b.found), max) && len(*all) > 0; b.n++ {
		b.found[b.n] = all.pop(match)
	}
	return b.n > 0
}

// touch has the memory bring the rows. What it returns is of no use, but makes the reads happen.
func (b *batch) touch() (sum byte) {
	for _, f := range b.found[:b.n] {
		sum += byte(len(f.container.Head))
	}
	for _, f := range b.found[:b.n] {
		for _, part := range [...][]byte{f.container.Head, f.container.Tail} {
			for i := 0; i < len(part); i += cacheLine {
				sum += part[i]
			}
		}
	}
	return sum
}

const cacheLine = 64

// writeRows sends the rows that the engines gave, with the statuses of this moment.
func (s *Server) writeRows(w http.ResponseWriter, all runs, l *listing) error {
	w.Header().Set("Content-Type", "application/json")
	p := newPager(w)
	defer p.end()
	left, now, match := l.limit, s.o.Now(), l.match()
	if left <= 0 {
		left = math.MaxInt
	}
	all.order()
	p.page = append(p.page, '[')
	comma, ages := false, new(fleet.Ages)
	for next := new(batch); next.fill(&all, match, left); left -= next.n {
		next.touch()
		for _, f := range next.found[:next.n] {
			if comma {
				p.page = append(p.page, ',')
			}
			comma = true
			var err error
			if p.page, err = l.appendRow(p.page, f.node, f.container, now, ages); err != nil {
				return p.fail(err)
			}
		}
		if !p.turn() {
			return nil // the client is gone
		}
	}
	p.page = append(p.page, ']', '\n')
	return nil
}

func (l *listing) appendRow(out []byte, n *fleet.Node, c *fleet.Container, now time.Time, ages *fleet.Ages) ([]byte, error) {
	if n.State == fleet.Healthy && !l.size && len(l.hindered(c.ID)) == 0 {
		out = append(out, c.Head...)
		var status [64]byte
		out = rawjson.AppendString(out, c.AppendStatus(status[:0], now.Add(n.Skew), ages))
		return append(out, c.Tail...), nil
	}
	row, err := l.editedRow(n, c, now)
	return append(out, row...), err
}

// editedRow is a row with sizes, of a container whose node does not answer, or of one whose ports answer elsewhere.
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
	if hindered := l.hindered(c.ID); len(hindered) > 0 {
		if err := showPorts(o, hindered); err != nil {
			return nil, fmt.Errorf("row of container %s: %w", c.ID, err)
		}
	}
	if sizes, ok := l.sizes[c.ID]; ok && l.size {
		for i, key := range []string{"SizeRw", "SizeRootFs"} {
			if sizes[i] != nil {
				o.SetRaw(key, sizes[i])
			}
		}
	}
	return o.Bytes(), nil
}
