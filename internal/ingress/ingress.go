// Package ingress has the ports that containers publish on any node answer on the endpoint's own computer, too.
//
// It is level-triggered: what is open here follows from the snapshot and from the starts that are under way, and from nothing
// that was remembered, so it is the same after a restart. Where a port cannot be had here the container runs all the same,
// unless the ingress is strict; the reason is told to who asks. It decides nothing about placement and changes nothing on engines.
package ingress

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/fleet"
)

// Fleet is what is asked of a cluster.
type Fleet interface {
	Snapshot() *fleet.Snapshot
	// Looked is closed when the snapshot shows the fleet.
	Looked() <-chan struct{}
	// Reaches tells whether Reach can work for a node.
	Reaches(nodeID string) bool
	// Reach connects to a TCP address as the node's own host sees it.
	Reach(ctx context.Context, nodeID, addr string) (net.Conn, error)
}

// Options of an Ingress.
type Options struct {
	Fleet Fleet
	// Strict refuses the start of a container whose ports cannot be had here.
	Strict bool
	// Address is where ports open that are published on all addresses; the zero value is all.
	Address netip.Addr
	Limits  Limits
	Timing  Timing
	Log     *slog.Logger
}

// Limits bound what strangers may use up here.
type Limits struct {
	Conns    int // TCP connections at a time; who comes then waits
	PortConn int // of one port
	Flows    int // UDP peers of one port at a time; the one that was silent longest is forgotten
}

// Timing holds the periods and deadlines.
type Timing struct {
	Every time.Duration // how often changes are looked for
	Retry time.Duration // how often a port is tried again that could not be had
	Dial  time.Duration // for one connection to a node
	Idle  time.Duration // until a silent UDP peer is forgotten
	Hold  time.Duration // how long a started container may take to show its ports
}

// DefaultLimits fit a process that may open some ten thousand files.
func DefaultLimits() Limits { return Limits{Conns: 4096, PortConn: 2048, Flows: 1024} }

// DefaultTiming suits a local network. UDP peers are forgotten as docker-proxy does.
func DefaultTiming() Timing {
	return Timing{Every: 200 * time.Millisecond, Retry: 2 * time.Second, Dial: 10 * time.Second, Idle: 90 * time.Second, Hold: 6 * time.Second}
}

// Ingress is the listeners of one manager. Make it with New, start it with Run.
type Ingress struct {
	o     Options
	conns chan struct{}         // a place for each TCP connection
	ours  func(netip.Addr) bool // whether an address is this computer's

	// hindered are the ports that do not answer here, by container ID.
	hindered atomic.Pointer[map[string][]fleet.Hindrance]

	wg sync.WaitGroup // all that forwards

	mu      sync.Mutex      // guards what follows; no network is waited for under it
	ctx     context.Context //nolint:containedctx // Run's, for what forwards
	version uint64
	wants   map[string]nodeWants // by node ID
	open    map[key]*forward
	holds   map[*hold]struct{}
	said    map[string]string // reasons that were logged, by container and port
	tried   time.Time         // when ports that could not be had were last tried
}

// New prepares an ingress; nothing is opened before Run.
func New(o Options) *Ingress {
	i := &Ingress{
		o: o, conns: make(chan struct{}, o.Limits.Conns), wants: map[string]nodeWants{}, open: map[key]*forward{}, holds: map[*hold]struct{}{},
		said: map[string]string{}, ours: new(ownAddresses).has,
	}
	i.hindered.Store(&map[string][]fleet.Hindrance{})
	return i
}

// Run forwards until ctx ends, and returns when every port is closed and every connection ended.
func (i *Ingress) Run(ctx context.Context) error {
	select {
	case <-i.o.Fleet.Looked():
	case <-ctx.Done():
		return ctx.Err()
	}
	i.mu.Lock()
	i.ctx = ctx
	i.mu.Unlock()
	defer i.close()
	tick := time.NewTicker(i.o.Timing.Every)
	defer tick.Stop()
	for {
		i.Follow()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (i *Ingress) close() {
	i.mu.Lock()
	i.ctx = nil
	for k, f := range i.open {
		f.close()
		delete(i.open, k)
	}
	i.mu.Unlock()
	i.wg.Wait()
}
