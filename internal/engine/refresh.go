package engine

import (
	"context"
	"time"

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

// settle is how long a refresh that an event asks for waits for the other events of the same change, and for a client's
// request that refreshes anyway.
const settle = 15 * time.Millisecond

// later asks for a refresh in a moment.
func (e *Engine) later(kind fleet.Kind, id string, details bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running || e.ctx.Err() != nil {
		return
	}
	o := object{kind, id}
	e.dirty[o] = e.dirty[o] || details
	if len(e.dirty) > 1 {
		return // the one before has seen to it
	}
	ctx := e.ctx
	e.wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(settle):
		}
		e.mu.Lock()
		due := e.dirty
		e.dirty = map[object]bool{}
		e.mu.Unlock()
		for o, details := range due {
			e.refresh(o.kind, o.id, details)
		}
	})
}

// object is what a refresh is of; the ID is empty where the engine has no list of one.
type object struct {
	kind fleet.Kind
	id   string
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
	key := object{kind, id}
	if kind != fleet.KindContainer {
		key.id = ""
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if asked, ok := e.dirty[key]; ok {
		details = details || asked
		delete(e.dirty, key)
	}
	if !e.running || e.ctx.Err() != nil {
		return &flight{done: closed(), err: e.goneError()}
	}
	fs := e.flights[key]
	if fs != nil {
		if fs.next == nil {
			fs.next = &flight{done: make(chan struct{})}
		}
		fs.next.details = fs.next.details || details
		return fs.next
	}
	fs = &flights{now: &flight{done: make(chan struct{}), details: details}}
	e.flights[key] = fs
	e.wg.Go(func() { e.fly(key, fs) })
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
		f := fs.now
		if key.kind == fleet.KindContainer {
			f.err = e.refreshContainer(e.ctx, key.id, f.details)
		} else {
			f.err = e.list(e.ctx, key.kind)
		}
		if f.err != nil && !isStatus(f.err) {
			e.Suspect()
			f.err = e.unreachable(f.err)
		}
		e.mu.Lock()
		fs.now, fs.next = fs.next, nil
		last := fs.now == nil
		if last {
			delete(e.flights, key)
		}
		e.mu.Unlock()
		close(f.done)
		if last {
			return
		}
	}
}
