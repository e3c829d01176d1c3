// Package relay gives containers the fleet where they mount /var/run/docker.sock.
//
// A socket can be mounted only from a container's own node, and a node cannot always dial the manager. So each node that
// needs it gets one relay: a container made of the berth binary alone, which listens on a socket in a volume of its own. The
// manager runs a second process beside it by exec; that one accepts the connections and carries them, many over one, through
// its standard streams to the manager, which serves them as it serves those of its own listeners. Wherever the manager
// reaches the engine, the containers reach the manager, and no port is opened.
//
// The relay outlives managers: the socket that containers have mounted stays, and who connects while no manager is there
// waits for the next. Several managers may join one relay. The package decides how relays are made, found and joined; it
// knows nothing of what is said over them.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"berth/internal/fleet"
)

const (
	// Name is what relays' volumes are called, and how the names of their containers and images begin.
	Name = "berth-relay"
	// protocol is the value of the label on relays that we can join. It changes if they come to speak another language than
	// those of earlier versions, which are left alone, since containers have their sockets.
	protocol = "1"

	folder     = "/relay" // where the relay has its volume
	socketFile = "docker.sock"
	program    = "/berth"
)

const (
	makeLimit  = 2 * time.Minute        // sending the binary over a slow line is the longest part
	joinLimit  = 15 * time.Second       // from the exec to the first answer through it
	lookEvery  = 300 * time.Millisecond // for relays that have nobody: after a restart, or a line that broke
	retryAfter = 3 * time.Second        // for one that could not be joined
)

// Fleet is the engines, and what they have.
type Fleet interface {
	Snapshot() *fleet.Snapshot
	// Do sends one request to a node's engine. The body of an answer 101 is the stream, to be written to as well.
	Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error)
}

// Relays are those of all nodes of a fleet. It is a net.Listener too: it accepts what containers connect to.
type Relays struct {
	fleet   Fleet
	program *Program
	log     *slog.Logger

	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex // guards what follows
	links map[string]*link
	ctx   context.Context //nolint:containedctx // Run's, which ends what Socket began
	work  sync.WaitGroup
}

// link is our end of one node's relay.
type link struct {
	busy chan struct{} // one place: held by who makes or joins it, and guards what follows
	// socket is where the node has the relay's socket, and session what comes from there; nil if there is none.
	socket  string
	session *yamux.Session

	seen    *fleet.Node // as the keeper last saw it
	relay   string      // the ID of the running relay it saw, or ""
	retryAt time.Time
}

// New prepares the relays of a fleet; they are made of the program. It starts nothing.
func New(f Fleet, p *Program, log *slog.Logger) *Relays {
	return &Relays{fleet: f, program: p, log: log, conns: make(chan net.Conn), closed: make(chan struct{}), links: map[string]*link{}}
}

// Arch is the architecture, in Docker's words, of nodes that can have a relay.
func (r *Relays) Arch() string { return r.program.Arch }

var errNotRunning = errors.New("the manager is stopping")

// Run joins the relays that are there, and those that lost us again, until ctx ends; it then lets all connections go and
// returns when nothing of them is left. The relays stay.
func (r *Relays) Run(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	r.mu.Unlock()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		r.keep()
		select {
		case <-ctx.Done():
			r.mu.Lock() // whoever held it has started its work by now, and nobody starts more
			r.mu.Unlock()
			r.work.Wait()
			return nil
		case <-look.C:
		}
	}
}

// begin starts work that Run waits for.
func (r *Relays) begin(work func(ctx context.Context)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx == nil || r.ctx.Err() != nil {
		return errNotRunning
	}
	ctx := r.ctx
	r.work.Go(func() { work(ctx) })
	return nil
}

func (r *Relays) link(nodeID string) *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.links[nodeID]
	if !ok {
		l = &link{busy: make(chan struct{}, 1)}
		r.links[nodeID] = l
	}
	return l
}

// Socket returns the path under which containers of the node mount the fleet's socket. If nobody listens there yet it makes
// the relay; calls for one node at the same time make one.
func (r *Relays) Socket(ctx context.Context, n *fleet.Node) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, makeLimit, fmt.Errorf("not ready within %s", makeLimit))
	defer cancel()
	l := r.link(n.ID)
	select {
	case l.busy <- struct{}{}:
		defer func() { <-l.busy }()
	case <-ctx.Done():
		return "", fmt.Errorf("node %s: relay: %w", n.Name, context.Cause(ctx))
	}
	if l.joined() {
		return l.socket, nil
	}
	id, err := r.ensure(ctx, n)
	if err == nil {
		err = r.join(ctx, n, l, id)
	}
	if err != nil {
		return "", fmt.Errorf("node %s: relay: %w", n.Name, err)
	}
	return l.socket, nil
}

func (l *link) joined() bool { return l.session != nil && !l.session.IsClosed() }

// keep joins each relay that runs and that we are not joined with. It looks only at nodes that have changed.
func (r *Relays) keep() {
	now := time.Now()
	for _, n := range r.fleet.Snapshot().Nodes() {
		if n.State != fleet.Healthy {
			continue
		}
		l := r.link(n.ID)
		select {
		case l.busy <- struct{}{}:
		default:
			continue // somebody is at it
		}
		if l.seen != n {
			l.seen, l.relay = n, runningRelay(n)
		}
		if l.relay == "" || l.joined() || now.Before(l.retryAt) {
			<-l.busy
			continue
		}
		err := r.begin(func(ctx context.Context) {
			defer func() { <-l.busy }()
			r.rejoin(ctx, n, l)
		})
		if err != nil {
			<-l.busy
			return
		}
	}
}

func (r *Relays) rejoin(ctx context.Context, n *fleet.Node, l *link) {
	limited, cancel := context.WithTimeoutCause(ctx, joinLimit, fmt.Errorf("not joined within %s", joinLimit))
	defer cancel()
	if err := r.join(limited, n, l, l.relay); err != nil {
		l.retryAt = time.Now().Add(retryAfter)
		if ctx.Err() == nil {
			r.log.Warn("containers of a node do not reach the fleet", "node", n.Name, "error", err)
		}
	}
}

func runningRelay(n *fleet.Node) string {
	for _, c := range n.Containers {
		if c.Labels.Get(fleet.LabelRelay) == protocol && c.State == "running" {
			return c.ID
		}
	}
	return ""
}
