package cluster

import (
	"slices"
	"time"

	"berth/internal/engine"
	"berth/internal/fleet"
)

// Of a container that moves there are two for a while: the one that goes, and the one that takes its place on another node.
// The second is not shown until it has the first's name, and the first from that moment on; both in one step, so that nobody
// ever sees two, or none. Of one whose node was lost the first is there again when the node is, and is hidden until it was stopped
// and renamed.

// hideMoved takes away what waits for its turn and what has had it. The caller holds pub.
func (c *Cluster) hideMoved(n *fleet.Node) *fleet.Node {
	if len(c.replaced) == 0 && !n.Facts().Takers() {
		return n
	}
	hidden := func(x *fleet.Container) bool {
		if x.Waiting() {
			return true
		}
		by, ok := c.replaced[x.ID]
		_, aside := fleet.Stale(x.Name, x.ID)
		return ok && by != n.ID && !aside
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
	if len(c.replaced) == 0 && !n.Facts().Takers() {
		return s
	}
	var now []string
	for _, x := range n.Containers {
		if x.Moved == nil && x.Rescued == nil || x.Waiting() {
			continue
		}
		_, replaced := c.replaced[x.ID]
		for _, id := range predecessors(x) {
			// One that was itself replaced has the last word only if nobody else has one.
			if _, said := c.replaced[id]; !replaced || !said || c.replaced[id] == n.ID {
				now = append(now, id)
			}
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

// predecessors are the IDs of the containers whose place one has taken.
func predecessors(x *fleet.Container) (ids []string) {
	if x.Moved != nil {
		ids = append(ids, x.Moved.From)
	}
	if x.Rescued != nil {
		ids = append(ids, x.Rescued.From...)
	}
	return ids
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
	c.hub.once(ownEvent(n, "container", action, container, attributes, time.Now()))
}
