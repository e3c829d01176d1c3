package election

import (
	"context"
	"sync"
	"time"
)

// Tenure is the time in which this process leads. It may be used from several goroutines.
type Tenure struct {
	term  uint64
	clock func() time.Duration

	mu    sync.Mutex
	until time.Duration // on the clock; the lease cannot have ended at the store before
	over  bool
	timer *time.Timer
	done  chan struct{}
}

func newTenure(term uint64, clock func() time.Duration, until time.Duration) *Tenure {
	t := &Tenure{term: term, clock: clock, until: until, done: make(chan struct{})}
	t.timer = time.AfterFunc(until-clock(), func() { t.Valid() })
	return t
}

// Term is the fencing number of the lease.
func (t *Tenure) Term() uint64 { return t.term }

// Valid says whether this process may act as the primary at this very moment. A context is cancelled by a timer, and a process that
// was stopped may act before its timers do: ask Valid last, right before what cannot be undone.
func (t *Tenure) Valid() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over && t.clock() >= t.until {
		t.finish()
	}
	return !t.over
}

// Left is how long it stays valid without another renewal.
func (t *Tenure) Left() time.Duration {
	if !t.Valid() {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, t.until-t.clock())
}

// extend is called after a renewal. A tenure that is over stays so, even if the store would have it go on: its context has ended.
func (t *Tenure) extend(until time.Duration) {
	if !t.Valid() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over && until > t.until {
		t.until = until
		t.timer.Reset(until - t.clock())
	}
}

// end ends the tenure now.
func (t *Tenure) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.finish()
	}
}

func (t *Tenure) finish() {
	t.over = true
	t.timer.Stop()
	close(t.done)
}

// tenureContext is the context of the work: over when the tenure is, which it finds out itself if the timer comes too late.
type tenureContext struct {
	context.Context //nolint:containedctx // it is one
	tenure          *Tenure
}

func (c tenureContext) Deadline() (time.Time, bool) { return c.Context.Deadline() } // renewals move ours

func (c tenureContext) Done() <-chan struct{} {
	c.tenure.Valid() // a process that was stopped for long finds the channel closed
	return c.tenure.done
}

func (c tenureContext) Err() error {
	if c.tenure.Valid() {
		return nil
	}
	return context.Canceled
}
