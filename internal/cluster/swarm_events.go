package cluster

import (
	"sync"
	"time"

	"berth/internal/fleet"
)

// swarmEvents passes on what clients are to see of the events of a Swarm-mode cluster beneath: each of its managers tells all that
// happens in it, and every node that it gets to know a network or forgets it.
type swarmEvents struct {
	mu   sync.Mutex
	told map[[2]string]time.Time // action and network → when
}

// toldFor is how long managers may take to tell the same.
const toldFor = time.Minute

// pass tells whether an event is to be seen. Of the cluster itself only its networks are, and each change of these once.
func (s *swarmEvents) pass(ev fleet.Event) bool {
	network := ev.Type == string(fleet.KindNetwork)
	switch {
	case ev.Scope != "swarm":
		return !network || ev.Action == "connect" || ev.Action == "disconnect" || !fleet.IsSwarmNetworkID(ev.ActorID)
	case !network:
		return false
	}
	key, at := [2]string{ev.Action, ev.ActorID}, time.Unix(0, ev.TimeNano)
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, known := s.told[key]; known && at.Sub(last).Abs() < toldFor {
		return false
	}
	if s.told == nil {
		s.told = map[[2]string]time.Time{}
	}
	for k, last := range s.told {
		if at.Sub(last) >= toldFor {
			delete(s.told, k)
		}
	}
	s.told[key] = at
	return true
}
