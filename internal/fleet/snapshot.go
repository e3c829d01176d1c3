package fleet

import (
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"github.com/maruel/natural"
)

// Ref is a container and the node it is on.
type Ref struct {
	Node      *Node
	Container *Container
}

// place is what the indexes hold: nodes are replaced far more often than containers, so it names the node.
type place struct {
	nodeID    string
	container *Container
}

// Snapshot is the fleet at one moment. The zero value is an empty fleet. A Snapshot is never changed; Replace and Without
// make new ones that share what did not change, at a cost that depends on one node and not on the fleet.
type Snapshot struct {
	nodes   []*Node // by ID
	byName  []*Node // by name, in natural order
	ids     *iradix.Tree[[]place]
	names   *iradix.Tree[[]place]
	swarm   *iradix.Tree[[]place] // by com.docker.swarm.id
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
	next.index(old, n)
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
	next.index(old, nil)
	next.count(old, nil)
	return next
}

func (s *Snapshot) copy() *Snapshot {
	next := &Snapshot{
		nodes: slices.Clone(s.nodes), byName: slices.Clone(s.byName),
		ids: s.ids, names: s.names, swarm: s.swarm, version: s.version + 1, images: s.images, versions: s.versions,
	}
	if next.ids == nil {
		next.ids, next.names, next.swarm = iradix.New[[]place](), iradix.New[[]place](), iradix.New[[]place]()
	}
	return next
}

// order keeps byName, moving as little as it can.
func (s *Snapshot) order(old, n *Node) {
	if old != nil {
		i := slices.Index(s.byName, old)
		if n != nil && n.Name == old.Name {
			s.byName[i] = n
			return
		}
		s.byName = slices.Delete(s.byName, i, i+1)
	}
	if n == nil {
		return
	}
	i, _ := slices.BinarySearchFunc(s.byName, n, compareNames)
	s.byName = slices.Insert(s.byName, i, n)
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

// index brings the trees from old's containers to n's. Both lists are in the order of their IDs.
func (s *Snapshot) index(old, n *Node) {
	var was, is []*Container
	var nodeID string
	if old != nil {
		was, nodeID = old.Containers, old.ID
	}
	if n != nil {
		is, nodeID = n.Containers, n.ID
	}
	ids, names, swarm := s.ids.Txn(), s.names.Txn(), s.swarm.Txn()
	drop := func(c *Container) {
		remove(ids, c.ID, place{nodeID, c})
		remove(names, c.Name, place{nodeID, c})
		if id := c.Labels[LabelSwarmID]; id != "" {
			remove(swarm, id, place{nodeID, c})
		}
	}
	put := func(c *Container) {
		insert(ids, c.ID, place{nodeID, c})
		insert(names, c.Name, place{nodeID, c})
		if id := c.Labels[LabelSwarmID]; id != "" {
			insert(swarm, id, place{nodeID, c})
		}
	}
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(is) == 0 || len(was) > 0 && was[0].ID < is[0].ID:
			drop(was[0])
			was = was[1:]
		case len(was) == 0 || is[0].ID < was[0].ID:
			put(is[0])
			is = is[1:]
		default:
			if was[0] != is[0] {
				drop(was[0])
				put(is[0])
			}
			was, is = was[1:], is[1:]
		}
	}
	s.ids, s.names, s.swarm = ids.Commit(), names.Commit(), swarm.Commit()
}

func insert(t *iradix.Txn[[]place], key string, p place) {
	had, _ := t.Get([]byte(key))
	t.Insert([]byte(key), append(slices.Clip(had), p))
}

// remove takes that very container away: while a rename is on its way, two of one node may have one name.
func remove(t *iradix.Txn[[]place], key string, p place) {
	had, ok := t.Get([]byte(key))
	if !ok {
		return
	}
	kept := make([]place, 0, len(had))
	for _, h := range had {
		if h != p {
			kept = append(kept, h)
		}
	}
	if len(kept) == 0 {
		t.Delete([]byte(key))
		return
	}
	t.Insert([]byte(key), kept)
}
