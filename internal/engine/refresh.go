package engine

import (
	"context"

	"berth/internal/fleet"
)

// flight is one refresh that callers may wait for.
type flight struct {
	done    chan struct{}
	err     error
	details bool
}

// flights are the refreshes of one object: one under way, and at most one more that starts after it. A caller whose change
// happened while one was under way needs the next, since the first may have asked before the change.
type flights struct {
	now, next *flight
}

// object is what a refresh is of; the ID is empty where the engine has no list of one.
type object struct {
	kind fleet.Kind
	id   string
}

func objectOf(kind fleet.Kind, id string) object {
	if kind != fleet.KindContainer {
		id = ""
	}
	return object{kind, id}
}

// Refresh asks the engine for one object, or for all of a kind where the engine has no list of one, and returns when the
// published node shows the answer. Callers that come together share calls.
func (e *Engine) Refresh(ctx context.Context, kind fleet.Kind, id string) error {
	return e.wait(ctx, e.refresh(kind, id, false))
}

// RefreshDetails is Refresh of a container whose configuration may have changed.
func (e *Engine) RefreshDetails(ctx context.Context, id string) error {
	return e.wait(ctx, e.refresh(fleet.KindContainer, id, true))
}

// Forget takes away a container that is known to be gone.
func (e *Engine) Forget(id string) { e.remove(id) }

func (e *Engine) wait(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refresh starts or joins a refresh.
func (e *Engine) refresh(kind fleet.Kind, id string, details bool) *flight {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.board(objectOf(kind, id), details, func(key object, fs *flights) { e.wg.Go(func() { e.fly(key, fs) }) })
}

// board finds the flight that will show what the object is like now. One that has to be made is given to start. The caller
// holds mu.
func (e *Engine) board(key object, details bool, start func(object, *flights)) *flight {
	if d, ok := e.debts[key]; ok {
		details = details || d.details
		delete(e.debts, key)
		e.count()
	}
	if !e.running || e.ctx.Err() != nil {
		return &flight{done: closed(), err: e.goneError()}
	}
	if fs := e.flights[key]; fs != nil {
		if fs.next == nil {
			fs.next = &flight{done: make(chan struct{})}
		}
		fs.next.details = fs.next.details || details
		return fs.next
	}
	fs := &flights{now: &flight{done: make(chan struct{}), details: details}}
	e.flights[key] = fs
	e.count()
	start(key, fs)
	return fs.now
}

func (e *Engine) goneError() error { return &UnreachableError{Node: e.node.Name, Err: errNotRunning} }

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// fly runs the refreshes of one object until none is asked for.
func (e *Engine) fly(key object, fs *flights) {
	for {
		var err error
		if key.kind == fleet.KindContainer {
			err = e.refreshContainer(e.ctx, key.id, fs.now.details)
		} else {
			err = e.list(e.ctx, key.kind)
		}
		if e.land(key, fs, e.flown(err)) {
			return
		}
	}
}

// flyTogether runs the first refresh of several containers' rows as one call. Those that another is asked for meanwhile go
// on alone.
func (e *Engine) flyTogether(group []boarded) {
	ids := make([]string, 0, len(group))
	for _, b := range group {
		ids = append(ids, b.key.id)
	}
	err := e.flown(e.refreshRows(e.ctx, ids))
	for _, b := range group {
		if !e.land(b.key, b.fs, err) {
			e.wg.Go(func() { e.fly(b.key, b.fs) })
		}
	}
}

// flown is a refresh's error as its callers get it.
func (e *Engine) flown(err error) error {
	if err == nil || isStatus(err) {
		return err
	}
	e.Suspect()
	return e.unreachable(err)
}

// land ends the current refresh of an object and tells whether it was the last.
func (e *Engine) land(key object, fs *flights, err error) bool {
	f := fs.now
	f.err = err
	e.mu.Lock()
	fs.now, fs.next = fs.next, nil
	last := fs.now == nil
	if last {
		delete(e.flights, key)
	}
	e.count()
	e.mu.Unlock()
	close(f.done)
	return last
}
