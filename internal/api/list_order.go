package api

import "berth/internal/fleet"

// sequence gives the containers of a list in its order: pop returns the next one that matches.
type sequence interface {
	pop(match test) (f found, ok bool)
}

// order is all containers of a snapshot as lists have them. The last list of all leaves it to those that come before something changes: the
// order is a fifth of what they cost.
type order struct {
	snapshot *fleet.Snapshot
	found    []found
}

// sequence begins the list.
func (s *Server) sequence(snap *fleet.Snapshot, l *listing) sequence {
	o := s.order.Load()
	if o != nil && o.snapshot != snap {
		s.order.CompareAndSwap(o, nil) // it would keep what is gone
		o = nil
	}
	if !l.mayBeAny() {
		return l.runs(snap).merge()
	}
	if o != nil {
		return &walk{o.found}
	}
	m := l.runs(snap).merge()
	if l.limit > 0 || l.match() != nil {
		return m
	}
	return &recorder{m, &order{snap, make([]found, 0, snap.Containers())}, s}
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
		if match == nil || match(f.node, f.container) {
			return f, true
		}
	}
	return found{}, false
}

// recorder keeps the order of a list of all, once it has come to its end.
type recorder struct {
	*merge
	order *order
	s     *Server
}

func (r *recorder) pop(match test) (f found, ok bool) {
	if f, ok = r.merge.pop(match); ok {
		r.order.found = append(r.order.found, f)
	} else {
		r.s.order.Store(r.order)
	}
	return f, ok
}
