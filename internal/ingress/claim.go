package ingress

import (
	"strconv"
	"time"

	"berth/internal/fleet"
)

// hold keeps ports for a container that is being started, from before its engine is asked until the snapshot shows them.
type hold struct {
	id    string
	wants []want
	until time.Time // zero while it is being started
}

// Strict tells whether a port that cannot be had here is a reason not to start a container.
func (i *Ingress) Strict() bool { return i.o.Strict }

// Claim opens the ports of a container that is about to be started, so that they answer by the time the client hears that it runs. In
// a strict ingress it is an error if one cannot be had. done ends the claim: what was started keeps the ports that it publishes.
func (i *Ingress) Claim(n *fleet.Node, c *fleet.Container) (done func(started bool), err error) {
	w := nodeWants{reaches: i.o.Fleet.Reaches(n.ID)}
	if !i.here(n) {
		i.addWants(&w, n, c, c.Wanted)
	}
	if len(w.wants) == 0 {
		return func(bool) {}, nil
	}
	for k := range w.wants {
		w.wants[k].owner.held = true
	}
	h := &hold{id: c.ID, wants: w.wants}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ctx == nil {
		return func(bool) {}, nil
	}
	i.holds[h] = struct{}{}
	i.follow(i.o.Fleet.Snapshot(), time.Now())
	if lost := i.Hindered(c.ID); i.o.Strict && len(lost) > 0 {
		delete(i.holds, h)
		i.follow(i.o.Fleet.Snapshot(), time.Now())
		return nil, &fleet.PortTakenError{Hindrance: lost[0]}
	}
	return func(started bool) { i.release(h, started) }, nil
}

func (i *Ingress) release(h *hold, started bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if started {
		h.until = time.Now().Add(i.o.Timing.Hold)
		return
	}
	delete(i.holds, h)
	if i.ctx != nil {
		i.follow(i.o.Fleet.Snapshot(), time.Now())
	}
}

// expire lets go what the snapshot shows by now, or does not in its time.
func (i *Ingress) expire(s *fleet.Snapshot, now time.Time) {
	for h := range i.holds {
		if h.until.IsZero() {
			continue
		}
		c, err := s.Container(h.id)
		shown := err == nil && c.Container.Running() && len(c.Container.Published) > 0
		if shown || err != nil || now.After(h.until) {
			delete(i.holds, h)
		}
	}
}

// Conflicts says which of the ports that a container would have on a node cannot be had here now. A port of a container that is an
// heir's predecessor is no conflict.
func (i *Ingress) Conflicts(n *fleet.Node, ports []fleet.Port, predecessor func(id string) bool) []fleet.Hindrance {
	if i.here(n) {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []fleet.Hindrance
	for _, p := range ports {
		keys, ok := i.keys(p)
		if !ok || p.HostPort == 0 || p.Proto == "sctp" || i.ctx == nil {
			continue
		}
		r, _ := i.route(n, p, i.o.Fleet.Reaches(n.ID))
		w := want{key: keys[0], port: p, route: r, local: r.tunnel && isLoopback(n.IP)}
		if f := i.open[w.key]; f != nil {
			if o := f.owner(); !predecessor(o.id) {
				all = append(all, hindrance(w, "it leads to container "+o.name+" on node "+o.node))
			}
			continue
		}
		if err := probe(w.key); err != nil {
			if why := i.whyNot(w, err); why != "" {
				all = append(all, hindrance(w, why))
			}
		}
	}
	return all
}

// Free tells whether a port could be had here. It takes no lock: who asks may hold one that publishing a snapshot needs.
func (i *Ingress) Free(p fleet.Port) bool {
	keys, ok := i.keys(p)
	return !ok || p.Proto == "sctp" || probe(keys[0]) == nil
}

// Summary tells how many ports are open, and how many do not answer here.
func (i *Ingress) Summary() (open, hindered int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, all := range *i.hindered.Load() {
		hindered += len(all)
	}
	return len(i.open), hindered
}

// Notices say what docker info should warn of.
func (i *Ingress) Notices() []string {
	if _, n := i.Summary(); n > 0 {
		return []string{strconv.Itoa(n) + " published ports do not answer on this computer, but only on their nodes: docker port and the manager's log tell which"}
	}
	return nil
}
