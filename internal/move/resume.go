package move

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// leftover is a container that was made to take another's place, and the node that it is on.
type leftover struct {
	node *fleet.Node
	c    *fleet.Container
}

// leftovers finds the moves that are not over: those whose old container is still there, or whose new one still waits.
func leftovers(whole []*fleet.Node) []leftover {
	old := map[string]bool{}
	var moved []leftover
	for _, n := range whole {
		if !n.Facts().Takers() {
			continue // this is asked whenever something has changed, and of most nodes there is nothing to look at
		}
		for _, c := range n.Containers {
			if c.Moved != nil {
				moved = append(moved, leftover{n, c})
				old[c.Moved.From] = false
			}
		}
	}
	if len(moved) == 0 {
		return nil
	}
	for _, n := range whole {
		for _, c := range n.Containers {
			if _, asked := old[c.ID]; asked {
				old[c.ID] = true
			}
		}
	}
	return slices.DeleteFunc(moved, func(l leftover) bool {
		return !l.c.Waiting() && !old[l.c.Moved.From] && len(originals(whole, l)) == 0
	})
}

// originals are the named volumes that were copied for a container and that are still where they came from, used by nobody.
func originals(whole []*fleet.Node, l leftover) []volume {
	from := find(whole, l.c.Moved.Node)
	if from == nil || len(l.c.Mounts) == 0 {
		return nil
	}
	var left []volume
	for _, v := range l.node.Volumes {
		mark, copied := v.Labels[LabelCopied]
		id, created, _ := strings.Cut(mark, " ")
		if !copied || id != from.ID || !mounts(l.c, v.Name) {
			continue
		}
		for _, o := range from.Volumes {
			unused := !slices.ContainsFunc(from.Containers, func(c *fleet.Container) bool { return mounts(c, v.Name) })
			if o.Name == v.Name && o.CreatedAt == created && unused {
				left = append(left, volume{mount: mount{Name: v.Name}, CreatedAt: created})
			}
		}
	}
	return left
}

func mounts(c *fleet.Container, volume string) bool {
	return slices.ContainsFunc(c.Mounts, func(m fleet.Mount) bool { return m.Type == "volume" && m.Name == volume })
}

func find(nodes []*fleet.Node, id string) *fleet.Node {
	for _, n := range nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// resume finishes one move that nobody is at, or undoes it.
func (m *Mover) resume(ctx context.Context, whole []*fleet.Node, l leftover) error {
	if l.node.State != fleet.Healthy {
		return fmt.Errorf("node %s does not answer", l.node.Name)
	}
	move := *l.c.Moved
	from := find(whole, move.Node)
	if from == nil {
		if !l.c.Waiting() {
			return nil // it has its turn, and the node of the old one is no longer ours
		}
		return errors.New("the node of the old container is not in the fleet")
	}
	if from.State != fleet.Healthy {
		return fmt.Errorf("node %s does not answer", from.Name)
	}
	fresh, err := m.eng.inspect(ctx, l.node, l.c.ID)
	if enginecall.IsStatus(err, http.StatusNotFound) {
		m.o.Fleet.Forget(l.node.ID, l.c.ID)
		return nil
	}
	if err != nil {
		return err
	}
	old, err := m.eng.inspect(ctx, from, move.From)
	gone := enginecall.IsStatus(err, http.StatusNotFound)
	if err != nil && !gone {
		return err
	}
	waiting := strings.HasPrefix(fresh.Name, fleet.MovingPrefix)
	switch {
	case waiting && (gone || rescued(whole, move.From)):
		// The old one was removed by somebody, or has another in its place since its node was lost: so it goes with the new one, too.
		return m.discard(ctx, from, l.node, fresh)
	case waiting:
		return m.undo(ctx, from, old, l.node, fresh, move)
	case gone:
		return m.releaseVolumes(ctx, from, originals(m.o.Fleet.Whole(), l))
	case old.runs() && fresh.neverStarted():
		// Somebody was faster to start the old one: the new one never ran.
		if err := m.eng.rename(ctx, l.node, fresh.ID, fleet.MovingName(move.From, false)); err != nil {
			return err
		}
		m.look(ctx, l.node, fleet.KindContainer, fresh.ID)
		return m.undo(ctx, from, old, l.node, fresh, move)
	}
	return m.finish(ctx, from, old, l.node, fresh, move)
}

// rescued tells whether a container has the place of another whose node was lost.
func rescued(whole []*fleet.Node, id string) bool {
	for _, n := range whole {
		for _, c := range n.Facts().Rescued() {
			if !c.Waiting() && slices.Contains(c.Rescued.From, id) {
				return true
			}
		}
	}
	return false
}

// undo has the old container be what it was, and removes the new one, which never ran.
func (m *Mover) undo(ctx context.Context, from *fleet.Node, old *container, to *fleet.Node, fresh *container, move fleet.Move) error {
	was := former{fresh.HostConfig.RestartPolicy, move.Run, fleet.Stopping(fresh.Name)}
	if err := m.restore(ctx, from, old.ID, was); err != nil {
		return err
	}
	m.o.Log.Info("a move that was interrupted was undone", "container", old.Name, "node", from.Name, "to", to.Name)
	return m.discard(ctx, from, to, fresh)
}

// discard removes a new container, and the copies that were made for it.
func (m *Mover) discard(ctx context.Context, from, to *fleet.Node, fresh *container) error {
	if err := m.eng.removeContainer(ctx, to, fresh.ID, true); err != nil {
		return err
	}
	m.o.Fleet.Forget(to.ID, fresh.ID)
	var failed error
	for _, mt := range fresh.Mounts {
		v := volume{mount: mt}
		if mt.Type != "volume" || !v.named() {
			continue
		}
		failed = errors.Join(failed, m.dropCopy(ctx, to, mt.Name, from.ID+" "))
	}
	return failed
}

// finish gives the new container all that its turn brings.
func (m *Mover) finish(ctx context.Context, from *fleet.Node, old *container, to *fleet.Node, fresh *container, move fleet.Move) error {
	if old.runs() {
		// Both were started, so the new one has had its turn: it is the one that everybody saw.
		if err := m.eng.stopIt(ctx, from, old); err != nil {
			return err
		}
	}
	if move.Run && fresh.neverStarted() {
		if err := m.eng.startIt(ctx, to, fresh.ID); err != nil {
			return err
		}
		m.look(ctx, to, fleet.KindContainer, fresh.ID)
	}
	if err := m.eng.removeContainer(ctx, from, old.ID, false); err != nil {
		return err
	}
	m.o.Fleet.Forget(from.ID, old.ID)
	m.look(ctx, from, fleet.KindVolume, "")
	m.look(ctx, to, fleet.KindVolume, "")
	m.o.Log.Info("a move that was interrupted was finished", "container", fresh.Name, "from", from.Name, "to", to.Name)
	m.o.Fleet.Tell(to, Event, fresh.ID, map[string]string{
		"name": fresh.Name, "image": fresh.Config.Image, "from": from.Name, "to": to.Name, "from.id": old.ID, "reason": "a move that was interrupted was finished",
	})
	for _, n := range m.o.Fleet.Whole() {
		if c, ok := n.Find(fresh.ID); ok {
			return m.releaseVolumes(ctx, from, originals(m.o.Fleet.Whole(), leftover{n, c}))
		}
	}
	return nil
}
