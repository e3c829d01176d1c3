package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// youth is how long a network or volume that nobody used may still move.
const youth = 10 * time.Minute

const (
	labelSession   = "org.testcontainers.sessionId"
	labelDevFolder = "devcontainer.local_folder"
)

// groupOf names the group that an object with these labels belongs to; "" is none.
func groupOf(labels map[string]string) string {
	return groupBy(func(key string) string { return labels[key] })
}

func groupBy(label func(key string) string) string {
	for _, key := range []string{fleet.LabelGroup, labelSession, labelDevFolder, fleet.LabelProject} {
		if v := label(key); v != "" {
			return key + "=" + v
		}
	}
	return ""
}

// gathers tells whether a group's containers live together even if nothing ties them: the helpers of a Testcontainers or
// dev-container session talk to the engine of their own node. A Compose project's containers spread.
func gathers(group string) bool {
	return group != "" && !strings.HasPrefix(group, fleet.LabelProject+"=")
}

// object names a network or a volume.
type object struct {
	kind fleet.Kind
	name string
}

func (o object) String() string { return string(o.kind) + " " + o.name }

// young is a network or volume that was made here and that no container has used, so it may still move. It is not changed
// once it is in the map; a move puts another in its place.
type young struct {
	object
	key     string // of its lock, which guards its whole group
	node    string // ID
	mark    string // tells it from a later one of that name: a network's ID, a volume's time of creation
	made    bool   // its engine has made it
	stays   bool   // the client named its node; once made it is forgotten here
	since   time.Time
	version string // of the API that the body speaks
	body    []byte // that made it
	rules   schedule.Rules
	needs   []need
}

// groups keep together what belongs together.
//
// Where a group lives follows from the labels of the fleet's objects, so every manager sees the same. Kept here are the
// locks under which homes are chosen, and the young. A manager that was restarted moves nothing that it did not make.
type groups struct {
	locks *locks

	mu     sync.Mutex
	young  map[object]*young
	moving map[string]chan struct{} // names and IDs that are between two nodes; closed when they have arrived
	moves  int                      // counts departures and arrivals
	moved  map[string]string        // a moved network's ID → the one it has now
}

func newGroups() *groups {
	return &groups{locks: newLocks(), young: map[object]*young{}, moving: map[string]chan struct{}{}, moved: map[string]string{}}
}

// lockKey is the name of the lock that guards where an object lives.
func lockKey(group string, o object) string {
	if group != "" {
		return group
	}
	return o.String()
}

// youngAt returns the record of an object if it may still move, judged by the picture of the fleet.
func (g *groups) youngAt(snap *fleet.Snapshot, o object, now time.Time) *young {
	g.mu.Lock()
	defer g.mu.Unlock()
	y := g.young[o]
	if y == nil || !y.made {
		return nil
	}
	n, ok := snap.Node(y.node)
	if !ok || markOf(n, o) != y.mark {
		return nil // the picture may be older than the record
	}
	if now.Sub(y.since) > youth || inUse(n, y) {
		delete(g.young, o)
		return nil
	}
	return y
}

// markOf is the mark of the object as the node now has it.
func markOf(n *fleet.Node, o object) string {
	if o.kind == fleet.KindNetwork {
		for _, w := range n.Networks {
			if w.Name == o.name {
				return w.ID
			}
		}
		return ""
	}
	for _, v := range n.Volumes {
		if v.Name == o.name {
			return v.CreatedAt
		}
	}
	return ""
}

func inUse(n *fleet.Node, y *young) bool {
	return slices.ContainsFunc(n.Containers, func(c *fleet.Container) bool {
		if y.kind == fleet.KindVolume {
			return hasVolume(c, y.name)
		}
		for _, a := range c.Networks {
			if a.Name == y.name || a.Name == y.mark || a.NetworkID == y.mark {
				return true
			}
		}
		return false
	})
}

func hasVolume(c *fleet.Container, name string) bool {
	return slices.ContainsFunc(c.Mounts, func(m fleet.Mount) bool { return m.Type == "volume" && m.Name == name })
}

// used ends the youth of objects.
func (g *groups) used(os ...object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range os {
		delete(g.young, o)
	}
}

// gone forgets a removed object.
func (g *groups) gone(o object, id string) {
	g.used(o)
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.moved, func(_, now string) bool { return now == id })
}

// choose places what is to be made and notes it in the same step, so that of many homes chosen at once each sees those
// before it: one that has no container yet counts as one container.
func (g *groups) choose(s *Server, req *schedule.Request, y *young) (*fleet.Node, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	view := s.fleet.View()
	counted := map[string]bool{}
	for o, other := range g.young {
		if s.o.Now().Sub(other.since) > youth {
			delete(g.young, o)
			continue
		}
		if at := other.key + "\n" + other.node; !counted[at] {
			counted[at] = true
			view.Pending = append(view.Pending, schedule.Pending{NodeID: other.node, Request: &schedule.Request{}})
		}
	}
	n, err := schedule.Place(view, req, s.fleet.Policy())
	if err == nil && y.name != "" {
		noted := *y
		noted.node = n.ID
		g.young[y.object] = &noted
	}
	return n, err
}

// born notes that the engine has made what choose placed.
func (g *groups) born(snap *fleet.Snapshot, y *young, n *fleet.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, ok := snap.Node(n.ID)
	if !ok || y.stays || markOf(now, y.object) == "" {
		delete(g.young, y.object) // what is not seen yet stays where it is, too
		return
	}
	noted := *y
	noted.node, noted.made, noted.mark = n.ID, true, markOf(now, y.object)
	g.young[y.object] = &noted
}

// members are a group's objects in the fleet that have a home.
type members struct {
	fixed []string // IDs of the nodes of those that cannot move
	young []*young // the others
}

// nodes is where the group is.
func (m members) nodes() []string {
	ids := slices.Clone(m.fixed)
	for _, y := range m.young {
		ids = append(ids, y.node)
	}
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}

// movable are those that would all have to move together; none if one of the group cannot.
func (m members) movable() []*young {
	if len(m.fixed) > 0 {
		return nil
	}
	return m.young
}

// members looks through the fleet. Containers count only where the group gathers.
func (g *groups) members(snap *fleet.Snapshot, group string, now time.Time) members {
	var m members
	add := func(n *fleet.Node, o object, scope string, labels map[string]string) {
		if scope != "local" || groupOf(labels) != group {
			return
		}
		if y := g.youngAt(snap, o, now); y != nil && y.node == n.ID {
			m.young = append(m.young, y)
		} else {
			m.fixed = append(m.fixed, n.ID)
		}
	}
	for _, n := range snap.Nodes() {
		for _, w := range n.Networks {
			add(n, object{fleet.KindNetwork, w.Name}, w.Scope, w.Labels)
		}
		for _, v := range n.Volumes {
			add(n, object{fleet.KindVolume, v.Name}, v.Scope, v.Labels)
		}
		if gathers(group) && hasMember(n, group) {
			m.fixed = append(m.fixed, n.ID)
		}
	}
	return m
}

// hasMember tells whether a container of the node belongs to the group. The values that the node keeps of the group's label
// pass over most nodes.
func hasMember(n *fleet.Node, group string) bool {
	key, value, _ := strings.Cut(group, "=")
	return slices.Contains(n.Facts().LabelValues(unique.Make(key)), unique.Make(value)) &&
		slices.ContainsFunc(n.Containers, func(c *fleet.Container) bool { return groupBy(c.Labels.Get) == group })
}

// place makes a container's request follow what it uses and its group. Until done is called nothing of that can move, and
// nobody else can be the first to use it.
func (g *groups) place(ctx context.Context, s *Server, c *creation, req *schedule.Request) (done func(), err error) {
	for {
		bonds, _, err := s.bonds(ctx, c)
		if err != nil {
			return nil, err
		}
		keys := keysOf(bonds)
		if len(keys) == 0 {
			req.Ties = append(slices.Clone(c.pins), tiesOf(bonds)...)
			return func() {}, nil
		}
		release, err := g.locks.take(ctx, keys)
		if err != nil {
			return nil, err
		}
		// What was seen before the locks were had may not be so any more.
		bonds, _, err = s.bonds(ctx, c)
		if err == nil && !covers(keys, keysOf(bonds)) {
			release()
			continue
		}
		if err == nil {
			err = s.settle(ctx, req, c.pins, bonds, s.fleet.Place)
		}
		if err != nil {
			release()
			return nil, err
		}
		return release, nil
	}
}

func covers(have, need []string) bool {
	return !slices.ContainsFunc(need, func(k string) bool { return !slices.Contains(have, k) })
}

// settle sets the request's ties so that it fits, moving the young if there is no other way. The locks of the bonds are held.
func (s *Server) settle(ctx context.Context, req *schedule.Request, pins []schedule.Tie, bonds []bond, place func(*schedule.Request) (*fleet.Node, error)) error {
	req.Ties = append(slices.Clone(pins), tiesOf(bonds)...)
	_, err := place(req)
	if err == nil || !isRefusal(err) {
		return err
	}
	free := *req
	free.Ties = slices.Clone(pins)
	var movers []*young
	for _, b := range bonds {
		if len(b.movable) == 0 || s.touched(ctx, b.movable) {
			free.Ties = append(free.Ties, tiesOf([]bond{b})...)
			continue
		}
		for _, y := range b.movable {
			free.Rules = free.Rules.Merge(y.rules)
			if err := s.require(&free, y.version, y.needs); err != nil {
				return err
			}
			movers = append(movers, y)
		}
	}
	if len(movers) == 0 {
		return err
	}
	n, err := place(&free)
	if err != nil {
		return err
	}
	if err := s.moveAll(ctx, movers, n); err != nil {
		return unavailable(err.Error()) // not an engine's 404, upon which clients pull
	}
	for _, b := range bonds {
		if len(b.movable) > 0 && b.tie.What != "" {
			free.Ties = append(free.Ties, schedule.Tie{What: b.tie.What, NodeIDs: []string{n.ID}})
		}
	}
	req.Ties = free.Ties
	return nil
}

// isRefusal tells whether another home could help.
func isRefusal(err error) bool {
	var no *schedule.NoFit
	var against *schedule.Contradiction
	return errors.As(err, &no) || errors.As(err, &against)
}
