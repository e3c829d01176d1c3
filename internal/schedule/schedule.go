// Package schedule chooses the node a container runs on.
//
// Place reads a picture of the fleet, a request and a policy and returns a node, or a NoFit that counts why each node was
// refused. It has no state, no clock and no randomness but the request's seed: equal inputs give the same node on every
// manager. It knows nothing of engines, HTTP or JSON bodies; what it needs of them is in the Request.
//
// The filters and strategies carry classic Swarm's names and grammar. Where that was plainly wrong this is right:
// docs/swarm-differences.md lists the places.
package schedule

import (
	"slices"

	"berth/internal/fleet"
)

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
	// Place is where its node is in the snapshot's list, if known: a guess, since the list may have changed.
	Place int
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
	place int // of the node in the fleet
	reservation
	creates int32
	last    *link
}

// link is a create in flight, and the one before it on the same node.
type link struct {
	request *Request
	place   int
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

// loads are what the creates in flight add, by the place of their nodes in the fleet: few of many nodes have one.
type loads []load

// newLoads adds the creates in flight up. One whose node has left the fleet counts nowhere.
func newLoads(v View) loads {
	if len(v.Pending) == 0 {
		return nil
	}
	links := make([]link, 0, len(v.Pending))
	for _, p := range v.Pending {
		if at, ok := v.Snapshot.Position(p.NodeID, p.Place); ok {
			links = append(links, link{request: p.Request, place: at})
		}
	}
	slices.SortStableFunc(links, func(a, b link) int { return a.place - b.place })
	ls := make(loads, 0, len(links))
	for i := range links {
		k := &links[i]
		if last := len(ls) - 1; last < 0 || ls[last].place != k.place {
			ls = append(ls, load{place: k.place})
		}
		l := &ls[len(ls)-1]
		l.memory += max(k.request.Memory, 0)
		l.nanoCPUs += max(k.request.NanoCPUs, 0)
		k.before = l.last
		l.creates, l.last = l.creates+1, k
	}
	return ls
}

// at is the load of the node at that place in the fleet.
func (ls loads) at(place int) *load {
	i, ok := slices.BinarySearchFunc(ls, place, func(l load, place int) int { return l.place - place })
	if !ok {
		return nil
	}
	return &ls[i]
}

// next takes the load of the node at that place off those that are still to come, for one who asks for all nodes in their order.
func (ls *loads) next(place int) *load {
	if len(*ls) == 0 || (*ls)[0].place != place {
		return nil
	}
	l := &(*ls)[0]
	*ls = (*ls)[1:]
	return l
}
