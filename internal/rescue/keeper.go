package rescue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// KeeperOptions of a Keeper.
type KeeperOptions struct {
	Fleet  Fleet
	Dir    string // where the containers are kept; its own
	APIMax string
	// Every is how often changes are looked for, Retry when what could not be asked is asked again.
	Every, Retry time.Duration
	Log          *slog.Logger
}

// DefaultKeeperOptions are the times for real fleets.
func DefaultKeeperOptions() KeeperOptions {
	return KeeperOptions{Every: 200 * time.Millisecond, Retry: 2 * time.Second}
}

// nodesAtOnce bounds how many nodes are asked at a time; each has one call.
const nodesAtOnce = 8

// Keeper remembers what the containers with a reschedule policy are like. Make it with NewKeeper; Run it in every manager.
type Keeper struct {
	o     KeeperOptions
	eng   caller
	shelf shelf

	// Run's own:
	version uint64
	retry   map[string]time.Time   // by node ID: when to look again though nothing changed
	seen    map[string]*fleet.Node // as last looked at
	work    sync.WaitGroup
	slots   chan struct{}

	mu     sync.Mutex
	kept   map[string]*kept           // by container ID
	sites  map[string]*siteState      // by node ID, of nodes that have kept containers
	asking map[string]bool            // by node ID
	failed map[string]bool            // nodes that could not be asked for all
	said   map[string]string          // trouble that was logged, by what it is about
	ending map[string]bool            // containers that ended, and may have because of their node
	on     map[string]map[string]bool // node ID → IDs of its kept containers
}

// kept is a container that is remembered.
type kept struct {
	*record
	seen *fleet.Container // as it was when it was asked for; nil if only the file tells
}

// siteState is how a node is.
type siteState struct {
	site
	since  time.Time // when it was first seen not to answer; zero if it does, or has left while it did
	unwell bool      // as the file says
}

// NewKeeper reads what was kept before. It starts nothing.
func NewKeeper(o KeeperOptions) *Keeper {
	k := &Keeper{
		o: o, eng: newCaller(o.Fleet, o.APIMax), shelf: shelf{o.Dir}, retry: map[string]time.Time{}, seen: map[string]*fleet.Node{},
		slots: make(chan struct{}, nodesAtOnce), kept: map[string]*kept{}, sites: map[string]*siteState{}, asking: map[string]bool{},
		failed: map[string]bool{}, said: map[string]string{}, ending: map[string]bool{}, on: map[string]map[string]bool{},
	}
	records, unwell, err := k.shelf.all()
	if err != nil {
		o.Log.Warn("some of the containers with a reschedule policy were forgotten", "error", err)
	}
	for _, r := range records {
		k.add(&kept{record: r})
		k.sites[r.Node.ID].unwell = slices.Contains(unwell, r.Node.ID)
	}
	return k
}

// Run keeps until ctx ends, and returns when all that it began has ended.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.work.Wait()
	select {
	case <-k.o.Fleet.Looked():
	case <-ctx.Done():
		return ctx.Err()
	}
	tick := time.NewTicker(k.o.Every)
	defer tick.Stop()
	for {
		k.pass(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// pass looks at what has changed. Where nothing has a policy it looks at the nodes' addresses in memory.
func (k *Keeper) pass(ctx context.Context) {
	s, now := k.o.Fleet.Snapshot(), time.Now()
	k.settle(now)
	again := k.due(now)
	if s.Version() == k.version && len(again) == 0 {
		return
	}
	k.version = s.Version()
	for _, n := range s.Nodes() {
		if k.seen[n.ID] == n && !again[n.ID] {
			continue
		}
		k.seen[n.ID] = n
		if n.State == fleet.Healthy {
			k.look(ctx, n)
		}
	}
	if len(k.seen) > len(s.Nodes()) {
		for id := range k.seen {
			if _, there := s.Node(id); !there {
				delete(k.seen, id)
			}
		}
	}
	k.judge(s, now)
}

// due are the nodes that are to be looked at again though nothing changed.
func (k *Keeper) due(now time.Time) map[string]bool {
	k.mu.Lock()
	for id := range k.failed {
		k.retry[id] = now.Add(k.o.Retry)
		delete(k.failed, id)
	}
	k.mu.Unlock()
	var due map[string]bool
	for id, at := range k.retry {
		if now.Before(at) {
			continue
		}
		if due == nil {
			due = map[string]bool{}
		}
		due[id] = true
		delete(k.retry, id)
	}
	return due
}

// look brings what is kept of a node that answers up to date.
func (k *Keeper) look(ctx context.Context, n *fleet.Node) {
	guarded, rescued := n.Facts().Guarded(), n.Facts().Rescued()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range rescued {
		if c.ToStart() {
			continue // if it cannot be, another may have to take its place
		}
		for _, id := range c.Rescued.From {
			k.drop(id)
		}
	}
	for id := range k.on[n.ID] {
		if _, there := n.Find(id); !there {
			k.drop(id)
		}
	}
	var ask []*fleet.Container
	for _, c := range guarded {
		if r := k.kept[c.ID]; (r == nil || r.seen != c || r.Node.ID != n.ID) && c.Occupies() {
			ask = append(ask, c)
		}
	}
	switch {
	case len(ask) == 0:
	case k.asking[n.ID]:
		k.retry[n.ID] = time.Now().Add(k.o.Every)
	default:
		k.asking[n.ID] = true
		k.work.Go(func() { k.askAll(ctx, n, ask) })
	}
}

// askAll asks a node for some containers, one after the other.
func (k *Keeper) askAll(ctx context.Context, n *fleet.Node, all []*fleet.Container) {
	failed := false
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.asking, n.ID)
		if failed && ctx.Err() == nil {
			k.failed[n.ID] = true
		}
	}()
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-ctx.Done():
		return
	}
	for _, c := range all {
		err := k.keep(ctx, n, c)
		if err == nil || enginecall.IsStatus(err, http.StatusNotFound) { // the snapshot will show that it is gone
			k.say(c.ID, "", c.Name, n)
			continue
		}
		failed = true
		if ctx.Err() != nil {
			return
		}
		k.say(c.ID, err.Error(), c.Name, n)
		if !enginecall.Refused(err) {
			return // the others would wait for the same
		}
	}
}

// say logs trouble once.
func (k *Keeper) say(id, trouble, name string, n *fleet.Node) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if trouble == "" {
		delete(k.said, id)
		return
	}
	if k.said[id] != trouble {
		k.said[id] = trouble
		k.o.Log.Warn("a container with a reschedule policy could not be remembered: were its node lost now, it could not be started elsewhere",
			"container", name, "node", n.Name, "error", trouble)
	}
}

// keep asks for one container and writes it down.
func (k *Keeper) keep(ctx context.Context, n *fleet.Node, c *fleet.Container) error {
	raw, i, err := k.eng.inspect(ctx, n, c.ID)
	if err != nil {
		return err
	}
	volumes, err := k.localVolumes(ctx, n, i)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var before *record
	if was := k.kept[c.ID]; was != nil {
		before = was.record
	}
	r := newRecord(n, i, volumes, before, time.Now())
	if err := k.shelf.put(r, raw); err != nil {
		return err
	}
	k.add(&kept{r, c})
	return nil
}

// localVolumes are those of a container that only its node has.
func (k *Keeper) localVolumes(ctx context.Context, n *fleet.Node, i *inspection) ([]volume, error) {
	var local []volume
	for _, m := range i.Mounts {
		if m.Type != "volume" {
			continue
		}
		b, err := k.eng.Ask(ctx, callLimit, n, http.MethodGet, "/volumes/"+m.Name, nil, nil)
		if enginecall.IsStatus(err, http.StatusNotFound) {
			local = append(local, volume{Name: m.Name}) // whatever became of it, it is nowhere else
			continue
		}
		if err != nil {
			return nil, err
		}
		var row struct {
			Scope  string
			Labels map[string]string
		}
		if err := json.Unmarshal(b, &row); err != nil {
			return nil, fmt.Errorf("node %s: volume %s: %w", n.Name, m.Name, err)
		}
		if row.Scope != "global" {
			local = append(local, volume{m.Name, row.Labels})
		}
	}
	return local, nil
}

// add remembers a container. The caller holds mu, or is alone.
func (k *Keeper) add(c *kept) {
	if was := k.kept[c.ID]; was != nil && was.Node.ID != c.Node.ID {
		delete(k.on[was.Node.ID], c.ID)
	}
	k.kept[c.ID] = c
	delete(k.ending, c.ID)
	if !c.Ended.IsZero() {
		k.ending[c.ID] = true
	}
	if k.sites[c.Node.ID] == nil {
		k.sites[c.Node.ID], k.on[c.Node.ID] = &siteState{site: c.Node}, map[string]bool{}
	}
	k.on[c.Node.ID][c.ID] = true
}

// drop forgets a container that is gone, or whose place another has taken. The caller holds mu.
func (k *Keeper) drop(id string) {
	c := k.kept[id]
	if c == nil {
		return
	}
	if err := k.shelf.drop(id); err != nil {
		k.o.Log.Warn("what was remembered of a container that is gone could not be removed", "container", c.Name, "error", err)
	}
	delete(k.kept, id)
	delete(k.ending, id)
	delete(k.said, id)
	delete(k.on[c.Node.ID], id)
}

// settle notes of containers that ended a while ago, while their nodes went on, that they are not to be started.
func (k *Keeper) settle(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.ending {
		c := k.kept[id]
		if st := k.sites[c.Node.ID]; !st.since.IsZero() {
			continue // it ended with its node
		}
		r := *c.record
		if !r.settle(now) {
			continue
		}
		d, err := k.shelf.get(id)
		if err == nil {
			err = k.shelf.put(&r, d.Inspection)
		}
		if err != nil {
			k.o.Log.Warn("that a container has ended could not be written down", "container", c.Name, "error", err)
		}
		k.add(&kept{&r, c.seen})
	}
}

// judge notes which nodes do not answer, and since when.
func (k *Keeper) judge(s *fleet.Snapshot, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := false
	for id, st := range k.sites {
		if len(k.on[id]) == 0 {
			delete(k.sites, id)
			delete(k.on, id)
			changed = changed || st.unwell
			continue
		}
		was := st.unwell
		switch k.standing(s, st) {
		case answers:
			st.since, st.unwell = time.Time{}, false
		case silent:
			st.unwell = true
			if st.since.IsZero() {
				st.since = now
			}
		case absent:
			if st.unwell && st.since.IsZero() { // as it was when the manager before us ended
				st.since = now
			}
		}
		changed = changed || was != st.unwell
	}
	if !changed {
		return
	}
	unwell := []string{}
	for id, st := range k.sites {
		if st.unwell {
			unwell = append(unwell, id)
		}
	}
	if err := k.shelf.write(nodesFile, unwell); err != nil {
		k.o.Log.Warn("which nodes do not answer could not be written down", "error", err)
	}
}

type standing int

const (
	answers standing = iota
	silent           // it is in the fleet and does not answer
	absent           // nobody names it any more
)

func (k *Keeper) standing(s *fleet.Snapshot, st *siteState) standing {
	if n, ok := s.Node(st.ID); ok {
		if n.State == fleet.Healthy {
			return answers
		}
		return silent
	}
	for _, n := range s.Nodes() { // before it was reached a node has only its address
		if n.Addr == st.Addr && n.State != fleet.Healthy {
			return silent
		}
	}
	return absent
}

// lost are the containers whose nodes have not answered for so long.
func (k *Keeper) lost(delay time.Duration, now time.Time) []record {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []record
	for id, st := range k.sites {
		if st.since.IsZero() || now.Sub(st.since) < delay {
			continue
		}
		for c := range k.on[id] {
			all = append(all, *k.kept[c].record)
		}
	}
	slices.SortFunc(all, func(a, b record) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// isLost tells whether a container's node does not answer, and the container is still remembered.
func (k *Keeper) isLost(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.kept[id]
	return c != nil && !k.sites[c.Node.ID].since.IsZero()
}

// errForgotten says that a container is gone from the shelf.
var errForgotten = errors.New("it is not remembered any more")

// read returns a container's inspection.
func (k *Keeper) read(id string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept[id] == nil {
		return nil, errForgotten
	}
	d, err := k.shelf.get(id)
	return d.Inspection, err
}

// taken forgets a container whose place another has taken.
func (k *Keeper) taken(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(id)
}
