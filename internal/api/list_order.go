package api

import (
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/fleet"
)

// sequence gives the containers of a list in its order: pop returns the next one that matches.
type sequence interface {
	pop(match test) (f found, ok bool)
}

// order is all containers of a snapshot as lists have them: a fifth of what a list of all costs is to find it. The last one leaves it to those
// that come after, who mend it where something has changed since.
type order struct {
	snapshot *fleet.Snapshot
	found    []found
}

// orderKept is how long an order is kept if no list of all comes, since it keeps what has gone since from being forgotten.
const orderKept = time.Minute

// fewChanged is one in how many nodes may have changed for an order to be mended and not made anew.
const fewChanged = 4

// sequence begins the list.
func (s *Server) sequence(snap *fleet.Snapshot, l *listing) sequence {
	o := s.orders.last.Load()
	switch {
	case !l.mayBeAny():
		return l.runs(snap).merge()
	case o != nil && o.snapshot == snap:
		return &walk{o.found}
	case l.limit > 0 || l.match() != nil:
		return l.runs(snap).merge()
	}
	next := &order{snap, make([]found, 0, snap.Containers())}
	if o != nil {
		if was, is, few := snap.Changed(o.snapshot, snap.Len()/fewChanged); few {
			return &recorder{mend(o, was, is), next, s}
		}
	}
	return &recorder{l.runs(snap).merge(), next, s}
}

// mended is an order without what some nodes had, and with what they have.
type mended struct {
	old  []found
	gone map[*fleet.Node]bool
	new  *merge
}

func mend(o *order, was, is []*fleet.Node) *mended {
	m := &mended{old: o.found, gone: make(map[*fleet.Node]bool, len(was))}
	for _, n := range was {
		m.gone[n] = true
	}
	var now runs
	for _, n := range is {
		now.add(n, nil, nil)
	}
	m.new = now.merge()
	return m
}

// pop is of a list of all, so that everything matches.
func (m *mended) pop(test) (f found, ok bool) {
	for len(m.old) > 0 && m.gone[m.old[0].node] {
		m.old = m.old[1:]
	}
	f, ok = m.new.peek()
	if len(m.old) > 0 && (!ok || m.old[0].Before(&f.Aged)) {
		f, m.old = m.old[0], m.old[1:]
		return f, true
	}
	if ok {
		m.new.pop(nil)
	}
	return f, ok
}

// mayBeAny tells whether every container has to be looked at, because no filter says where those of the list are.
func (l *listing) mayBeAny() bool {
	return len(l.f["node"])+len(l.f["id"])+len(l.names)+len(l.labels) == 0 && l.mayName == nil
}

// walk goes through an order that is known.
type walk struct{ rest []found }

func (w *walk) pop(match test) (f found, ok bool) {
	for len(w.rest) > 0 {
		f, w.rest = w.rest[0], w.rest[1:]
		if match == nil || match(f.node, f.Container) {
			return f, true
		}
	}
	return found{}, false
}

// recorder keeps the order of a list of all, once it has come to its end.
type recorder struct {
	sequence
	order *order
	s     *Server
}

func (r *recorder) pop(match test) (f found, ok bool) {
	if f, ok = r.sequence.pop(match); ok {
		r.order.found = append(r.order.found, f)
		return f, ok
	}
	r.s.orders.keep(r.order)
	return f, ok
}

// orders keeps the last order for a while.
type orders struct {
	last atomic.Pointer[order]

	mu  sync.Mutex
	end *time.Timer
}

func (k *orders) keep(o *order) {
	k.last.Store(o)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.end == nil {
		k.end = time.AfterFunc(orderKept, func() { k.last.Store(nil) })
		return
	}
	k.end.Reset(orderKept)
}
