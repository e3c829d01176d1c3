// Package engine is one Docker Engine of the fleet: it dials it, follows its events, refreshes what they say has changed,
// and publishes the result as a fleet.Node.
//
// Run owns everything: the connection, the goroutines, the node. An engine that fails is reported as it was last seen and
// is dialled again within seconds, for as long as Run runs. Requests of clients go through Do and Forward, which add the
// care that every call needs: a deadline or an owner, and an error that names the node.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/fleet"
	"berth/internal/proxy"
)

// Endpoint is how one engine is reached.
type Endpoint struct {
	// Name is what berth calls it; "" takes the engine's own host name.
	Name string
	// Addr is what users see: host:port, unix:///path, ssh://user@host.
	Addr string
	// Key differs between two endpoints that are reached in different ways, as by other certificates.
	Key string
	// IP is where its published ports answer; "" if unknown.
	IP string
	// Dial opens a connection that carries plain HTTP. It has CloseWrite.
	Dial func(ctx context.Context) (net.Conn, error)
	// Reach connects to a TCP address as the engine's own host sees it, such as its loopback. nil if only the network leads there.
	Reach func(ctx context.Context, addr string) (net.Conn, error)
	// Close frees what Dial shares between connections. nil for none.
	Close func() error
}

// Options are the same for all engines of a fleet.
type Options struct {
	// Name makes an engine's name unique in the fleet. It is called with the same answer expected until the engine leaves.
	Name func(ep Endpoint, hostName string) string
	// Publish receives every new state of the node, in order, from one goroutine at a time. It must not call the Engine.
	Publish func(*fleet.Node)
	// Event receives every event of the engine once, before it is applied. It must not block or call the Engine.
	Event func(fleet.Event)
	// Observe is told of every call to the engine when its answer has begun or will not come. It must not block. nil is
	// allowed.
	Observe func(Call)
	// Unsettled counts this engine among those of its fleet while it has something to settle. nil is allowed.
	Unsettled *Tally
	// Nodes is how many nodes the fleet has; nil for few.
	Nodes func() int
	// EventRate is how many events the fleet has had in the last second; nil for few.
	EventRate func() int
	// Limit bounds the background calls of all engines together. nil for no bound.
	Limit chan struct{}
	// Courtesy is the fleet's.
	Courtesy *Courtesy
	// APIMax is the newest API version that we speak.
	APIMax string
	// FailureRetry is how many attempts to connect must fail before a Healthy node becomes Unhealthy.
	FailureRetry int
	Timing       Timing
	Log          *slog.Logger
	Tunnels      *proxy.Tunnels
}

// Timing holds every period and deadline of an engine's care.
type Timing struct {
	Dial        time.Duration // one connection
	Probe       time.Duration // version and info, each
	List        time.Duration // one list or inspection
	PingEvery   time.Duration // when nothing else is heard; up to 2.5 times that in large fleets
	PingTimeout time.Duration
	Patience    time.Duration // with a client's request that has no answer, before the engine is asked for a sign of life
	RetryMin    time.Duration // between attempts to connect: the first
	RetryMax    time.Duration // and the longest
	Resync      time.Duration // a full list even if all seems well, spread by ±25 %
}

// DefaultTiming suits a local network. A hung engine is noticed within 7.5 s, a refusing one within half a second.
func DefaultTiming() Timing {
	return Timing{
		Dial: 3 * time.Second, Probe: 4 * time.Second, List: 30 * time.Second,
		PingEvery: 4 * time.Second, PingTimeout: 2500 * time.Millisecond, Patience: time.Second,
		RetryMin: 100 * time.Millisecond, RetryMax: 1500 * time.Millisecond, Resync: 5 * time.Minute,
	}
}

// Engine is one engine. Make it with New, start it with Run.
type Engine struct {
	ep     Endpoint
	o      Options
	tr     *proxy.Transport
	rpc    *http.Transport // HTTP/2, for BuildKit's gRPC
	target proxy.Target
	heard  atomic.Int64 // Unix nanoseconds of the last sign of life
	doubt  chan struct{}

	unsettled atomic.Uint32 // a bit for each kind

	mu       sync.Mutex
	node     *fleet.Node
	seq      uint64          // counts the calls whose answers are applied
	marks    map[string]mark // per container ID: how new the applied answers are, kept also for what was removed
	lists    map[fleet.Kind]uint64
	hints    map[string]hint // what events told of containers, until a list shows it
	flights  map[object]*flights
	debts    map[object]debt // what has changed and is not refreshed yet
	changing map[object]int  // requests under way that change it
	wake     chan struct{}   // a debt is ripe before payAt
	paying   bool            // somebody waits for the debts to fall due, until payAt
	payAt    time.Time
	running  bool
	ctx      context.Context //nolint:containedctx // Run's, for refreshes that several callers wait for
	wg       sync.WaitGroup
	lost     context.Context //nolint:containedctx // ends when the engine stops answering
	lose     context.CancelCauseFunc
	failures int
	cursor   cursor
}

// UnreachableError says that a node's engine did not answer.
type UnreachableError struct {
	Node string
	Err  error
	// Sent tells that the request may have reached the engine, so whether it was carried out is unknown.
	Sent bool
}

func (e *UnreachableError) Error() string {
	return "node " + e.Node + " is unreachable: " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Unavailable makes it errdefs.ErrUnavailable.
func (e *UnreachableError) Unavailable() {}

// NotReached is the Error of a node that was not tried yet.
const NotReached = "not yet reached"

var errNotRunning = errors.New("the engine is not followed any more")

// New prepares an engine; nothing is dialled before Run.
func New(ep Endpoint, o Options) *Engine {
	e := &Engine{
		ep: ep, o: o, doubt: make(chan struct{}, 1),
		marks: map[string]mark{}, lists: map[fleet.Kind]uint64{}, hints: map[string]hint{}, flights: map[object]*flights{},
		debts: map[object]debt{}, changing: map[object]int{}, wake: make(chan struct{}, 1),
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, o.Timing.Dial, &lateError{"no connection", o.Timing.Dial})
		defer cancel()
		c, err := ep.Dial(ctx)
		if err != nil {
			return nil, &proxy.NotSentError{Node: ep.Addr, Err: cause(ctx, err)}
		}
		return c, nil
	}
	e.tr = proxy.NewTransport(dial)
	e.rpc = proxy.NewHTTP2Transport(func(ctx context.Context) (net.Conn, error) { return e.dialHTTP2(ctx, dial) })
	e.target = proxy.Target{Name: ep.Addr, Transport: e.tr, HTTP2: e.rpc, Dial: dial}
	name := ep.Name
	if name == "" {
		name = "(unknown)"
	}
	e.node = &fleet.Node{ID: "|" + ep.Addr, Name: name, Addr: ep.Addr, IP: ep.IP, State: fleet.Pending, Error: NotReached, UpdatedAt: time.Now(), JoinedAt: time.Now()}
	e.lost, e.lose = context.WithCancelCause(context.Background())
	return e
}

// Endpoint returns what New was given.
func (e *Engine) Endpoint() Endpoint { return e.ep }

// Node returns the node as last published.
func (e *Engine) Node() *fleet.Node {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.node
}

// Run follows the engine until ctx ends, and returns when all that it started has ended.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.mu.Lock()
	e.ctx, e.running = ctx, true
	e.o.Publish(e.node)
	e.mu.Unlock()
	defer e.stop(cancel)
	delay := e.o.Timing.RetryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := e.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > 10*e.o.Timing.RetryMax {
			delay = e.o.Timing.RetryMin
		}
		if e.fail(err) {
			delay = min(2*delay, e.o.Timing.RetryMax)
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay + rand.N(delay/4+1)):
		}
	}
	return ctx.Err()
}

func (e *Engine) stop(cancel context.CancelFunc) {
	cancel()
	e.mu.Lock()
	e.running = false
	e.lose(errNotRunning)
	e.mu.Unlock()
	e.wg.Wait()
	e.mu.Lock()
	clear(e.debts)
	e.count()
	e.mu.Unlock()
	e.tr.CloseIdleConnections()
	e.rpc.CloseIdleConnections()
	if e.ep.Close != nil {
		if err := e.ep.Close(); err != nil {
			e.o.Log.Debug("close connection", "node", e.node.Name, "error", err)
		}
	}
}

// hungError marks a failure that needs no second proof: the engine accepted and did not answer in time.
type hungError struct{ err error }

func (h *hungError) Error() string { return h.err.Error() }
func (h *hungError) Unwrap() error { return h.err }

// fail notes a failed session and tells whether the node counts as lost.
func (e *Engine) fail(err error) bool {
	e.tr.CloseIdleConnections()
	e.rpc.CloseIdleConnections()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures++
	var hung *hungError
	retry := max(1, e.o.FailureRetry)
	if errors.As(err, &hung) {
		e.failures = max(e.failures, retry)
	}
	n := *e.node
	n.Error, n.UpdatedAt = plain(err).Error(), time.Now()
	n.Health = max(0, 100-e.failures*100/retry)
	if n.State == fleet.Pending {
		n.Health = 0
	}
	down := e.failures >= retry
	if down && n.State == fleet.Healthy {
		n.State = fleet.Unhealthy
		e.o.Log.Warn("node lost", "node", n.Name, "addr", n.Addr, "error", plain(err))
	}
	if down {
		e.lose(&UnreachableError{Node: n.Name, Err: plain(err), Sent: true})
	}
	e.publish(&n)
	return down
}

// publish makes n the node. The caller holds mu and does not change n any more.
func (e *Engine) publish(n *fleet.Node) {
	e.node = n.Seal()
	if e.running {
		e.o.Publish(e.node)
	}
}

// change publishes a changed copy of the node.
func (e *Engine) change(edit func(n *fleet.Node)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := *e.node
	edit(&n)
	e.publish(&n)
}

// Republish hands the node out once more, for a publisher that wants to look at it with other eyes.
func (e *Engine) Republish() { e.change(func(*fleet.Node) {}) }

// Suspect asks for a sign of life now instead of at the next turn.
func (e *Engine) Suspect() {
	select {
	case e.doubt <- struct{}{}:
	default:
	}
}

// Heard is when the engine last gave a sign of life.
func (e *Engine) Heard() time.Time { return time.Unix(0, e.heard.Load()) }

// plain takes the words about the node off an error that is shown beside its name.
func plain(err error) error {
	var unsent *proxy.NotSentError
	if errors.As(err, &unsent) {
		return unsent.Err
	}
	return err
}

func (e *Engine) hear() { e.heard.Store(time.Now().UnixNano()) }

// unreachable wraps an error of a call with the node's name, but leaves those that say it already.
func (e *Engine) unreachable(err error) *UnreachableError {
	var u *UnreachableError
	var unsent *proxy.NotSentError
	var unanswered *proxy.NoAnswerError
	switch {
	case errors.As(err, &u):
		return u
	case errors.As(err, &unsent):
		return &UnreachableError{Node: e.Node().Name, Err: unsent.Err}
	case errors.As(err, &unanswered):
		err = unanswered.Err
	}
	return &UnreachableError{Node: e.Node().Name, Err: err, Sent: true}
}

// call bounds what one background call may take, and how many there are.
func (e *Engine) call(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc, error) {
	if e.o.Limit != nil {
		select {
		case e.o.Limit <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d, &lateError{"no answer", d})
	return ctx, func() {
		cancel()
		if e.o.Limit != nil {
			<-e.o.Limit
		}
	}, nil
}
