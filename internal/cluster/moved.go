package cluster

import (
	"slices"
	"time"

	"berth/internal/engine"
	"berth/internal/fleet"
)

// Of a container that moves there are two for a while: the one that goes, and the one that takes its place on another node.
// The second is not shown until it has the first's name, and the first from that moment on; both in one step, so that nobody
// ever sees two, or none.

// hideMoved takes away what waits for its turn and what has had it. The caller holds pub.
func (c *Cluster) hideMoved(n *fleet.Node) *fleet.Node {
	hidden := func(x *fleet.Container) bool {
		if x.Waiting() {
			return true
		}
		by, ok := c.replaced[x.ID]
		return ok && by != n.ID
	}
	if !slices.ContainsFunc(n.Containers, hidden) {
		return n
	}
	clean := *n
	clean.Containers = slices.DeleteFunc(slices.Clone(n.Containers), hidden)
	return clean.Seal()
}

// replace notes whose places the containers of a node have taken, and takes those out of the snapshot. The caller holds pub.
func (c *Cluster) replace(s *fleet.Snapshot, n *fleet.Node) *fleet.Snapshot {
	var now []string
	for _, x := range n.Containers {
		if x.Moved != nil && !x.Waiting() {
			now = append(now, x.Moved.From)
		}
	}
	for id, by := range c.replaced {
		if by == n.ID && !slices.Contains(now, id) {
			delete(c.replaced, id)
			c.showAgain()
		}
	}
	for _, id := range now {
		if c.replaced[id] == n.ID {
			continue
		}
		c.replaced[id] = n.ID
		if r, err := s.Container(id); err == nil && r.Container.ID == id && r.Node.ID != n.ID {
			s = s.Replace(c.hideMoved(r.Node))
		}
	}
	return s
}

// showAgain has the engines say once more what they have, since something is hidden no longer. They publish under the lock
// that the caller holds, so they are asked beside it.
func (c *Cluster) showAgain() {
	for _, e := range c.engines {
		c.work.Go(e.Republish)
	}
}

// Whole returns the nodes with what the snapshot hides.
func (c *Cluster) Whole() []*fleet.Node {
	c.pub.RLock()
	var engines []*engine.Engine
	for _, n := range c.snapshot.Load().Nodes() {
		if e, ok := c.engines[n.ID]; ok {
			engines = append(engines, e)
		}
	}
	c.pub.RUnlock() // an engine that publishes holds its own lock and waits for this one
	all := make([]*fleet.Node, 0, len(engines))
	for _, e := range engines {
		all = append(all, e.Node())
	}
	return all
}

// Tell tells those who follow the events of what became of a container.
func (c *Cluster) Tell(n *fleet.Node, action, container string, attributes map[string]string) {
	c.hub.publish(ownEvent(n, "container", action, container, attributes, time.Now()))
}
