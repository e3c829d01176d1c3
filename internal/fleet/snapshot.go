package fleet

import (
	"slices"
	"strings"

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
	byName  roll    // by name, in natural order
	list    *whole  // the same
	byID    []int32 // their places in byName, by ID
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
func (s *Snapshot) Nodes() []*Node {
	if s.list == nil {
		return nil
	}
	return s.list.of(s.byName)
}

// Len is how many nodes there are, and At the node in that place of Nodes. They cost less than Nodes, which makes a list of all if nobody has
// asked for it since the last change.
func (s *Snapshot) Len() int { return s.byName.count }

// At is the node in that place of Nodes.
func (s *Snapshot) At(i int) *Node { return s.byName.at(i) }

// Brief is of the node in that place of Nodes. It must not be changed.
func (s *Snapshot) Brief(i int) *Brief { return s.byName.brief(i) }

// Unwell lists the nodes that do not answer, in the order of Nodes. The slice must not be changed.
func (s *Snapshot) Unwell() []*Node { return s.unwell }

// Node returns the node of that ID.
func (s *Snapshot) Node(id string) (*Node, bool) {
	i, ok := s.rank(id)
	if !ok {
		return nil, false
	}
	return s.byName.at(int(s.byID[i])), true
}

// Position tells which of Nodes has that ID. It looks at a guess first, which saves one who goes through IDs in that order a search for
// each.
func (s *Snapshot) Position(id string, guess int) (int, bool) {
	if guess >= 0 && guess < s.byName.count && s.byName.id(guess) == id {
		return guess, true
	}
	i, ok := s.rank(id)
	if !ok {
		return 0, false
	}
	return int(s.byID[i]), true
}

// rank is where the node is, or would be, in byID.
func (s *Snapshot) rank(id string) (int, bool) {
	return slices.BinarySearchFunc(s.byID, id, func(at int32, id string) int { return strings.Compare(s.byName.id(int(at)), id) })
}

// NodeByName returns the node of that name, or whose node ID or engine ID it is.
func (s *Snapshot) NodeByName(name string) (*Node, bool) {
	for n := range s.byName.all() {
		if n.Name == name || n.ID == name {
			return n, true
		}
	}
	for n := range s.byName.all() {
		if n.EngineID == name && name != "" {
			return n, true
		}
	}
	return nil, false
}

// Containers counts the containers of all nodes.
func (s *Snapshot) Containers() int {
	n := 0
	for node := range s.byName.all() {
		n += len(node.Containers)
	}
	return n
}

// Changed lists the nodes of an older snapshot that are not in this one as they were, and those that are in their place. It is false if there
// are more than most, or if nodes have come or gone.
func (s *Snapshot) Changed(old *Snapshot, most int) (was, is []*Node, few bool) {
	if s.Len() != old.Len() {
		return nil, nil, false
	}
	for i, page := range s.byName.pages {
		before := old.byName.pages[i]
		if page == before {
			continue
		}
		for k, n := range page.nodes {
			if n == before.nodes[k] {
				continue
			}
			if len(is) == most {
				return nil, nil, false
			}
			was, is = append(was, before.nodes[k]), append(is, n)
		}
	}
	return was, is, true
}

// Replace puts n in the place of the node with its ID, or adds it.
func (s *Snapshot) Replace(n *Node) *Snapshot {
	next := s.copy()
	old, _ := s.Node(n.ID)
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
	next.order(old, nil)
	next.reindex(old, nil)
	next.count(old, nil)
	return next
}

func (s *Snapshot) copy() *Snapshot {
	next := *s
	next.list = new(whole)
	next.version++
	return &next
}

// order keeps the lists of nodes, moving as little as it can.
func (s *Snapshot) order(old, n *Node) {
	if old != nil && n != nil && old.Name == n.Name {
		i, _ := s.rank(n.ID)
		s.byName = s.byName.with(int(s.byID[i]), n)
	} else {
		s.byID = slices.Clone(s.byID)
		if old != nil {
			s.takeOut(old)
		}
		if n != nil {
			s.putIn(n)
		}
	}
	ill := func(n *Node) bool { return n != nil && n.State != Healthy }
	if ill(old) || ill(n) {
		s.unwell = slices.DeleteFunc(slices.Clone(s.unwell), func(m *Node) bool { return m == old })
	}
	if ill(n) {
		i, _ := slices.BinarySearchFunc(s.unwell, n, compareNames)
		s.unwell = slices.Insert(s.unwell, i, n)
	}
}

func (s *Snapshot) takeOut(n *Node) {
	i, _ := s.rank(n.ID)
	at := s.byID[i]
	s.byName = newRoll(slices.Delete(slices.Collect(s.byName.all()), int(at), int(at)+1))
	s.byID = slices.Delete(s.byID, i, i+1)
	for k, p := range s.byID {
		if p > at {
			s.byID[k]--
		}
	}
}

func (s *Snapshot) putIn(n *Node) {
	i, _ := s.rank(n.ID)
	nodes := slices.Collect(s.byName.all())
	at, _ := slices.BinarySearchFunc(nodes, n, compareNames)
	s.byName = newRoll(slices.Insert(nodes, at, n))
	for k, p := range s.byID {
		if p >= int32(at) {
			s.byID[k]++
		}
	}
	s.byID = slices.Insert(s.byID, i, int32(at))
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
		was, drop.node = old.Containers, old.Facts().id
	}
	if n != nil {
		is, put.node = n.Containers, n.Facts().id
	}
	differ(was, is, func(gone, came *Container) {
		if gone != nil && came != nil && sameKeys(gone, came) {
			return
		}
		if gone != nil {
			drop.add(gone)
		}
		if came != nil {
			put.add(came)
		}
	})
	s.ids, s.names, s.swarm = s.ids.edit(drop.ids, put.ids), s.names.edit(drop.names, put.names), s.swarm.edit(drop.swarm, put.swarm)
}

// sameKeys tells whether two versions of a container stand in the same places of all indexes.
func sameKeys(a, b *Container) bool {
	return a.Name == b.Name && slices.Equal(a.Aliases, b.Aliases) && a.Labels.Get(LabelSwarmID) == b.Labels.Get(LabelSwarmID)
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
