package cluster

import (
	"context"
	"errors"
	"fmt"

	"berth/internal/engine"
	"berth/internal/fleet"
)

// Intents are what the operator wants of nodes, and outlive the manager.
type Intents interface {
	// All returns them by node object ID. The map must not be changed.
	All() map[string]fleet.Intent
	// Put changes one, if its version still is the one given; what it returns will be there after a restart.
	Put(ctx context.Context, id string, version uint64, edit func(fleet.Intent) fleet.Intent) (fleet.Intent, error)
}

// intentOf is what is wanted of a node. Cloned machines share an engine ID: what is said of one of them by its address comes
// first, and what was said before there were several holds for all.
func (c *Cluster) intentOf(n *fleet.Node) fleet.Intent {
	if c.o.Intents == nil {
		return fleet.Intent{}
	}
	all := c.o.Intents.All()
	if len(all) == 0 {
		return fleet.Intent{}
	}
	if i, ok := all[fleet.ObjectID(n.ID)]; ok {
		return i
	}
	if i, ok := all[n.ObjectID()]; ok || n.EngineID != "" {
		return i
	}
	for _, i := range all { // not reached yet: by where it was
		if i.Addr == n.Addr {
			return i
		}
	}
	return fleet.Intent{}
}

func (c *Cluster) intend(n *fleet.Node) *fleet.Node { return n.Intended(c.intentOf(n)) }

// SetIntent changes what is wanted of the node with the object ID, if version is still the one there. The snapshot shows it
// when it returns.
func (c *Cluster) SetIntent(ctx context.Context, id string, version uint64, edit func(fleet.Intent) fleet.Intent) error {
	if c.o.Intents == nil {
		return errors.New("this manager keeps no intents")
	}
	if _, said := c.o.Intents.All()[id]; !said {
		version = 0 // what held so far was said of all that share the engine ID
	}
	if _, err := c.o.Intents.Put(ctx, id, version, edit); err != nil {
		return err
	}
	c.IntentsChanged()
	return nil
}

// IntentsChanged applies what the intents now say.
func (c *Cluster) IntentsChanged() {
	c.mu.Lock()
	run := c.run
	c.mu.Unlock()
	if run == nil || run.Err() != nil {
		return
	}
	c.adjust(run)
	for _, n := range c.Snapshot().Nodes() {
		e, err := c.engineOf(n.ID)
		if i := c.intentOf(n); err == nil && (i.Version != n.IntentVersion || i.Availability != n.Availability) {
			e.Republish()
		}
	}
}

// leaveOut takes away the endpoints that the operator has removed. A removal ends when the sources stop naming the node: one
// that is named again after that is a new one. Of what our sources never named we know nothing: another manager with the same
// file may have others. The caller holds adjusting.
func (c *Cluster) leaveOut(ctx context.Context, want map[string]engine.Endpoint, all bool) {
	if c.o.Intents == nil {
		return
	}
	for id, i := range c.o.Intents.All() {
		if !i.Removed {
			continue
		}
		if _, named := want[i.Addr]; named {
			delete(want, i.Addr)
			if !c.leftOut[i.Addr] {
				c.o.Log.Info("a node is left out since it was removed; docker node update --availability active brings it back", "node", i.Name, "addr", i.Addr)
			}
			c.leftOut[i.Addr] = true
			continue
		}
		if !all || !c.leftOut[i.Addr] {
			continue
		}
		_, err := c.o.Intents.Put(ctx, id, i.Version, func(fleet.Intent) fleet.Intent { return fleet.Intent{} })
		if err != nil && c.o.Intents.All()[id].Removed { // else another manager was faster
			c.o.Log.Warn("the removal of a node that is gone could not be forgotten", "node", i.Name, "error", err)
			continue // the next change of members tries again
		}
		delete(c.leftOut, i.Addr)
	}
}

// Removed are the nodes that the operator has removed and that a source still names.
func (c *Cluster) Removed() map[string]fleet.Intent {
	removed := map[string]fleet.Intent{}
	if c.o.Intents == nil {
		return removed
	}
	for id, i := range c.o.Intents.All() {
		if i.Removed {
			removed[id] = i
		}
	}
	return removed
}

// whyLeft is the reason for which a member leaves.
func (c *Cluster) whyLeft(m *member) string {
	if c.o.Intents != nil {
		for _, i := range c.o.Intents.All() {
			if i.Removed && i.Addr == m.engine.Endpoint().Addr {
				return "it was removed"
			}
		}
	}
	return "its source does not name it any more"
}

// tellChanges tells of what has become of a node, in the words of node events.
func (c *Cluster) tellChanges(was, is *fleet.Node) {
	switch {
	case is.State == fleet.Healthy && was.State == fleet.Pending:
		c.hub.publish(memberEvent(is, "join", "it was reached", nil))
	case is.State == fleet.Healthy && was.State != fleet.Healthy:
		c.hub.publish(memberEvent(is, "ready", "it answers again", nil))
	case is.State == fleet.Unhealthy && was.State == fleet.Healthy:
		c.hub.publish(memberEvent(is, "unhealthy", is.Error, nil))
	}
	old, now := available(was), available(is)
	if old == now || was.ID != is.ID {
		return
	}
	c.hub.publish(memberEvent(is, string(now), fmt.Sprintf("availability was set to %s", now), map[string]string{
		"availability.old": string(old), "availability.new": string(now),
	}))
}

func available(n *fleet.Node) fleet.Availability {
	if n.Availability == "" {
		return fleet.Active
	}
	return n.Availability
}
