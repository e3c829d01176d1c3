package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// mark says how new the answers are that a container's published data came from.
type mark struct{ row, detail uint64 }

// hint is what events told of a container's times before any list or inspection did.
type hint struct {
	created           time.Time
	started, finished time.Time
	exit              int
	hasExit           bool
}

func (h hint) apply(c *fleet.Container) {
	if !h.started.IsZero() && h.started.After(c.StartedAt) {
		c.StartedAt = h.started
	}
	if !h.finished.IsZero() && h.finished.After(c.FinishedAt) {
		c.FinishedAt = h.finished
		if h.hasExit {
			c.ExitCode = h.exit
		}
	}
}

// ticket orders answers: what was asked later is newer.
func (e *Engine) ticket() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	return e.seq
}

// listContainers takes in the whole list, and returns the containers whose details are unknown or may have changed.
func (e *Engine) listContainers(ctx context.Context) ([]string, error) {
	t := e.ticket()
	rows, err := e.fetchRows(ctx, "all=1")
	if err != nil {
		return nil, err
	}
	var todo []string
	e.change(func(n *fleet.Node) {
		n.Containers, todo = e.merge(n, rows, t)
		n.UpdatedAt = time.Now()
	})
	return todo, nil
}

func (e *Engine) fetchRows(ctx context.Context, query string) ([]*fleet.Container, error) {
	ctx, cancel, err := e.call(ctx, e.o.Timing.List)
	if err != nil {
		return nil, err
	}
	defer cancel()
	b, err := e.get(ctx, e.path("/containers/json"), query)
	if err != nil {
		return nil, err
	}
	raws, err := rawjson.Array(b)
	if err != nil {
		return nil, fmt.Errorf("container list: %w", err)
	}
	name := e.Node().Name
	rows := make([]*fleet.Container, 0, len(raws))
	for _, raw := range raws {
		c, err := parseRow(raw, name)
		if err != nil {
			return nil, err
		}
		rows = append(rows, c)
	}
	return rows, nil
}

// merge makes the container list of a full list asked with ticket t. The caller holds mu.
func (e *Engine) merge(n *fleet.Node, rows []*fleet.Container, t uint64) (all []*fleet.Container, todo []string) {
	byID := make(map[string]*fleet.Container, len(rows))
	now := time.Now().Add(n.Skew)
	for _, c := range rows {
		m, known := e.marks[c.ID]
		old, listed := n.Find(c.ID)
		switch {
		case known && m.row > t && listed:
			c = old // something newer is known
		case known && m.row > t:
			continue // gone since
		default:
			e.marks[c.ID] = mark{row: t, detail: m.detail}
			if e.carry(old, c, now) {
				todo = append(todo, c.ID)
			}
		}
		byID[c.ID] = c
	}
	for _, old := range n.Containers {
		if _, ok := byID[old.ID]; !ok && e.marks[old.ID].row > t {
			byID[old.ID] = old // made after the list began
		}
	}
	for id, m := range e.marks {
		if _, ok := byID[id]; !ok && m.row < t {
			delete(e.marks, id)
			delete(e.hints, id)
		}
	}
	return slices.SortedFunc(maps.Values(byID), byIDOrder), todo
}

func byIDOrder(a, b *fleet.Container) int { return strings.Compare(a.ID, b.ID) }

// carry moves what a row does not tell from the container's older picture to its new one, and tells whether an inspection
// is needed. now is the engine's clock.
func (e *Engine) carry(old, c *fleet.Container, now time.Time) bool {
	h := e.hints[c.ID]
	if old != nil {
		c.ID = old.ID // once in memory, however many keep it
	}
	if old == nil || !old.Inspected {
		h.apply(c)
		return true
	}
	c.Inspected = true
	// A promised one's was guessed; it is within the second that the row tells.
	c.Created = min(max(old.Created, c.Created), c.Created+int64(time.Second)-1)
	c.Memory, c.NanoCPUs, c.CPUShares = old.Memory, old.NanoCPUs, old.CPUShares
	c.Wanted, c.Exposed, c.ExecIDs = old.Wanted, old.Exposed, old.ExecIDs
	c.StartedAt, c.FinishedAt = old.StartedAt, old.FinishedAt
	if c.State != old.State {
		// The events that tell the exact times may still be on their way.
		if c.Running() && !old.Running() {
			c.StartedAt = newer(old.StartedAt, h.started, now)
		}
		if !c.Running() && old.Running() {
			c.FinishedAt = newer(old.FinishedAt, h.finished, now)
		}
	}
	h.apply(c)
	e.mistrust(c, h, now)
	return c.StatusAt(now) != c.Status && c.State == old.State
}

// mistrustFor is how long an engine may go on listing a container as running after it told of its end.
const mistrustFor = time.Minute

// mistrust asks again for a row that does not show yet what an event told: an engine tells that a container died, then cleans up after it,
// and lists it as running for as long as that takes (moby's handleContainerExit).
func (e *Engine) mistrust(c *fleet.Container, h hint, now time.Time) {
	if since := now.Sub(h.finished); c.State == "running" && h.finished.After(c.StartedAt) && since < mistrustFor {
		e.owe(objectOf(fleet.KindContainer, c.ID), false, max(settle, since)) // each time twice as late
	}
}

// newer is what an event told if that is news, or else now.
func newer(known, told, now time.Time) time.Time {
	if told.After(known) {
		return told
	}
	return now
}

// refreshContainer brings one container up to date: its row, and its details if they are unknown or said to have changed.
func (e *Engine) refreshContainer(ctx context.Context, id string, details bool) error {
	if known, ok := e.Node().Find(id); !ok || !known.Inspected {
		details = true
	}
	t := e.ticket()
	var found *inspection
	g, gctx := errgroup.WithContext(ctx)
	if details {
		g.Go(func() (err error) {
			found, err = e.fetchInspection(gctx, id)
			if isGone(err) {
				return nil // the row tells
			}
			return err
		})
	}
	rows, err := e.fetchRows(gctx, rowsOf(id))
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	e.change(func(n *fleet.Node) {
		e.applyRows(n, []string{id}, rows, t)
		if found != nil {
			e.applyInspection(n, id, found, t)
		}
	})
	return nil
}

// refreshRows brings the rows of several containers up to date by one call.
func (e *Engine) refreshRows(ctx context.Context, ids []string) error {
	if len(ids) == 1 {
		return e.refreshContainer(ctx, ids[0], false)
	}
	t := e.ticket()
	rows, err := e.fetchRows(ctx, rowsOf(ids...))
	if err != nil {
		return err
	}
	e.change(func(n *fleet.Node) { e.applyRows(n, ids, rows, t) })
	return nil
}

// rowsOf is the query for some containers.
func rowsOf(ids ...string) string {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return "all=1&filters=" + url.QueryEscape(`{"id":`+string(rawjson.Encode(set))+`}`)
}

// applyRows puts the rows that were asked for into the node. The caller holds mu.
func (e *Engine) applyRows(n *fleet.Node, ids []string, rows []*fleet.Container, t uint64) {
	byID := make(map[string]*fleet.Container, len(rows))
	for _, c := range rows {
		byID[c.ID] = c
	}
	for _, id := range ids {
		e.applyRow(n, id, byID[id], t)
	}
}

// applyRow puts a container's row into the node; nil says that the engine has none. The caller holds mu.
func (e *Engine) applyRow(n *fleet.Node, id string, c *fleet.Container, t uint64) {
	if e.marks[id].row > t {
		return
	}
	e.marks[id] = mark{row: t, detail: e.marks[id].detail}
	n.UpdatedAt = time.Now()
	if c == nil {
		n.Containers = without(n.Containers, id)
		return
	}
	old, _ := n.Find(id)
	e.carry(old, c, time.Now().Add(n.Skew))
	n.Containers = with(n.Containers, c)
	if old != nil && old.Promised && slices.ContainsFunc(c.Mounts, func(m fleet.Mount) bool { return m.Type == "volume" }) {
		e.owe(objectOf(fleet.KindVolume, ""), false, settle) // an image's volumes are made with the container
	}
}

// findings are inspections that are not published yet.
type findings struct {
	engine *Engine
	mu     sync.Mutex
	found  []finding
}

type finding struct {
	id     string
	found  *inspection
	ticket uint64
}

// publishedTogether is how many inspections make one publication: when a fleet is first seen there are as many of them as it
// has containers, and each publication is one for everybody.
const publishedTogether = 16

// inspectAll takes in the details of listed containers, a few calls at a time.
func (e *Engine) inspectAll(ctx context.Context, ids []string) error {
	all := findings{engine: e}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(callsAtOnce)
	for _, id := range ids {
		g.Go(func() error {
			done, err := e.o.Courtesy.after(ctx)
			if err != nil {
				return err
			}
			defer done()
			t := e.ticket()
			found, err := e.fetchInspection(ctx, id)
			if isStatus(err) {
				// One container that its engine cannot inspect (Dead, half removed) must not cost us the node.
				e.o.Log.Warn("container cannot be inspected", "node", e.Node().Name, "container", id, "error", err)
				return nil
			}
			if err == nil {
				all.add(finding{id, found, t})
			}
			return err
		})
	}
	err := g.Wait()
	all.publish()
	return err
}

func (f *findings) add(one finding) {
	f.mu.Lock()
	f.found = append(f.found, one)
	enough := len(f.found) >= publishedTogether
	f.mu.Unlock()
	if enough {
		f.publish()
	}
}

func (f *findings) publish() {
	f.mu.Lock()
	found := f.found
	f.found = nil
	f.mu.Unlock()
	if len(found) == 0 {
		return
	}
	f.engine.change(func(n *fleet.Node) {
		for _, one := range found {
			f.engine.applyInspection(n, one.id, one.found, one.ticket)
		}
	})
}

func (e *Engine) fetchInspection(ctx context.Context, id string) (*inspection, error) {
	ctx, cancel, err := e.call(ctx, e.o.Timing.List)
	if err != nil {
		return nil, err
	}
	defer cancel()
	b, err := e.get(ctx, e.path("/containers/"+id+"/json"), "")
	if err != nil {
		return nil, err
	}
	i, err := parseInspection(b)
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", id, err)
	}
	return i, nil
}

// applyInspection puts a container's details into the node. The caller holds mu.
func (e *Engine) applyInspection(n *fleet.Node, id string, found *inspection, t uint64) {
	old, ok := n.Find(id)
	if m := e.marks[id]; !ok || m.detail > t {
		return
	}
	e.marks[id] = mark{row: e.marks[id].row, detail: t}
	c := *old
	found.apply(&c)
	e.hints[id].apply(&c)
	n.Containers = with(n.Containers, &c)
}

// remove takes a container away at once, so that no list that began earlier brings it back. Nothing is owed of it any more.
func (e *Engine) remove(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	e.marks[id] = mark{row: e.seq}
	delete(e.hints, id)
	delete(e.debts, object{fleet.KindContainer, id})
	e.count()
	if _, listed := e.node.Find(id); !listed {
		return // the answer to a client told it before the event did
	}
	n := *e.node
	n.Containers = without(n.Containers, id)
	e.publish(&n)
}

func with(cs []*fleet.Container, c *fleet.Container) []*fleet.Container {
	i, ok := slices.BinarySearchFunc(cs, c, byIDOrder)
	if ok {
		cs = slices.Clone(cs)
		cs[i] = c
		return cs
	}
	return slices.Insert(slices.Clone(cs), i, c)
}

func without(cs []*fleet.Container, id string) []*fleet.Container {
	i, ok := slices.BinarySearchFunc(cs, id, func(c *fleet.Container, id string) int { return strings.Compare(c.ID, id) })
	if !ok {
		return cs
	}
	return slices.Delete(slices.Clone(cs), i, i+1)
}
