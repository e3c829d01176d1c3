package engine

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/fleet"
)

// session is one connection's life: reach the engine, take in all it has, then follow its events until something breaks.
func (e *Engine) session(ctx context.Context) error {
	p, err := e.probe(ctx)
	if err != nil {
		return err
	}
	stream, err := e.openEvents(ctx, p)
	if err != nil {
		return err
	}
	defer stream.close()
	e.adopt(p)
	todo, err := e.resync(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	inspected := make(chan struct{})
	g.Go(func() error { return stream.follow(ctx, e) })
	g.Go(func() error { return e.keepPinging(ctx) })
	g.Go(func() error { return e.keepListing(ctx) })
	g.Go(func() error {
		defer close(inspected)
		return e.inspectAll(ctx, todo)
	})
	g.Go(func() error { return e.welcome(ctx, inspected) })
	return g.Wait()
}

// welcome lets placements begin once the reservations of what already runs there are known, or after a moment.
func (e *Engine) welcome(ctx context.Context, inspected <-chan struct{}) error {
	select {
	case <-inspected:
	case <-time.After(3 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := *e.node
	was := n.State
	n.State, n.Error, n.Health, n.UpdatedAt = fleet.Healthy, "", 100, time.Now()
	e.failures = 0
	if e.lost.Err() != nil {
		e.lost, e.lose = context.WithCancelCause(context.Background())
	}
	e.publish(&n)
	if was != fleet.Healthy {
		e.o.Log.Info("node is healthy", "node", n.Name, "addr", n.Addr, "version", n.Version, "containers", len(n.Containers))
	}
	return nil
}

// keepPinging ends with an error as soon as the engine does not answer in time.
func (e *Engine) keepPinging(ctx context.Context) error {
	for {
		asked, every := false, e.pingEvery()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.doubt:
			asked = true
		case <-time.After(inStep(time.Now(), every+rand.N(every/8+1), every/16)):
		}
		if !asked && time.Since(e.Heard()) < every {
			continue
		}
		if err := e.ping(ctx); err != nil {
			return err
		}
	}
}

// A fleet of up to so many nodes has its pings as often as Timing says; in larger ones they are rarer, but no more than so
// much: thousands of nodes are to cost a manager at rest next to nothing.
const (
	pingFleet   = 400
	pingStretch = 2.5
)

func (e *Engine) pingEvery() time.Duration {
	every := e.o.Timing.PingEvery
	if e.o.Nodes == nil {
		return every
	}
	return time.Duration(float64(every) * min(pingStretch, max(1, float64(e.o.Nodes())/pingFleet)))
}

// inStep shortens a wait so that it ends together with others': waking once for twenty pings costs far less than waking
// twenty times for one.
func inStep(now time.Time, d, step time.Duration) time.Duration {
	return now.Add(d).Truncate(step).Sub(now)
}

func (e *Engine) ping(ctx context.Context) error { return e.Ping(ctx, e.o.Timing.PingTimeout) }

// Ping asks for a sign of life within d. A node that gives none is placed on last until it does.
func (e *Engine) Ping(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, &lateError{"no answer to a ping", d})
	defer cancel()
	_, err := e.get(ctx, "/_ping", "")
	switch {
	case err == nil:
		e.trust(100)
	case ctx.Err() != nil && context.Cause(ctx) != context.Canceled: //nolint:errorlint // the cause is this very value
		e.trust(doubtful)
		return &hungError{context.Cause(ctx)}
	}
	return err
}

// doubtful is the health of a node that may be hung: below every other, but better than none.
const doubtful = 10

// trust sets the health of a node that counts as healthy.
func (e *Engine) trust(health int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.node.State != fleet.Healthy || e.failures > 0 || e.node.Health == health {
		return
	}
	n := *e.node
	n.Health = health
	e.publish(&n)
}

// keepListing lists everything again at long intervals, as an insurance against events that an engine dropped.
func (e *Engine) keepListing(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(e.o.Timing.Resync*3/4 + rand.N(e.o.Timing.Resync/2+1)):
		}
		if err := e.refreshInfo(ctx); err != nil {
			return err
		}
		todo, err := e.resync(ctx)
		if err != nil {
			return err
		}
		if err := e.inspectAll(ctx, todo); err != nil {
			return err
		}
	}
}

// resync takes in all lists and returns the containers that must be inspected.
func (e *Engine) resync(ctx context.Context) ([]string, error) {
	var todo []string
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(callsAtOnce)
	g.Go(func() (err error) {
		todo, err = e.listContainers(ctx)
		return err
	})
	for _, kind := range []fleet.Kind{fleet.KindImage, fleet.KindNetwork, fleet.KindVolume} {
		g.Go(func() error { return e.list(ctx, kind) })
	}
	return todo, g.Wait()
}

// callsAtOnce bounds the background calls to one engine: each needs a connection, and a fleet has many engines.
const callsAtOnce = 2
