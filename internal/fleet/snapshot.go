package fleet

import (
	"slices"
	"strings"
	"unique"

	"github.com/maruel/natural"
)

// Ref is a container and the node it is on.
type Ref struct {
	Node      *Node
	Container *Container
}

// Snapshot is the fleet at one moment. The zero value is an empty fleet. A Snapshot is never changed; Replace and Without
// make new ones that share what did not change, at a cost that depends on one node and not on the fleet.
type Snapshot struct {
	nodes   []*Node // by ID
	byName  []*Node // by name, in natural order
	unwell  []*Node // those that do not answer, by name
	ids     index   // by the beginning of the containers' IDs
	names   index   // by the hash of their names, and of their aliases
	swarm   index   // by the beginning of com.docker.swarm.id
	version uint64
	images  uint64 // the version that changed images last
	// versions is over all nodes.
	versions Versions
}

// Version grows with every change.
func (s *Snapshot) Version() uint64 { return s.version }

// ImagesVersion grows when the images of a node change, or whether it answers: what a reference means may then be another.
func (s *Snapshot) ImagesVersion() uint64 { return s.images }

// Nodes lists the nodes by name in natural order. The slice must not be changed.
func (s *Snapshot) Nodes() []*Node { return s.byName }

// Unwell lists the nodes that do not answer, in the order of Nodes. The slice must not be changed.
func (s *Snapshot) Unwell() []*Node { return s.unwell }

// Node returns the node of that ID.
func (s *Snapshot) Node(id string) (*Node, bool) {
	i, ok := slices.BinarySearchFunc(s.nodes, id, func(n *Node, id string) int { return strings.Compare(n.ID, id) })
	if !ok {
		return nil, false
	}
	return s.nodes[i], true
}

// NodeByName returns the node of that name, or whose node ID or engine ID it is.
func (s *Snapshot) NodeByName(name string) (*Node, bool) {
	for _, n := range s.byName {
		if n.Name == name || n.ID == name {
			return n, true
		}
	}
	for _, n := range s.byName {
		if n.EngineID == name && name != "" {
			return n, true
		}
	}
	return nil, false
}

// Containers counts the containers of all nodes.
func (s *Snapshot) Containers() int {
	n := 0
	for _, node := range s.nodes {
		n += len(node.Containers)
	}
	return n
}

// Replace puts n in the place of the node with its ID, or adds it.
func (s *Snapshot) Replace(n *Node) *Snapshot {
	next := s.copy()
	i, ok := slices.BinarySearchFunc(next.nodes, n.ID, func(m *Node, id string) int { return strings.Compare(m.ID, id) })
	var old *Node
	if ok {
		old = next.nodes[i]
		next.nodes[i] = n
	} else {
		next.nodes = slices.Insert(next.nodes, i, n)
	}
	if old == nil || !same(old.Images, n.Images) || old.State != n.State || old.Name != n.Name || old.StorageDriver != n.StorageDriver {
		next.images = next.version
	}
	next.order(old, n)
	next.reindex(old, n)
	next.count(old, n)
	return next
}

// Without takes the node of that ID away.
func (s *Snapshot) Without(id string) *Snapshot {
	old, ok := s.Node(id)
	if !ok {
		return s
	}
	next := s.copy()
	next.images = next.version
	next.nodes = slices.DeleteFunc(next.nodes, func(m *Node) bool { return m.ID == id })
	next.order(old, nil)
	next.reindex(old, nil)
	next.count(old, nil)
	return next
}

func (s *Snapshot) copy() *Snapshot {
	next := *s
	next.nodes, next.byName = slices.Clone(s.nodes), slices.Clone(s.byName)
	next.version++
	return &next
}

// order keeps byName and unwell, moving as little as it can.
func (s *Snapshot) order(old, n *Node) {
	s.byName = ordered(s.byName, old, n)
	ill := func(n *Node) *Node {
		if n == nil || n.State == Healthy {
			return nil
		}
		return n
	}
	if was, is := ill(old), ill(n); was != nil || is != nil {
		s.unwell = ordered(slices.Clone(s.unwell), was, is)
	}
}

// ordered takes old out of the nodes, which are in order and may be changed, and puts n in. Either may be nil.
func ordered(nodes []*Node, old, n *Node) []*Node {
	if old != nil {
		i, _ := slices.BinarySearchFunc(nodes, old, compareNames)
		if n != nil && n.Name == old.Name && n.ID == old.ID {
			nodes[i] = n
			return nodes
		}
		nodes = slices.Delete(nodes, i, i+1)
	}
	if n == nil {
		return nodes
	}
	i, _ := slices.BinarySearchFunc(nodes, n, compareNames)
	return slices.Insert(nodes, i, n)
}

func compareNames(a, b *Node) int {
	switch {
	case natural.Less(a.Name, b.Name):
		return -1
	case natural.Less(b.Name, a.Name):
		return 1
	}
	return strings.Compare(a.ID, b.ID)
}

// reindex brings the indexes from old's containers to n's. Both lists are in the order of their IDs.
func (s *Snapshot) reindex(old, n *Node) {
	var was, is []*Container
	var drop, put edits
	if old != nil {
		was, drop.node = old.Containers, unique.Make(old.ID)
	}
	if n != nil {
		is, put.node = n.Containers, unique.Make(n.ID)
	}
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(is) == 0 || len(was) > 0 && was[0].ID < is[0].ID:
			drop.add(was[0])
			was = was[1:]
		case len(was) == 0 || is[0].ID < was[0].ID:
			put.add(is[0])
			is = is[1:]
		default:
			if !sameKeys(was[0], is[0]) {
				drop.add(was[0])
				put.add(is[0])
			}
			was, is = was[1:], is[1:]
		}
	}
	s.ids, s.names, s.swarm = s.ids.edit(drop.ids, put.ids), s.names.edit(drop.names, put.names), s.swarm.edit(drop.swarm, put.swarm)
}

// sameKeys tells whether two versions of a container stand in the same places of all indexes.
func sameKeys(a, b *Container) bool {
	return a == b || a.Name == b.Name && slices.Equal(a.Aliases, b.Aliases) && a.Labels.Get(LabelSwarmID) == b.Labels.Get(LabelSwarmID)
}

// edits are entries of one node for each of the indexes.
type edits struct {
	node              Text
	ids, names, swarm []entry
}

func (e *edits) add(c *Container) {
	id := beginning(c.ID)
	e.ids = append(e.ids, entry{id, id, e.node})
	e.names = append(e.names, entry{fnv(c.Name), id, e.node})
	for _, a := range c.Aliases {
		e.names = append(e.names, entry{fnv(a), id, e.node})
	}
	if swarm := c.Labels.Get(LabelSwarmID); swarm != "" {
		e.swarm = append(e.swarm, entry{beginning(swarm), id, e.node})
	}
}
