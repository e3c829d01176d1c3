// Package move takes containers from one node to another.
//
// A move is a recipe of steps that a crash may end after any of them. What has been done is written on the engines alone: the
// new container is made with a label that names the old one, under a name that keeps it hidden, and gets the old one's name
// when it takes its place. So whoever looks at the engines later knows how to go on: before that moment back, after it
// forward. Never do both run, and never are both shown; the cluster hides the one whose turn it is not.
//
// Recreate, the part that makes the same container elsewhere, stands alone for who has lost the node of the old one. The
// package knows nothing of clients; what an image is and what a container asks of a node it is told through its own
// interfaces.
package move

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
	"berth/internal/schedule"
)

// Fleet is what a move asks of the cluster.
type Fleet interface {
	enginecall.Engines
	Snapshot() *fleet.Snapshot
	// Whole returns the nodes with what the snapshot hides.
	Whole() []*fleet.Node
	// Settle returns when the snapshot shows all changes that were made or told of before, or soon cannot be had.
	Settle(ctx context.Context, kinds ...fleet.Kind)
	Refresh(ctx context.Context, nodeID string, kind fleet.Kind, id string) error
	Forget(nodeID, id string)
	// Hold places a request and holds the place until release is called.
	Hold(r *schedule.Request) (n *fleet.Node, release func(), err error)
	// View and Policy are what the scheduler sees and how it decides.
	View() schedule.View
	Policy() schedule.Policy
	// Tell tells an event about a container of a node.
	Tell(n *fleet.Node, action, container string, attributes map[string]string)
}

// Knowledge is what only the API knows.
type Knowledge interface {
	// Requirements says what a container asks of a node, from the body of its create; the volumes in along go with it.
	Requirements(ctx context.Context, name string, body []byte, along []string) (*schedule.Request, error)
	// Carry gives a node the image and returns the reference by which it is known there.
	Carry(ctx context.Context, from, to *fleet.Node, ref, id string) (string, error)
}

// Event tells of a container that has moved; it is of type container.
const Event = "move"

// Options of a Mover.
type Options struct {
	Fleet     Fleet
	Knowledge Knowledge
	Owner     string // whose moves these are: those of others are not touched
	APIMax    string
	// Parallel is how many containers move at a time.
	Parallel int
	// Every is how often the nodes are looked at, RetryMin and RetryMax how long a container that could not move is left alone.
	Every, RetryMin, RetryMax time.Duration
	Log                       *slog.Logger
}

// DefaultOptions are the times and numbers for real fleets.
func DefaultOptions() Options {
	return Options{Parallel: 4, Every: 500 * time.Millisecond, RetryMin: 5 * time.Second, RetryMax: time.Minute}
}

// Mover moves containers. Make it with New; Run empties the nodes that are to be drained, and finishes what a crash left.
type Mover struct {
	o   Options
	eng caller

	mu     sync.Mutex
	busy   map[string]string // IDs of the containers that move, or are made to → their names
	drains map[string]*drain // by node ID
	active bool              // Run runs

	wake chan struct{}
	work sync.WaitGroup
}

// New makes a Mover. It starts nothing.
func New(o Options) *Mover {
	return &Mover{
		o: o, eng: newCaller(o.Fleet, o.APIMax), busy: map[string]string{}, drains: map[string]*drain{}, wake: make(chan struct{}, 1),
	}
}

// Wish is what is asked of one move.
type Wish struct {
	Volumes bool   // local volumes go along
	To      string // ID of the node to go to; "" lets the scheduler choose
	Reason  string // for the event
}

// FixedError says why a container cannot move.
type FixedError struct{ Reasons []string }

func (e *FixedError) Error() string { return strings.Join(e.Reasons, "; ") }

// BusyError says that the container is moving already.
type BusyError struct{ Name string }

func (e *BusyError) Error() string { return "container " + e.Name + " is moving already" }

// Move takes a container to another node, and returns that node. When it returns an error the container is where it was, as it
// was, or Run will see to it.
func (m *Mover) Move(ctx context.Context, from *fleet.Node, id string, w Wish) (*fleet.Node, error) {
	c, err := m.eng.inspect(ctx, from, id)
	if err != nil {
		return nil, err
	}
	leave, err := m.enter(c)
	if err != nil {
		return nil, err
	}
	defer leave()
	j, err := m.plan(ctx, from, c, w)
	if err != nil {
		return nil, err
	}
	defer j.release()
	began := time.Now()
	if err := j.run(ctx); err != nil {
		return nil, fmt.Errorf("move %s from %s to %s: %w", c.Name, from.Name, j.to.Name, err)
	}
	m.o.Log.Info("container moved", "container", c.Name, "from", from.Name, "to", j.to.Name, "took", time.Since(began))
	m.o.Fleet.Tell(j.to, Event, j.id, map[string]string{
		"name": c.Name, "image": c.Config.Image, "from": from.Name, "to": j.to.Name, "from.id": c.ID, "reason": w.Reason,
	})
	return j.to, nil
}

// enter notes that a container moves.
func (m *Mover) enter(c *container) (leave func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, moving := m.busy[c.ID]; moving {
		return nil, &BusyError{c.Name}
	}
	m.busy[c.ID] = c.Name
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.busy, c.ID)
	}, nil
}

// plan finds out whether the container can move, and where to.
func (m *Mover) plan(ctx context.Context, from *fleet.Node, c *container, w Wish) (*journey, error) {
	m.o.Fleet.Settle(ctx, fleet.KindContainer, fleet.KindVolume)
	r, volumes, err := m.requirements(ctx, from, c, w.Volumes)
	if err != nil {
		return nil, err
	}
	r.Exclude = map[string]string{}
	for _, n := range m.o.Fleet.Snapshot().Nodes() {
		for _, v := range volumes {
			if v.named() && v.on(n, from) {
				r.Exclude[n.ID] = "has a volume " + v.Name + " of its own"
			}
		}
		if w.To != "" && n.ID != w.To {
			r.Exclude[n.ID] = "another was chosen"
		}
	}
	if now, ok := m.o.Fleet.Snapshot().Node(from.ID); ok && now.Takes() {
		r.Exclude[from.ID] = "it is there now"
	} else {
		delete(r.Exclude, from.ID) // that it is drained says more
	}
	to, release, err := m.o.Fleet.Hold(r)
	if err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n")
		return nil, &FixedError{[]string{why}}
	}
	return &journey{m: m, from: from, to: to, c: c, volumes: volumes, release: release, start: c.runs()}, nil
}

// requirements is what a container asks of a node, and the volumes that go along. A FixedError says why it cannot move at all.
func (m *Mover) requirements(ctx context.Context, from *fleet.Node, c *container, withVolumes bool) (*schedule.Request, []volume, error) {
	now, ok := m.o.Fleet.Snapshot().Node(from.ID)
	if !ok {
		return nil, nil, fmt.Errorf("node %s has left the fleet", from.Name)
	}
	if err := m.eng.links(ctx, now, c); err != nil {
		return nil, nil, err
	}
	volumes, err := m.volumes(ctx, now, c)
	if err != nil {
		return nil, nil, err
	}
	if why := reasons(now, c, volumes, withVolumes); len(why) > 0 {
		return nil, nil, &FixedError{why}
	}
	body, err := c.body(Recreation{})
	if err != nil {
		return nil, nil, err
	}
	var along []string
	for _, v := range volumes {
		along = append(along, v.Name)
	}
	r, err := m.o.Knowledge.Requirements(ctx, c.Name, body, along)
	if err != nil {
		return nil, nil, &FixedError{[]string{err.Error()}}
	}
	return r, volumes, nil
}
