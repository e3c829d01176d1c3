package cluster

import (
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"sync"

	"github.com/docker/docker/pkg/namesgenerator"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// seats are what creates in flight hold: names, and the places that the scheduler gave them.
type seats struct {
	mu    *sync.Mutex // around every placement; never held across a call to an engine
	state *seatState
}

type seatState struct {
	next  uint64
	taken map[uint64]schedule.Pending
	names map[string]uint64 // a container name → the reservation that holds it
	// nextPort is where to look first for a host port that is unique over the fleet.
	nextPort uint16
	// abandoned are creates whose engine did not answer: by Swarm ID, where they may yet come to life. Guarded by hidden.
	hidden    sync.Mutex
	abandoned map[string]string
	order     []string        // the same, oldest first
	cleaning  map[string]bool // removals under way or done
}

func newSeats() seats {
	return seats{&sync.Mutex{}, &seatState{taken: map[uint64]schedule.Pending{}, names: map[string]uint64{}, abandoned: map[string]string{}, cleaning: map[string]bool{}}}
}

// ConflictError says that a container name is in use. Its text is the engine's, which clients match.
type ConflictError struct{ Name, ID string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+e.Name, e.ID)
}

// Conflict makes it errdefs.ErrConflict.
func (e *ConflictError) Conflict() {}

// claim takes a name, or says who has it. The caller holds mu.
func (s *seatState) claim(snap *fleet.Snapshot, id uint64, name, except string) error {
	if name == "" {
		return nil
	}
	for _, r := range snap.Named(name) {
		if r.Container.ID != except {
			return &ConflictError{name, r.Container.ID}
		}
	}
	if holder, ok := s.names[name]; ok && holder != id {
		return &ConflictError{name, "(being created)"}
	}
	s.names[name] = id
	return nil
}

// invent takes a name that nobody in the fleet has. The caller holds mu.
func (s *seatState) invent(snap *fleet.Snapshot, id uint64) string {
	for try := 0; ; try++ {
		name := namesgenerator.GetRandomName(0)
		if try > 0 {
			name += strconv.Itoa(mathrand.IntN(10 * try)) // the engines' way, with more room
		}
		if s.claim(snap, id, name, "") == nil {
			return name
		}
	}
}

// heldPorts are the host ports of a create, with those that were found for it.
func (c *Cluster) heldPorts(seat uint64) []fleet.Port {
	c.seats.mu.Lock()
	defer c.seats.mu.Unlock()
	return c.seats.state.taken[seat].Request.Ports
}

// release gives up a reservation and its name.
func (s *seats) release(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.state.taken, id)
	maps.DeleteFunc(s.state.names, func(_ string, holder uint64) bool { return holder == id })
}

// pending lists the places held, but not the one of reservation id. The caller holds mu.
func (s *seatState) pending(id uint64) []schedule.Pending {
	out := make([]schedule.Pending, 0, len(s.taken))
	for k, p := range s.taken {
		if k != id {
			out = append(out, p)
		}
	}
	return out
}

// Reserve holds a container name for a rename of the container with the ID until release is called.
func (c *Cluster) Reserve(name, id string) (release func(), err error) {
	c.seats.mu.Lock()
	defer c.seats.mu.Unlock()
	s := c.seats.state
	s.next++
	seat := s.next
	if err := s.claim(c.Snapshot(), seat, name, id); err != nil {
		return nil, err
	}
	return func() { c.seats.release(seat) }, nil
}

// maxAbandoned bounds how many are remembered. Those that were removed are remembered too: an engine may still show them.
const maxAbandoned = 4096

// abandon notes a create that may yet happen on a node although the client was given another container, or an error.
func (s *seats) abandon(swarmID, nodeID string) {
	s.state.hidden.Lock()
	defer s.state.hidden.Unlock()
	s.state.abandoned[swarmID] = nodeID
	s.state.order = append(s.state.order, swarmID)
	if len(s.state.order) > maxAbandoned {
		delete(s.state.abandoned, s.state.order[0])
		s.state.order = s.state.order[1:]
	}
}

// hide takes abandoned containers out of the picture.
func (s *seats) hide(n *fleet.Node) *fleet.Node {
	s.state.hidden.Lock()
	defer s.state.hidden.Unlock()
	if len(s.state.abandoned) == 0 {
		return n
	}
	abandoned := func(c *fleet.Container) bool {
		at, ok := s.state.abandoned[c.Labels.Get(fleet.LabelSwarmID)]
		return ok && at == n.ID
	}
	if !slices.ContainsFunc(n.Containers, abandoned) {
		return n
	}
	clean := *n
	clean.Containers = slices.DeleteFunc(slices.Clone(n.Containers), abandoned)
	return clean.Seal()
}

// found lists the abandoned containers that came to life on a node and that nobody is removing yet.
func (s *seats) found(n *fleet.Node) map[string]string {
	s.state.hidden.Lock()
	defer s.state.hidden.Unlock()
	if len(s.state.abandoned) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, c := range n.Containers {
		id := c.Labels.Get(fleet.LabelSwarmID)
		if at, ok := s.state.abandoned[id]; ok && at == n.ID && !s.state.cleaning[id] {
			s.state.cleaning[id] = true
			out[id] = c.ID
		}
	}
	return out
}

// retry ends a removal that found began and that failed, so that the next state of the node begins another.
func (s *seats) retry(swarmID string) {
	s.state.hidden.Lock()
	defer s.state.hidden.Unlock()
	delete(s.state.cleaning, swarmID)
}

func (s *seats) isAbandoned(swarmID, nodeID string) bool {
	s.state.hidden.Lock()
	defer s.state.hidden.Unlock()
	at, ok := s.state.abandoned[swarmID]
	return ok && at == nodeID
}

// Hold places a container that exists already, as on another node, and holds the place until release is called. Its name is
// not claimed.
func (c *Cluster) Hold(r *schedule.Request) (n *fleet.Node, release func(), err error) {
	c.seats.mu.Lock()
	c.seats.state.next++
	seat := c.seats.state.next
	c.seats.mu.Unlock()
	if n, err = c.take(seat, r); err != nil {
		return nil, nil, err
	}
	return n, func() { c.seats.release(seat) }, nil
}
