// Package schedule chooses the node a container runs on.
//
// Place reads a picture of the fleet, a request and a policy and returns a node, or a NoFit that counts why each node was
// refused. It has no state, no clock and no randomness but the request's seed: equal inputs give the same node on every
// manager. It knows nothing of engines, HTTP or JSON bodies; what it needs of them is in the Request.
//
// The filters and strategies carry classic Swarm's names and grammar. Where that was plainly wrong this is right:
// docs/swarm-differences.md lists the places.
package schedule

import "berth/internal/fleet"

// Request is what a container that has no node yet asks for. It is not changed once it was handed over.
type Request struct {
	Name, Image string
	Labels      map[string]string

	Memory, NanoCPUs int64 // 0: no limit asked for

	Ports       []fleet.Port // published; those with HostPort 0 never conflict
	HostNetwork bool         // the container uses the node's network: Exposed counts, Ports do not
	Exposed     []fleet.Port

	// Names or IDs of containers that must be on the same node.
	VolumesFrom, Links []string // as --volumes-from and --link say it; what follows a ":" is not looked at
	Shares             []string // whose network, IPC or PID namespace is joined

	Rules Rules
	Ties  []Tie

	Prefer  []string          // IDs of the nodes to take where the strategy sees no difference, in order; random ignores it
	Exclude map[string]string // node ID → why it is out of the question

	OS, Arch string // "" is any
	// NeedAPI is the oldest API version that the node must speak, NeedWhat what needs it.
	NeedAPI, NeedWhat string

	// Overlays are the names of the networks it uses that reach over hosts, Swarm the ID of the Swarm-mode cluster that carries them; ""
	// if nobody says which.
	Overlays []string
	Swarm    string

	Seed uint64 // decides between equals, and what random takes; with 0 the name does
}

// Tie is something the container uses that is on certain nodes only.
type Tie struct {
	What    string // "network web_default"
	NodeIDs []string
}

// Pending is a create in flight: placed, and not yet to be seen in the snapshot.
type Pending struct {
	NodeID  string
	Request *Request
}

// View is what a placement sees of the fleet.
type View struct {
	Snapshot *fleet.Snapshot
	Pending  []Pending
}

// candidate is a node that is looked at.
type candidate struct {
	node  *fleet.Node
	facts *fleet.Facts
	brief *fleet.Brief // which measure and promise need, and nothing else
	load  *load
	// The percentages of its memory and CPUs that would be given away; see resources.
	memory, cpus float64
}

// load is what the creates in flight add to a node.
type load struct {
	reservation
	creates int32
	last    *link
}

// link is a create in flight, and the one before it on the same node.
type link struct {
	request *Request
	before  *link
}

type reservation struct{ memory, nanoCPUs int64 }

func (l *load) reserved() reservation {
	if l == nil {
		return reservation{}
	}
	return l.reservation
}

// count is how many there are; no load is nil.
func (l *load) count() int32 {
	if l == nil {
		return 0
	}
	return l.creates
}

func (l *load) any(test func(*Request) bool) bool {
	if l == nil {
		return false
	}
	for c := l.last; c != nil; c = c.before {
		if test(c.request) {
			return true
		}
	}
	return false
}

// loads are what the creates in flight add, by node.
type loads struct {
	of  []int32 // by place in the fleet: where in all, counted from 1; 0 is no load
	all []load
}

// newLoads adds the creates in flight up. One whose node has left the fleet counts nowhere.
func newLoads(v View) *loads {
	if len(v.Pending) == 0 {
		return nil
	}
	ls := &loads{of: make([]int32, v.Snapshot.Len()), all: make([]load, 0, len(v.Pending))}
	links := make([]link, len(v.Pending))
	for i, p := range v.Pending {
		at, ok := v.Snapshot.Position(p.NodeID, 0)
		if !ok {
			continue
		}
		if ls.of[at] == 0 {
			ls.all = append(ls.all, load{})
			ls.of[at] = int32(len(ls.all)) //nolint:gosec // no more than nodes
		}
		l := &ls.all[ls.of[at]-1]
		l.memory += max(p.Request.Memory, 0)
		l.nanoCPUs += max(p.Request.NanoCPUs, 0)
		links[i] = link{p.Request, l.last}
		l.creates, l.last = l.creates+1, &links[i]
	}
	return ls
}

// at is the load of the node at that place in the fleet.
func (ls *loads) at(i int) *load {
	if ls == nil || ls.of[i] == 0 {
		return nil
	}
	return &ls.all[ls.of[i]-1]
}
