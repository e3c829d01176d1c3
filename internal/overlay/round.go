package overlay

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/fleet"
)

// round looks once and goes the next steps. It tells whether there may be more to do at once. The caller holds the slot.
func (k *Keeper) round(ctx context.Context) (again bool) {
	want := k.wish()
	if want == off || want == asFound && !k.found() {
		k.publish(fleet.OverlayStatus{State: "off"})
		return false
	}
	p := k.look(ctx, time.Now())
	t := &timers{now: p.now, since: k.memo.since, seen: map[string]bool{}}
	steps, waits := plan(p, k.o.Grace, t)
	t.end()
	c := p.cluster
	kept := want == on || c != nil && c.ours
	if !kept {
		steps = nil // somebody else's, or nobody says whose
		if c == nil && len(p.headless) == 0 {
			waits = nil
		}
	}
	if c != nil && c.ours {
		again = k.settle(ctx, c)
	}
	if c != nil && c.quorum() && kept {
		k.probe(ctx, p)
	}
	k.say(waits)
	k.publish(k.describe(p, waits, kept, len(steps) > 0))
	if !k.do(ctx, p, steps) {
		return again
	}
	return true
}

// found tells whether the fleet is in a swarm of any kind.
func (k *Keeper) found() bool {
	return slices.ContainsFunc(k.o.Fleet.Snapshot().Nodes(), func(n *fleet.Node) bool {
		return n.State == fleet.Healthy && (n.Swarm.Active() || n.Swarm.State == "pending")
	})
}

func (k *Keeper) wish() wish {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.want
}

// settle brings the cluster's labels and our settings together: what was asked for of this manager is written, else what is
// written holds.
func (k *Keeper) settle(ctx context.Context, c *cluster) (changed bool) {
	k.mu.Lock()
	if !k.said {
		k.set = k.set.read(c.labels)
	}
	set := k.set
	k.mu.Unlock()
	if set.same(c.labels) {
		return false
	}
	if !c.quorum() || k.check(ctx) != nil {
		return false
	}
	if err := k.write(ctx, c, set); err != nil {
		k.o.Log.Warn("overlay networks: the settings could not be kept", "error", err)
		return false
	}
	return true
}

// say logs what is waited for, once.
func (k *Keeper) say(waits []string) {
	now := map[string]bool{}
	for _, w := range waits {
		now[w] = true
		if !k.memo.said[w] {
			k.o.Log.Warn(w)
		}
	}
	if len(k.memo.said) > 0 && len(now) == 0 {
		k.o.Log.Info("overlay networks: what was waited for is over")
	}
	k.memo.said = now
}

func (k *Keeper) publish(s fleet.OverlayStatus) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status = s
}

// Status is how the networks are, as the last round saw them.
func (k *Keeper) Status() fleet.OverlayStatus {
	k.mu.Lock()
	s := k.status
	if k.o.Check != nil && !k.running {
		s = fleet.OverlayStatus{On: s.On, State: "kept by the primary"}
		k.mu.Unlock()
		return s
	}
	if s.State == "off" {
		k.mu.Unlock()
		return s
	}
	s.Encrypted, s.MTU = k.set.Encrypted, k.mtu()
	k.mu.Unlock()
	s.Networks = networks(k.o.Fleet.Snapshot())
	return s
}

// Problems are what docker info warns of.
func (k *Keeper) Problems() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.o.Check != nil && !k.running {
		return nil // of an earlier term
	}
	return slices.Clone(k.status.Problems)
}

// networks are those that reach over hosts, with who is in them.
func networks(snap *fleet.Snapshot) []fleet.OverlayNetwork {
	byID := map[string]*fleet.OverlayNetwork{}
	for _, n := range snap.Nodes() {
		for _, w := range n.Networks {
			if w.Spans() && byID[w.ID] == nil {
				byID[w.ID] = &fleet.OverlayNetwork{ID: w.ID, Name: w.Name}
			}
		}
	}
	for _, n := range snap.Nodes() {
		for _, c := range n.Containers {
			for _, a := range c.Networks {
				if w := byID[a.NetworkID]; w != nil && c.Running() {
					w.Containers = append(w.Containers, n.Name+"/"+c.Name)
				}
			}
		}
	}
	all := []fleet.OverlayNetwork{}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		all = append(all, *byID[id])
	}
	return all
}

// describe says how things are.
func (k *Keeper) describe(p *picture, waits []string, kept, busy bool) fleet.OverlayStatus {
	s := fleet.OverlayStatus{On: kept, State: "waiting", Problems: slices.Clone(waits)}
	if len(p.headless) > 0 {
		s.State = "no quorum"
	}
	c := p.cluster
	if c != nil {
		s.Swarm, s.Ours = c.id, c.ours
		s.Reachable, s.Managers = c.reachable()
		switch {
		case c.quorum():
			s.State = "ready"
		case c.speaker != nil || c.refused:
			s.State = "no quorum"
		}
	}
	for _, n := range p.nodes {
		if k.memo.esp[n.ID] == "no" && kept {
			s.Problems = append(s.Problems, noESP(n))
		}
		on := describeNode(c, n, k.memo.reasons[n.ID])
		if on.Role != "" {
			s.Members++
		}
		if kept && on.Reason != "" && n.NoOverlay == "" && n.State == fleet.Healthy && s.State != "no quorum" {
			s.Problems = append(s.Problems, fmt.Sprintf("overlay networks: node %s takes no part: %s", n.Name, on.Reason))
		}
		s.Nodes = append(s.Nodes, on)
	}
	if s.State == "ready" {
		unready := slices.ContainsFunc(s.Nodes, func(n fleet.OverlayNode) bool { return n.Role == "" && n.Reason == "" }) ||
			slices.ContainsFunc(c.members, func(m swarm.Node) bool {
				n := p.nodeOf(m)
				return m.Spec.Role == swarm.NodeRoleManager && m.ManagerStatus == nil && n != nil && n.State == fleet.Healthy
			})
		switch {
		case s.Reachable < s.Managers:
			s.State = "degraded"
			s.Problems = append(s.Problems, fmt.Sprintf("overlay networks: %d of %d managers of the swarm do not answer; it lives as long as %d do",
				s.Managers-s.Reachable, s.Managers, s.Managers/2+1))
		case unready || busy:
			s.State = "forming"
		}
	}
	if !kept && s.State != "no quorum" {
		s.State = "off"
	}
	return s
}

// describeNode says how a node takes part. Without a role and a reason it is about to.
func describeNode(c *cluster, n *fleet.Node, failed string) fleet.OverlayNode {
	o := fleet.OverlayNode{Name: n.Name, Addr: n.Swarm.Addr, State: n.Swarm.State}
	switch {
	case n.NoOverlay != "":
		o.Reason = n.NoOverlay
	case n.State != fleet.Healthy:
		o.State, o.Reason = "down", "the node does not answer"
	case n.Swarm.State == "locked":
		o.Reason = "its swarm is locked: docker swarm unlock"
	case failed != "":
		o.Reason = failed
	case c != nil && n.Swarm.Active() && !c.knows(n):
		o.Reason = "it is in another swarm"
	}
	if c == nil {
		return o
	}
	if m, known := c.member(n); known && n.NoOverlay == "" {
		o.Role = string(m.Spec.Role)
		if m.ManagerStatus != nil && m.ManagerStatus.Leader {
			o.Role = "leader"
		}
		if n.State == fleet.Healthy && m.Status.State != swarm.NodeStateReady {
			o.State = string(m.Status.State)
		}
	}
	return o
}
