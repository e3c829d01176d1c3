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

// runs are what all nodes add.
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

// merge is the containers of all runs in the order of the list. They are not sorted but held against each other in a tournament of the
// runs' next ones, of which the tree keeps who lost where (Knuth, The Art of Computer Programming, 5.4.1): after each that is taken, its
// run's next one meets those that lost on the way up, one for each doubling of the nodes.
type merge struct {
	runs   runs
	losers []entrant // of each match; the first is the winner of all
}

// entrant is what a run's next container is ordered by, without a pointer to it, so that it is quickly moved.
type entrant struct {
	born  int64
	begin uint64
	run   int32 // negative for a run at its end, which loses against all
}

func (h runs) merge() *merge {
	m := &merge{runs: h, losers: make([]entrant, max(len(h), 1))}
	const nobody = math.MinInt32 // until a match has both sides, who comes first waits there
	for i := range m.losers {
		m.losers[i].run = nobody
	}
	for i := range h {
		e := m.entrant(i)
		for match := (i + len(h)) / 2; ; match /= 2 {
			if match == 0 {
				m.losers[0] = e
				break
			}
			if m.losers[match].run == nobody {
				m.losers[match] = e
				break
			}
			if m.beats(&m.losers[match], &e) {
				m.losers[match], e = e, m.losers[match]
			}
		}
	}
	return m
}

func (m *merge) entrant(run int) entrant {
	next := &m.runs[run].next
	return entrant{next.Born, next.Begin, int32(run)} //nolint:gosec // there are not so many nodes
}

// beats is fleet.Aged's Before.
func (m *merge) beats(a, b *entrant) bool {
	switch {
	case a.run < 0 || b.run < 0:
		return a.run >= 0
	case a.born != b.born:
		return a.born > b.born
	case a.begin != b.begin:
		return a.begin < b.begin
	}
	return m.runs[a.run].next.Before(&m.runs[b.run].next)
}

// pop takes the youngest, if there is one left.
func (m *merge) pop(match test) (f found, ok bool) {
	i := int(m.losers[0].run)
	if i < 0 {
		return found{}, false
	}
	top := &m.runs[i]
	f = found{top.next, top.node}
	e := entrant{run: -1}
	if top.advance(match) {
		e = m.entrant(i)
	}
	for at := (i + len(m.runs)) / 2; at > 0; at /= 2 {
		if m.beats(&m.losers[at], &e) {
			m.losers[at], e = e, m.losers[at]
		}
	}
	m.losers[0] = e
	return f, true
}

// peek is what pop would return next.
func (m *merge) peek() (f found, ok bool) {
	i := m.losers[0].run
	if i < 0 {
		return found{}, false
	}
	return found{m.runs[i].next, m.runs[i].node}, true
}

// found is one container of a list.
type found struct {
	fleet.Aged
	node *fleet.Node
}

// batch is the next few containers of a list. Their rows lie all over the memory: waiting for many at once takes hardly
// longer than for one.
type batch struct {
	found [64]found
	n     int
}

// fill takes up to max containers, and tells whether there was one.
func (b *batch) fill(all sequence, match test, max int) bool {
	for b.n = 0; b.n < min(len(b.found), max); b.n++ {
		f, ok := all.pop(match)
		if !ok {
			break
		}
		b.found[b.n] = f
	}
	return b.n > 0
}

// touch has the memory bring the rows. What it returns is of no use, but makes the reads happen.
func (b *batch) touch() (sum byte) {
	for _, f := range b.found[:b.n] {
		sum += byte(len(f.Head))
	}
	for _, f := range b.found[:b.n] {
		for _, part := range [...][]byte{f.Head, f.Tail} {
			for i := 0; i < len(part); i += cacheLine {
				sum += part[i]
			}
		}
	}
	return sum
}

const cacheLine = 64

// writeRows sends the rows that the engines gave, with the statuses of this moment.
func (s *Server) writeRows(w http.ResponseWriter, all sequence, l *listing) error {
	w.Header().Set("Content-Type", "application/json")
	p := newPager(w)
	defer p.end()
	left, now, match := l.limit, s.o.Now(), l.match()
	if left <= 0 {
		left = math.MaxInt
	}
	p.page = append(p.page, '[')
	comma, ages := false, new(fleet.Ages)
	for next := new(batch); next.fill(all, match, left); left -= next.n {
		next.touch()
		for _, f := range next.found[:next.n] {
			if comma {
				p.page = append(p.page, ',')
			}
			comma = true
			var err error
			if p.page, err = l.appendRow(p.page, f.node, f.Container, now, ages); err != nil {
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
