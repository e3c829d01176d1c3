// Package cluster is who is in the fleet and who holds a place in it.
//
// It is the only writer of the fleet's snapshot: engines publish their nodes here, and readers take the snapshot without a
// lock. It decides creates: it reserves, asks the scheduler, sends, and lets the reservation go once the snapshot shows the
// container. It knows nothing of routes and clients; those are api's.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/engine"
	"berth/internal/fleet"
	"berth/internal/proxy"
	"berth/internal/schedule"
)

// Source tells where the engines are.
type Source interface {
	// Watch calls update with the whole set at once and at every change, until ctx ends. It blocks; the caller owns the
	// goroutine. An error means that it can never work.
	Watch(ctx context.Context, update func([]engine.Endpoint)) error
}

// Options of a cluster.
type Options struct {
	Engine engine.Options // Name, Publish, Event, Nodes and EventRate are filled in here
	Policy schedule.Policy
	// CreateRetry is how often a create that an engine refused with a server error is tried again, elsewhere if possible.
	CreateRetry int
	// Office is the right to create, which one manager of several has. nil for a manager that is alone.
	Office Office
	// UniquePorts are given out as host ports where clients leave the choice.
	UniquePorts PortRange
	// PortFree tells whether a host port may be given out for all that is known beside the containers. It must not wait for
	// anything. nil for always.
	PortFree func(fleet.Port) bool
	// Backlog is how many events are remembered for `docker events --since`.
	Backlog int
	// Placed is told of every decision of the scheduler for a create: how long it took, and why there was none. nil is
	// allowed.
	Placed func(took time.Duration, err error)
	// Told is told the type of every event of the fleet that is new; not of those that engines remember from before they were
	// followed. It must not block. nil is allowed.
	Told func(kind string)
	// Intents are what the operator wants of nodes; nil for nothing.
	Intents Intents
	Log     *slog.Logger
}

// Cluster holds the engines of a fleet. Make it with New, start it with Run.
type Cluster struct {
	o        Options
	snapshot atomic.Pointer[fleet.Snapshot]
	changed  atomic.Int64 // Unix nanoseconds of the last one
	hub      *hub
	swarm    swarmEvents

	adjusting sync.Mutex      // one change of members at a time; guards leftOut
	leftOut   map[string]bool // addresses that a source names and the operator has removed

	mu      sync.Mutex // guards members, sets and names
	members map[string]*member
	sets    map[int][]engine.Endpoint // by source
	names   map[string]string         // a node's name → its address

	pub     sync.RWMutex // guards what publishing changes: engines, abandoned, replaced, and the order of snapshots
	engines map[string]*engine.Engine
	// replaced are containers whose place another has taken: ID → the node of that one.
	replaced map[string]string

	busy   engine.Tally
	seats  seats
	doubts doubts
	work   sync.WaitGroup // what publishing and doubts set off

	looked   chan struct{} // closed when every engine of the sources' first sets was tried
	lookOnce sync.Once
	reported int // sources that have said something; guarded by mu
	sources  int
	run      context.Context //nolint:containedctx // Run's, for nodes that join because an intent changed; guarded by mu
}

// member is one engine that the sources name.
type member struct {
	engine *engine.Engine
	key    string
	cancel context.CancelFunc
	done   chan struct{}
	// guarded by Cluster.pub:
	nodeID string
	gone   bool
}

// New makes an empty cluster.
func New(o Options) *Cluster {
	c := &Cluster{
		o: o, members: map[string]*member{}, sets: map[int][]engine.Endpoint{}, names: map[string]string{},
		engines: map[string]*engine.Engine{}, replaced: map[string]string{}, leftOut: map[string]bool{}, hub: newHub(o.Backlog, o.Told), seats: newSeats(), looked: make(chan struct{}),
	}
	c.doubts.c = c
	c.snapshot.Store(new(fleet.Snapshot))
	c.changed.Store(time.Now().UnixNano())
	return c
}

// Run follows the sources and their engines until ctx ends, and returns when all of it has stopped.
func (c *Cluster) Run(ctx context.Context, sources ...Source) error {
	defer c.hub.close()
	defer c.lookOnce.Do(func() { close(c.looked) })
	c.sources = len(sources)
	g, ctx := errgroup.WithContext(ctx)
	c.mu.Lock()
	c.run = ctx
	c.mu.Unlock()
	for i, s := range sources {
		g.Go(func() error {
			return s.Watch(ctx, func(eps []engine.Endpoint) { c.reconcile(ctx, i, eps) })
		})
	}
	err := g.Wait()
	c.leaveAll()
	c.doubts.close()
	c.work.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// reconcile brings the members to what the sources name together. Those that left go first, so that a changed endpoint
// keeps its name.
func (c *Cluster) reconcile(ctx context.Context, source int, eps []engine.Endpoint) {
	c.mu.Lock()
	if _, known := c.sets[source]; !known {
		c.reported++
	}
	c.sets[source] = eps
	c.mu.Unlock()
	c.adjust(ctx)
}

// adjust is reconcile with what the sources said last.
func (c *Cluster) adjust(ctx context.Context) {
	c.adjusting.Lock()
	defer c.adjusting.Unlock()
	c.mu.Lock()
	want := map[string]engine.Endpoint{}
	for _, set := range c.sets {
		for _, ep := range set {
			if _, twice := want[ep.Addr]; !twice {
				want[ep.Addr] = ep
			}
		}
	}
	all := c.reported == c.sources
	c.mu.Unlock()
	c.leaveOut(ctx, want, all)
	c.mu.Lock()
	var left []*member
	for addr, m := range c.members {
		if ep, ok := want[addr]; !ok || ep.Key != m.key {
			left = append(left, m)
			delete(c.members, addr)
		}
	}
	c.mu.Unlock()
	for _, m := range left {
		c.leave(m, c.whyLeft(m))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for addr, ep := range want {
		if _, ok := c.members[addr]; !ok && ctx.Err() == nil {
			c.members[addr] = c.join(ctx, ep)
		}
	}
	c.look(c.reported == c.sources && len(c.members) == 0)
}

// Looked is closed when every engine that the sources first named was tried once, so that what is missing in the snapshot
// is not merely not there yet.
func (c *Cluster) Looked() <-chan struct{} { return c.looked }

// look closes looked if all is said, or if no node of the snapshot is still to be tried.
func (c *Cluster) look(all bool) {
	select {
	case <-c.looked:
		return
	default:
	}
	nodes := c.Snapshot().Nodes()
	tried := len(nodes) > 0
	for _, n := range nodes {
		tried = tried && (n.State != fleet.Pending || n.Error != engine.NotReached)
	}
	if all || tried {
		c.lookOnce.Do(func() { close(c.looked) })
	}
}

// join starts to follow an engine.
func (c *Cluster) join(ctx context.Context, ep engine.Endpoint) *member {
	ctx, cancel := context.WithCancel(ctx)
	m := &member{key: ep.Key, cancel: cancel, done: make(chan struct{})}
	o := c.o.Engine
	o.Name = c.name
	o.Publish = func(n *fleet.Node) { c.publish(m, n) }
	o.Event = func(ev fleet.Event) {
		if c.swarm.pass(ev) {
			c.hub.publish(ev)
		}
	}
	o.Unsettled = &c.busy
	o.EventRate = func() int { return c.hub.rate.rate(time.Now()) }
	o.Nodes = func() int { return c.Snapshot().Len() }
	m.engine = engine.New(ep, o)
	c.o.Log.Info("node joins", "name", ep.Name, "addr", ep.Addr)
	go func() {
		defer close(m.done)
		if err := m.engine.Run(ctx); err != nil && ctx.Err() == nil {
			c.o.Log.Error("node is not followed any more", "addr", ep.Addr, "error", err)
		}
	}()
	return m
}

// leave stops following an engine and takes its node out of the picture.
func (c *Cluster) leave(m *member, why string) {
	m.cancel()
	<-m.done
	c.pub.Lock()
	m.gone = true
	s := c.snapshot.Load()
	n, known := s.Node(m.nodeID)
	if known {
		c.snapshot.Store(c.replace(s.Without(m.nodeID), &fleet.Node{ID: m.nodeID}))
		delete(c.engines, m.nodeID)
	}
	c.pub.Unlock()
	addr := m.engine.Endpoint().Addr
	c.mu.Lock()
	for name, at := range c.names {
		if at == addr {
			delete(c.names, name)
		}
	}
	c.mu.Unlock()
	c.o.Log.Info("node leaves", "addr", addr)
	if known {
		c.hub.publish(nodeEvent(n, "engine_disconnect"))
		c.hub.publish(memberEvent(n, "leave", why, nil))
	}
}

func (c *Cluster) leaveAll() {
	c.mu.Lock()
	members := c.members
	c.members = map[string]*member{}
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() { c.leave(m, "the manager stops") })
	}
	wg.Wait()
}

// publish puts a node's new state into the snapshot.
func (c *Cluster) publish(m *member, n *fleet.Node) {
	c.pub.Lock()
	if m.gone {
		c.pub.Unlock()
		return
	}
	whole := n
	n = c.intend(c.hideMoved(c.seats.hide(n)))
	s := c.snapshot.Load()
	was := &fleet.Node{State: fleet.Pending}
	if old, ok := s.Node(m.nodeID); ok {
		was = old
		if m.nodeID != n.ID {
			s = s.Without(m.nodeID)
			delete(c.engines, m.nodeID)
		}
	}
	m.nodeID = n.ID
	c.engines[n.ID] = m.engine
	c.snapshot.Store(c.replace(s.Replace(n), whole))
	c.pub.Unlock()
	c.changed.Store(time.Now().UnixNano())
	if action := stateChange(was.State, n.State); action != "" {
		c.hub.publish(nodeEvent(n, action))
	}
	c.tellChanges(was, n)
	c.clean(m.engine, whole)
	c.settleDoubles(m.engine, n)
	c.look(false)
}

// name makes a node's name unique: the machine's, or the engine's own host name, with the address added if another has it.
func (c *Cluster) name(ep engine.Endpoint, hostName string) string {
	want := ep.Name
	if want == "" {
		want = hostName
	}
	if want == "" {
		want = ep.Addr
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, candidate := range []string{want, want + "-" + addrHost(ep.Addr), want + "-" + addrWord(ep.Addr)} {
		if at, taken := c.names[candidate]; !taken || at == ep.Addr {
			c.names[candidate] = ep.Addr
			return candidate
		}
	}
	return want + "-" + addrWord(ep.Addr)
}

// Snapshot returns the fleet as it is now known.
func (c *Cluster) Snapshot() *fleet.Snapshot { return c.snapshot.Load() }

// ChangedAt is when a node last told something new.
func (c *Cluster) ChangedAt() time.Time { return time.Unix(0, c.changed.Load()) }

// EventReaders tells how many follow the events, how far the slowest is behind, and how many were cut off because of that.
func (c *Cluster) EventReaders() (readers, behind, cut int) { return c.hub.stats() }

func (c *Cluster) engineOf(nodeID string) (*engine.Engine, error) {
	c.pub.RLock()
	defer c.pub.RUnlock()
	e, ok := c.engines[nodeID]
	if !ok {
		return nil, &goneError{nodeID}
	}
	return e, nil
}

// goneError says that a node left the fleet between looking and asking.
type goneError struct{ node string }

func (g *goneError) Error() string { return fmt.Sprintf("node %s has left the fleet", g.node) }
func (g *goneError) Unavailable()  {}

// Do sends one request to a node. See engine.Do.
func (c *Cluster) Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error) {
	e, err := c.engineOf(nodeID)
	if err != nil {
		return nil, err
	}
	return e.Do(ctx, r)
}

// Reaches tells whether there is a way to a node's own view of the network, beside the network.
func (c *Cluster) Reaches(nodeID string) bool {
	e, err := c.engineOf(nodeID)
	return err == nil && e.Endpoint().Reach != nil
}

// Reach connects to a TCP address as a node's host sees it. See engine.Endpoint.
func (c *Cluster) Reach(ctx context.Context, nodeID, addr string) (net.Conn, error) {
	e, err := c.engineOf(nodeID)
	if err != nil {
		return nil, err
	}
	reach := e.Endpoint().Reach
	if reach == nil {
		return nil, &noReachError{nodeID}
	}
	return reach(ctx, addr)
}

// noReachError says that only the network leads to a node.
type noReachError struct{ node string }

func (n *noReachError) Error() string { return fmt.Sprintf("there is no SSH to node %s", n.node) }
func (n *noReachError) Unavailable()  {}

// Forward hands a client's request to a node. See proxy.Forward.
func (c *Cluster) Forward(w http.ResponseWriter, r *http.Request, nodeID string, o proxy.Options) error {
	e, err := c.engineOf(nodeID)
	if err != nil {
		return err
	}
	return e.Forward(w, r, o)
}

// Refresh returns once the snapshot shows an object as its engine has it now. For containers the ID must be a full one;
// other kinds are refreshed whole.
func (c *Cluster) Refresh(ctx context.Context, nodeID string, kind fleet.Kind, id string) error {
	e, err := c.engineOf(nodeID)
	if err != nil {
		return err
	}
	return e.Refresh(ctx, kind, id)
}

// Changed tells that a client has changed an object: who asks Settle next sees it. It returns at once.
func (c *Cluster) Changed(nodeID string, kind fleet.Kind, id string) {
	if e, err := c.engineOf(nodeID); err == nil {
		e.Changed(kind, id)
	}
}

// Changing tells that a client's request is about to change an object: until changed is called, who asks Settle sees what it
// is like then, and afterwards what has become of it.
func (c *Cluster) Changing(nodeID string, kind fleet.Kind, id string) (changed func()) {
	e, err := c.engineOf(nodeID)
	if err != nil {
		return func() {}
	}
	return e.Changing(kind, id)
}

// settleLimit bounds how long a reader waits for engines that have just changed something: one that hangs is not seen as lost
// at once, and the others' answers are not to wait for that.
const settleLimit = time.Second

// Settle returns when the snapshot shows all changes to objects of these kinds, one kind after the other, whose requests were
// answered or of which events have told.
func (c *Cluster) Settle(ctx context.Context, kinds ...fleet.Kind) {
	var cancel context.CancelFunc
	for _, kind := range kinds {
		if c.busy.None(kind) {
			continue
		}
		if cancel == nil {
			ctx, cancel = context.WithTimeout(ctx, settleLimit)
			defer cancel()
		}
		var waits []func(context.Context)
		for _, e := range c.unsettled(kind) {
			waits = append(waits, e.Settle(kind))
		}
		for _, wait := range waits {
			wait(ctx)
		}
	}
}

func (c *Cluster) unsettled(kind fleet.Kind) []*engine.Engine {
	var busy []*engine.Engine
	c.pub.RLock()
	for _, e := range c.engines {
		if e.Unsettled(kind) {
			busy = append(busy, e)
		}
	}
	c.pub.RUnlock()
	return busy
}

// RefreshDetails is Refresh of a container whose limits may have changed.
func (c *Cluster) RefreshDetails(ctx context.Context, nodeID, id string) error {
	e, err := c.engineOf(nodeID)
	if err != nil {
		return err
	}
	return e.RefreshDetails(ctx, id)
}

// RefreshInfo returns once the snapshot shows what an engine says of itself now.
func (c *Cluster) RefreshInfo(ctx context.Context, nodeID string) error {
	e, err := c.engineOf(nodeID)
	if err != nil {
		return err
	}
	return e.RefreshInfo(ctx)
}

// Forget takes a container out of the picture that was just removed.
func (c *Cluster) Forget(nodeID, id string) {
	if e, err := c.engineOf(nodeID); err == nil {
		e.Forget(id)
	}
}

// Subscribe returns the remembered events, in the order they came, and a channel of those that follow without a gap. The
// channel is closed when ctx ends, the cluster stops, or the reader falls too far behind.
func (c *Cluster) Subscribe(ctx context.Context) (backlog []fleet.Event, live <-chan fleet.Event) {
	return c.hub.subscribe(ctx)
}

// EndEvents closes the channels of all readers, and of those to come.
func (c *Cluster) EndEvents() { c.hub.close() }

func stateChange(was, is fleet.State) string {
	switch {
	case was == is:
		return ""
	case is == fleet.Healthy && was == fleet.Pending:
		return "engine_connect"
	case is == fleet.Healthy:
		return "engine_reconnect"
	case was == fleet.Healthy:
		return "engine_disconnect"
	}
	return ""
}

// nodeEvent is an event of our own about a node, with classic Swarm's action names.
func nodeEvent(n *fleet.Node, action string) fleet.Event {
	return ownEvent(n, "daemon", action, n.EngineID, map[string]string{"name": n.Name, "error": n.Error}, time.Now())
}
