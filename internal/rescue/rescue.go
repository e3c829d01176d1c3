// Package rescue starts the containers of a lost node elsewhere, those whose policy asks for it.
//
// A Keeper, in every manager, remembers what each such container is like, on disk, since a node that is lost cannot be asked. A
// Rescuer, in the primary alone, compares again and again what is with what ought to be, and goes the next step: make a
// container like the lost one, hidden, under a label that names it; give it the lost one's name, from when on it is the one that is
// shown; start it. What a crash leaves after any step, the next round goes on from. When the node is back, what was
// lost is stopped and renamed. Nothing of it is ever removed: it may have the only copy of its data.
//
// It decides neither which node is unhealthy nor where a container fits; and a node that leaves while it is healthy is not lost.
package rescue

import (
	"context"
	"net/http"
	"time"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// Fleet is what is asked of the cluster.
type Fleet interface {
	Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error)
	Snapshot() *fleet.Snapshot
	// Looked is closed when every engine was tried once.
	Looked() <-chan struct{}
	// Whole returns the nodes with what the snapshot hides.
	Whole() []*fleet.Node
	Refresh(ctx context.Context, nodeID string, kind fleet.Kind, id string) error
	Forget(nodeID, id string)
	// Hold places a request and holds the place until release is called.
	Hold(r *schedule.Request) (n *fleet.Node, release func(), err error)
	// Reserve holds a name, which the container with the ID may have, until release is called.
	Reserve(name, id string) (release func(), err error)
	// Tell tells an event about a container of a node.
	Tell(n *fleet.Node, action, container string, attributes map[string]string)
}

// Knowledge is what only the API knows.
type Knowledge interface {
	// Requirements says what a container asks of a node, from the body of its create; the volumes in along go with it.
	Requirements(ctx context.Context, name string, body []byte, along []string) (*schedule.Request, error)
	// Provide gives a node the image and returns the reference by which it is known there.
	Provide(ctx context.Context, to *fleet.Node, ref, id string) (string, error)
}

// Networks keeps the networks across hosts.
type Networks interface {
	// Release takes from a lost node what it holds of them, addresses above all.
	Release(ctx context.Context, nodeID, addr string) error
}

// The events that tell of it, of type container.
const (
	EventDone    = "reschedule"
	EventWaiting = "reschedule_wait"
	EventAside   = "reschedule_stale"
)

const (
	callLimit  = 30 * time.Second // one call that an engine answers at once
	startLimit = 3 * time.Minute  // a start or a stop, beside what the container may take to stop
	undoLimit  = time.Minute
	imageLimit = 15 * time.Minute
)
