package engine

import (
	"context"
	"sync/atomic"
)

// Courtesy lets clients' requests to any engine of a fleet go before what nobody waits for: the inspections of all containers of
// a fleet that is seen for the first time take every processor for seconds. nil knows none.
type Courtesy struct {
	waiting atomic.Int64 // clients' requests that have no answer yet
	turn    chan struct{}
}

// politeAtOnce is how many inspections there are at once while clients wait: few, but so that there is an end to them.
const politeAtOnce = 2

// NewCourtesy makes the courtesy of one fleet.
func NewCourtesy() *Courtesy { return &Courtesy{turn: make(chan struct{}, politeAtOnce)} }

// begin counts a client's request until the first call of what it returns.
func (c *Courtesy) begin() (end func()) {
	if c == nil {
		return func() {}
	}
	c.waiting.Add(1)
	var ended atomic.Bool
	return func() {
		if !ended.Swap(true) {
			c.waiting.Add(-1)
		}
	}
}

// after waits for a turn, if there are clients that wait. Call done once the work is done.
func (c *Courtesy) after(ctx context.Context) (done func(), err error) {
	if c == nil || c.waiting.Load() == 0 {
		return func() {}, nil
	}
	select {
	case c.turn <- struct{}{}:
		return func() { <-c.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
