// Package overlay forms Swarm mode over the fleet's engines, as the carrier of networks across hosts and of nothing else.
//
// A Keeper, in the primary alone, compares again and again what is with what ought to be, and goes the next steps: form the cluster,
// have nodes join it, keep one, three or five of them its managers, remove the nodes that the fleet has no more. All it knows it reads
// from the engines: which cluster is berth's is a label of the cluster, which node is whose a label of the node. So it does not
// matter which manager of berth began, or where it was killed.
//
// A cluster that somebody else formed is used as it is: nodes of the fleet join it, and nothing of it is taken down. Engines in
// another one are told of and not touched. It knows nothing of clients, nor of what runs in the networks, but that a node which
// must leave the cluster is connected again afterwards as it was.
package overlay

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"berth/internal/fleet"
)

// Fleet is what is asked of the cluster of engines.
type Fleet interface {
	Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error)
	Snapshot() *fleet.Snapshot
	// Looked is closed when every engine was tried once.
	Looked() <-chan struct{}
	// RefreshInfo returns once the snapshot shows what an engine says of itself now.
	RefreshInfo(ctx context.Context, nodeID string) error
	Refresh(ctx context.Context, nodeID string, kind fleet.Kind, id string) error
}

// Settings are how a cluster is formed. They are kept as labels of the cluster, so that all managers go by the same.
type Settings struct {
	Encrypted     bool   // new networks are
	MTU           int    // of the links between the hosts; 0 is what their engines have for bridges
	DataInterface string // an address or interface of the hosts for the networks' packets; "" is the node's address
	Pool          string // where the networks' subnets come from; "" is one that no host is in
}

// Options of a Keeper.
type Options struct {
	Fleet  Fleet
	APIMax string
	// On: it is to be formed. Otherwise it is kept if berth has formed it before.
	On bool
	Settings
	// Check says whether this manager may still act; it is asked before every step. nil for one that always may.
	Check func() error
	// Every is how often the fleet is looked at, Grace how long a lost manager or a node that left is waited for, and how long
	// nodes that do not answer keep the cluster from being formed without them.
	Every, Grace time.Duration
	// RetryMin and RetryMax are how long a node that could not join is left alone.
	RetryMin, RetryMax time.Duration
	Log                *slog.Logger
}

// DefaultOptions are the times for real fleets.
func DefaultOptions() Options {
	return Options{Every: 2 * time.Second, Grace: 30 * time.Second, RetryMin: 2 * time.Second, RetryMax: time.Minute}
}

// The labels of a cluster that berth formed, and of its nodes.
const (
	labelOurs      = "berth.overlay"
	labelEncrypted = "berth.overlay.encrypted"
	labelMTU       = "berth.overlay.mtu"
	labelData      = "berth.overlay.data"
	labelNode      = "berth.node"
	labelAddr      = "berth.addr"
)

// Keeper keeps the cluster. Make it with New; Run it in one manager of a fleet at a time.
type Keeper struct {
	o   Options
	eng caller

	slot chan struct{} // full while somebody changes the cluster
	wake chan struct{}
	memo memo // of who holds the slot

	mu      sync.Mutex
	running bool
	want    wish
	said    bool // the settings were asked for, and are not merely what was found
	set     Settings
	status  fleet.OverlayStatus
}

// wish is what the operator wants.
type wish int

const (
	asFound wish = iota // kept if it is there
	on
	off
)

// memo is what is remembered from round to round. All of it can be forgotten.
type memo struct {
	tries   map[string]*try      // by node ID
	since   map[string]time.Time // what is amiss → since when
	said    map[string]bool      // what was logged
	reasons map[string]string    // node ID → why it has not joined
	esp     map[string]string    // node ID → whether its kernel has ESP
	probed  map[string]time.Time // node ID → when that was looked at
}

type try struct {
	again time.Time
	wait  time.Duration
}

// New makes a Keeper. It starts nothing.
func New(o Options) *Keeper {
	k := &Keeper{
		o: o, eng: newCaller(o.Fleet, o.APIMax), slot: make(chan struct{}, 1), wake: make(chan struct{}, 1), set: o.Settings,
		memo: newMemo(), status: fleet.OverlayStatus{State: "off"},
	}
	k.said = o.On && o.Settings != (Settings{})
	if o.On {
		k.want, k.status = on, fleet.OverlayStatus{On: true, State: "waiting"}
	}
	return k
}

func newMemo() memo {
	return memo{tries: map[string]*try{}, since: map[string]time.Time{}, said: map[string]bool{}, reasons: map[string]string{}, esp: map[string]string{}, probed: map[string]time.Time{}}
}

// Run keeps the cluster until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	select {
	case <-k.o.Fleet.Looked():
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := k.enter(ctx); err != nil {
		return err
	}
	k.memo = newMemo() // of an earlier term
	k.leave()
	k.setRunning(true)
	defer k.setRunning(false)
	for {
		if err := k.enter(ctx); err != nil {
			return err
		}
		again := k.round(ctx)
		k.leave()
		wait := k.o.Every
		if again {
			wait /= 8
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.wake:
		case <-time.After(wait):
		}
	}
}

func (k *Keeper) setRunning(is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = is
}

// enter waits until nobody else changes the cluster.
func (k *Keeper) enter(ctx context.Context) error {
	select {
	case k.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keeper) leave() { <-k.slot }

func (k *Keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// check is asked before every step.
func (k *Keeper) check(ctx context.Context) error {
	if k.o.Check != nil {
		if err := k.o.Check(); err != nil {
			return err
		}
	}
	return ctx.Err()
}
