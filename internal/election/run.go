package election

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Options of a campaign.
type Options struct {
	// Advertise is where other managers reach this one, for Changed.
	Advertise string
	// Changed is told who leads, at first and whenever it is somebody else, also when it is this process; the zero Leader when it is
	// known that nobody does. nil means that nobody wants to know.
	Changed func(l Leader, self bool)
	// Warn is told what is wrong with the store, once per kind of trouble, and nil when it is over.
	Warn func(error)

	clock func() time.Duration // of tests
}

const (
	// safe is the part of a lease's time that is used. The rest is for clocks that do not run alike, and for the work to notice.
	safe = 0.8
	// callLimit bounds a call to the store.
	callLimit = 5 * time.Second
	// releaseLimit is how long a lease that nobody wants any more may take to be given back.
	releaseLimit = 2 * time.Second
	// look is how often a candidate looks whether the lease is free.
	look = 500 * time.Millisecond
)

// Run campaigns until ctx ends, and calls work each time that this process leads. The work's context ends when the lease is lost, when
// it could not be renewed for so long that it may be lost, and with ctx; Run then waits for the work to return. Work that returns by
// itself ends Run, with its error; the lease is released at once, so that another may lead.
func Run(ctx context.Context, leaser Leaser, o Options, work func(context.Context, *Tenure) error) error {
	c := &campaign{leaser: leaser, o: o}
	if c.o.clock == nil {
		c.o.clock = now
	}
	for ctx.Err() == nil {
		sent := c.o.clock() // the store may count from here on
		lease, err := c.acquire(ctx)
		if err != nil {
			pause(ctx, look)
			continue
		}
		if ended, err := c.lead(ctx, lease, sent, work); ended {
			return err
		}
	}
	return nil
}

// campaign is what one Run remembers.
type campaign struct {
	leaser  Leaser
	o       Options
	told    bool
	leader  Leader
	trouble trouble // that was warned of last
}

func (c *campaign) acquire(ctx context.Context) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	lease, err := c.leaser.Acquire(ctx)
	var held *HeldError
	switch {
	case err == nil:
		c.warn(fine, nil)
	case errors.As(err, &held):
		c.warn(fine, nil)
		c.changed(held.Leader, false)
	case !errors.Is(ctx.Err(), context.Canceled):
		c.warn(unreachable, fmt.Errorf("election: %w", err))
	}
	return lease, err
}

// lead works under a lease. ended says that the work ended by itself.
func (c *campaign) lead(ctx context.Context, lease Lease, sent time.Duration, work func(context.Context, *Tenure) error) (ended bool, err error) {
	useful := time.Duration(float64(lease.TTL()) * safe)
	tenure := newTenure(lease.Term(), c.o.clock, sent+useful)
	defer c.release(ctx, lease)
	defer tenure.end()
	stop := context.AfterFunc(ctx, tenure.end)
	defer stop()
	if !tenure.Valid() {
		return false, nil // the store took so long to answer that the lease may be over
	}
	c.changed(Leader{Addr: c.o.Advertise, Term: lease.Term()}, true)
	done := make(chan error, 1)
	go func() { done <- work(tenureContext{context.WithoutCancel(ctx), tenure}, tenure) }()
	renewing, halt := context.WithCancel(context.WithoutCancel(ctx))
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		c.renew(renewing, lease, tenure, useful)
	}()
	err = <-done
	ended = tenure.Valid()
	tenure.end()
	halt()
	<-renewed
	if !ended && err != nil && !errors.Is(err, context.Canceled) {
		c.warn(failed, fmt.Errorf("election: what the primary did ended with: %w", err))
	}
	c.changed(Leader{}, false)
	return ended, err
}

// renew renews the lease until it is lost or the tenure is over.
func (c *campaign) renew(ctx context.Context, lease Lease, tenure *Tenure, useful time.Duration) {
	defer tenure.end()
	every := useful / 3
	for {
		select {
		case <-ctx.Done():
			return
		case <-tenure.done:
			return
		case <-time.After(every):
		}
		sent := c.o.clock()
		limit, cancel := context.WithTimeout(ctx, min(callLimit, max(tenure.Left(), time.Millisecond)))
		err := lease.Renew(limit)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			c.warn(fine, nil)
			tenure.extend(sent + useful)
			every = useful / 3
		case errors.Is(err, ErrLost):
			c.warn(lost, fmt.Errorf("election: %w", err))
			return
		default:
			c.warn(unreachable, fmt.Errorf("election: renew the lease: %w", err))
			every = min(useful/10, look) // there is not much time
		}
	}
}

// release gives the lease back, so that the next primary need not wait for its end. That it cannot be is no harm: it ends by itself.
func (c *campaign) release(ctx context.Context, lease Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	if err := lease.Release(ctx); err != nil {
		c.warn(unreachable, fmt.Errorf("election: release the lease: %w", err))
	}
}

func (c *campaign) changed(l Leader, self bool) {
	if c.told && c.leader == l {
		return
	}
	c.told, c.leader = true, l
	if c.o.Changed != nil {
		c.o.Changed(l, self)
	}
}

// trouble is what a warning is about. Texts are no measure: they name one server, and then another.
type trouble int

const (
	fine trouble = iota
	unreachable
	lost
	failed
)

func (c *campaign) warn(about trouble, err error) {
	if about == c.trouble {
		return
	}
	c.trouble = about
	if c.o.Warn != nil {
		c.o.Warn(err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
