package move

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// drain is what is known of one node that is being drained.
type drain struct {
	version uint64 // of the intent: what could not move then may now
	moving  map[string]fleet.Progress
	stuck   map[string]*failure
	moved   []fleet.Moved
}

type failure struct {
	fleet.Stuck
	again time.Time
	wait  time.Duration
}

// lookStep is before it is known whether a container can move.
const lookStep = "look"

// Run empties the nodes that are to be drained, and finishes or undoes moves that were interrupted, until ctx ends. It returns
// when all that it began has ended.
func (m *Mover) Run(ctx context.Context) error {
	m.setActive(true)
	defer m.setActive(false)
	defer m.work.Wait()
	tick := time.NewTicker(m.o.Every)
	defer tick.Stop()
	r := &resumer{m: m, failed: map[string]*failure{}}
	for {
		r.pass(ctx)
		m.pass(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-m.wake:
		}
	}
}

func (m *Mover) setActive(is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active = is
}

// resumer looks for moves that were interrupted. It belongs to Run.
type resumer struct {
	m       *Mover
	version uint64
	failed  map[string]*failure // by the new container's ID
}

func (r *resumer) pass(ctx context.Context) {
	version := r.m.o.Fleet.Snapshot().Version()
	if version == r.version && len(r.failed) == 0 {
		return
	}
	r.version = version
	whole := r.m.o.Fleet.Whole()
	failed := map[string]*failure{}
	for _, l := range leftovers(whole) {
		if l.c.Moved.By != r.m.o.Owner || ctx.Err() != nil {
			continue
		}
		f := r.failed[l.c.ID]
		if f != nil && time.Now().Before(f.again) {
			failed[l.c.ID] = f
			continue
		}
		leave, err := r.m.enter(&container{ID: l.c.Moved.From, Name: l.c.Name})
		if err != nil {
			r.version = 0 // it is on its way; look again
			continue
		}
		err = r.m.resume(ctx, whole, l)
		leave()
		if err == nil {
			continue
		}
		if f == nil {
			f = &failure{}
			r.m.o.Log.Warn("a move that was interrupted cannot be finished yet", "container", l.c.Name, "node", l.node.Name, "error", err)
		}
		r.m.later(f)
		failed[l.c.ID] = f
	}
	r.failed = failed
}

// later doubles the time until a failure is tried again.
func (m *Mover) later(f *failure) {
	f.wait = min(max(2*f.wait, m.o.RetryMin), m.o.RetryMax)
	f.again = time.Now().Add(f.wait)
}

// pass starts the moves that can be started.
func (m *Mover) pass(ctx context.Context) {
	draining := map[string]bool{}
	for _, n := range m.o.Fleet.Snapshot().Nodes() {
		if n.Availability != fleet.Drain {
			continue
		}
		draining[n.ID] = true
		if n.State == fleet.Healthy {
			m.empty(ctx, n)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, d := range m.drains {
		if !draining[id] && len(d.moving) == 0 {
			delete(m.drains, id)
		}
	}
}

// empty starts to move the containers of a node, as many as may move at a time.
func (m *Mover) empty(ctx context.Context, n *fleet.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.drains[n.ID]
	if d == nil || d.version != n.IntentVersion {
		moving := map[string]fleet.Progress{}
		if d != nil {
			moving = d.moving
		}
		d = &drain{version: n.IntentVersion, moving: moving, stuck: map[string]*failure{}}
		m.drains[n.ID] = d
	}
	for id := range d.stuck {
		if _, there := n.Find(id); !there {
			delete(d.stuck, id)
		}
	}
	for _, c := range n.Containers {
		f := d.stuck[c.ID]
		_, moving := m.busy[c.ID]
		if c.Relay || moving || f != nil && time.Now().Before(f.again) || c.State == "removing" || c.State == "dead" {
			continue
		}
		if _, begun := d.moving[c.ID]; begun || m.movingNow() >= m.o.Parallel || ctx.Err() != nil {
			continue
		}
		d.moving[c.ID] = fleet.Progress{ID: c.ID, Name: c.Name, Step: lookStep}
		m.work.Go(func() { m.moveAway(ctx, n, d, c) })
	}
}

// movingNow counts. The caller holds mu.
func (m *Mover) movingNow() int {
	count := 0
	for _, d := range m.drains {
		count += len(d.moving)
	}
	return count
}

func (m *Mover) moveAway(ctx context.Context, n *fleet.Node, d *drain, c *fleet.Container) {
	volumes := fleet.Intent{Labels: n.Added}.WithVolumes()
	to, err := m.Move(ctx, n, c.ID, Wish{Volumes: volumes, Reason: "node " + n.Name + " is drained"})
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(d.moving, c.ID)
	select {
	case m.wake <- struct{}{}:
	default:
	}
	switch {
	case err == nil:
		d.moved = append(d.moved, fleet.Moved{Name: c.Name, To: to.Name})
		delete(d.stuck, c.ID)
	case enginecall.IsStatus(err, http.StatusNotFound):
		delete(d.stuck, c.ID) // it was removed meanwhile
	case ctx.Err() == nil:
		f := d.stuck[c.ID]
		if f == nil {
			f = &failure{Stuck: fleet.Stuck{ID: c.ID, Name: c.Name}}
			d.stuck[c.ID] = f
		}
		var fixed *FixedError
		if errors.As(err, &fixed) {
			f.Reasons = fixed.Reasons
		} else {
			f.Reasons = []string{err.Error()}
			m.o.Log.Warn("container could not be moved", "container", c.Name, "node", n.Name, "error", err)
		}
		m.later(f)
	}
}

// progress notes which step a move is at.
func (m *Mover) progress(j *journey, step string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.drains[j.from.ID]; d != nil {
		if p, ok := d.moving[j.c.ID]; ok {
			p.To, p.Step = j.to.Name, step
			d.moving[j.c.ID] = p
		}
	}
}

// Report tells how far the draining of a node is.
func (m *Mover) Report(n *fleet.Node) fleet.Draining {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := fleet.Draining{Availability: n.Availability, Active: m.active}
	if r.Availability == "" {
		r.Availability = fleet.Active
	}
	d := m.drains[n.ID]
	if n.Availability == fleet.Drain && n.State != fleet.Healthy {
		for _, c := range n.Containers {
			r.Stuck = append(r.Stuck, fleet.Stuck{ID: c.ID, Name: c.Name, Reasons: []string{"node " + n.Name + " does not answer: " + n.Error}})
		}
		r.Done = true
		return r
	}
	if d == nil || d.version != n.IntentVersion {
		r.Done = n.Availability != fleet.Drain
		return r
	}
	for id, p := range d.moving {
		if _, known := d.stuck[id]; !known || p.Step != lookStep {
			r.Moving = append(r.Moving, p)
		}
	}
	for _, f := range d.stuck {
		r.Stuck = append(r.Stuck, f.Stuck)
	}
	r.Moved = slices.Clone(d.moved)
	slices.SortFunc(r.Moving, func(a, b fleet.Progress) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Stuck, func(a, b fleet.Stuck) int { return strings.Compare(a.Name, b.Name) })
	r.Done = len(r.Moving) == 0 && !slices.ContainsFunc(n.Containers, func(c *fleet.Container) bool {
		_, judged := d.stuck[c.ID]
		return !judged && !c.Relay && c.State != "removing" && c.State != "dead"
	})
	return r
}

// Moving names the containers that are on their way now.
func (m *Mover) Moving() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, name := range m.busy {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
