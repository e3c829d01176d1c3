package move

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"berth/internal/enginecall"
	"berth/internal/fleet"
	"berth/internal/schedule"
)

const (
	// looked bounds how many containers a plan looks at: those of the nodes that have most, or with binpack least.
	looked = 256
	// asked is how many engines' answers a plan waits for at a time.
	asked = 16
)

// Plan tells which containers would be better off elsewhere, at most limit of them, and moves none. considered is how many that can
// move at all it was chosen from.
func (m *Mover) Plan(ctx context.Context, limit int) (plan []fleet.Shift, considered int, err error) {
	m.o.Fleet.Settle(ctx, fleet.KindContainer, fleet.KindVolume)
	var mu sync.Mutex
	var movable []schedule.Movable
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(asked)
	for _, r := range m.candidates() {
		g.Go(func() error {
			req, err := m.movable(work, r)
			var fixed *FixedError
			switch {
			case errors.As(err, &fixed), enginecall.Refused(err):
				return nil
			case err != nil:
				return fmt.Errorf("node %s: %w", r.Node.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			movable = append(movable, schedule.Movable{NodeID: r.Node.ID, ID: r.Container.ID, Request: req})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, err
	}
	shifts, err := schedule.Rebalance(m.o.Fleet.View(), movable, m.o.Fleet.Policy(), limit)
	if err != nil {
		return nil, 0, err
	}
	for _, s := range shifts {
		if n, ok := m.o.Fleet.Snapshot().Node(s.NodeID); ok {
			plan = append(plan, fleet.Shift{ID: s.ID, Name: s.Request.Name, From: n.Name, To: s.To.Name, Why: s.Why})
		}
	}
	return plan, len(movable), nil
}

// candidates are the containers that a plan looks at, without those of which the picture tells that they cannot move.
func (m *Mover) candidates() []fleet.Ref {
	nodes := slices.Clone(m.o.Fleet.Snapshot().Nodes())
	sign := 1
	if strings.HasPrefix(m.o.Fleet.Policy().Strategy, schedule.Binpack) {
		sign = -1
	}
	slices.SortStableFunc(nodes, func(a, b *fleet.Node) int { return sign * (len(b.Containers) - len(a.Containers)) })
	var found []fleet.Ref
	for _, n := range nodes {
		if n.State != fleet.Healthy || !n.Takes() {
			continue
		}
		for _, c := range n.Containers {
			fixed := c.Relay || c.State == "paused" || c.State == "removing" || c.State == "dead" || strings.HasPrefix(c.NetworkMode, "container:") ||
				slices.ContainsFunc(c.Mounts, func(m fleet.Mount) bool { return m.Type == "bind" })
			if !fixed && len(found) < looked {
				found = append(found, fleet.Ref{Node: n, Container: c})
			}
		}
	}
	return found
}

// movable is what a container asks of a node, if it can move without its volumes.
func (m *Mover) movable(ctx context.Context, r fleet.Ref) (*schedule.Request, error) {
	c, err := m.eng.inspect(ctx, r.Node, r.Container.ID)
	if err != nil {
		return nil, err
	}
	req, _, err := m.requirements(ctx, r.Node, c, false)
	return req, err
}

// Shift moves a container to a node; the scheduler still has to agree. All are named by ID.
func (m *Mover) Shift(ctx context.Context, container, to string) (*fleet.Node, error) {
	m.mu.Lock()
	active := m.active
	m.mu.Unlock()
	if !active {
		return nil, errors.New("another manager with this store moves the containers")
	}
	r, err := m.o.Fleet.Snapshot().Container(container)
	if err != nil {
		return nil, err
	}
	return m.Move(ctx, r.Node, r.Container.ID, Wish{To: to, Reason: "the fleet is rebalanced"})
}
