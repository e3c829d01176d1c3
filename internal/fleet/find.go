package fleet

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// NotFoundError says that no node holds the object. Its text is the engine's.
type NotFoundError struct {
	Kind Kind
	Ref  string
}

func (e *NotFoundError) Error() string {
	switch e.Kind {
	case KindNetwork:
		return "network " + e.Ref + " not found"
	case KindVolume:
		return "get " + e.Ref + ": no such volume"
	}
	return "No such " + string(e.Kind) + ": " + e.Ref
}

// NotFound makes it errdefs.ErrNotFound.
func (e *NotFoundError) NotFound() {}

// AmbiguousError says that a reference means more than one object.
type AmbiguousError struct {
	Kind Kind
	Ref  string
	// Names are the matches as node/name, empty if they differ by ID only.
	Names []string
	Count int
}

func (e *AmbiguousError) Error() string {
	switch {
	case e.Kind == KindNetwork:
		s := fmt.Sprintf("network %s is ambiguous (%d matches found on name)", e.Ref, e.Count)
		if len(e.Names) > 0 {
			s += ": " + strings.Join(e.Names, ", ")
		}
		return s
	case len(e.Names) > 0:
		return fmt.Sprintf("%s %s is ambiguous: %s", e.Kind, e.Ref, strings.Join(e.Names, ", "))
	}
	return "multiple IDs found with provided prefix: " + e.Ref
}

// InvalidParameter makes it errdefs.ErrInvalidArgument.
func (e *AmbiguousError) InvalidParameter() {}

// Container finds a container by full ID, name, node/name, or unique ID prefix, in this order as an engine does, and last
// by its Swarm ID or a unique prefix of it.
func (s *Snapshot) Container(ref string) (Ref, error) {
	none := &NotFoundError{KindContainer, ref}
	if ref == "" {
		return Ref{}, none
	}
	if found := s.withID(ref, true, math.MaxInt); len(found) > 0 {
		return one(ref, found)
	}
	name := strings.TrimPrefix(ref, "/")
	if found := s.Named(name); len(found) > 0 {
		return one(ref, found)
	}
	if r, ok := s.qualified(name); ok {
		return r, nil
	}
	// More than two are not needed to know that a prefix is not unique.
	for _, found := range [][]Ref{s.withID(ref, false, 2), s.bySwarmID(ref, false, 2)} {
		switch {
		case len(found) > 1:
			return Ref{}, &AmbiguousError{Kind: KindContainer, Ref: ref, Count: len(found)}
		case len(found) == 1:
			return found[0], nil
		}
	}
	return Ref{}, none
}

// withID finds up to most containers by their ID, or by its beginning, in the order of their IDs.
func (s *Snapshot) withID(ref string, whole bool, most int) []Ref {
	first, last := keysOf(ref, whole)
	return s.search(s.ids, first, last, most, func(_ uint64, c *Container) bool { return matches(c.ID, ref, whole) })
}

func (s *Snapshot) bySwarmID(ref string, whole bool, most int) []Ref {
	first, last := keysOf(ref, whole)
	return s.search(s.swarm, first, last, most, func(key uint64, c *Container) bool {
		id := c.Labels.Get(LabelSwarmID)
		return matches(id, ref, whole) && beginning(id) == key // the entry may be of another that begins alike
	})
}

func keysOf(ref string, whole bool) (first, last uint64) {
	if whole {
		return beginning(ref), beginning(ref)
	}
	return within(ref)
}

func matches(id, ref string, whole bool) bool {
	if whole {
		return id == ref
	}
	return strings.HasPrefix(id, ref)
}

// search finds the containers that an index has under some keys and that match, at most so many.
func (s *Snapshot) search(x index, first, last uint64, most int, match func(key uint64, c *Container) bool) []Ref {
	var found []Ref
	x.from(first, last, func(e entry) bool {
		n, _ := s.Node(e.node.Value()) // Replace and Without keep nodes and indexes together
		for _, c := range n.beginning(e.id) {
			if len(found) < most && match(e.key, c) {
				found = append(found, Ref{n, c})
			}
		}
		return len(found) < most
	})
	return found
}

func one(ref string, found []Ref) (Ref, error) {
	if len(found) == 1 {
		return found[0], nil
	}
	e := &AmbiguousError{Kind: KindContainer, Ref: ref, Count: len(found)}
	for _, f := range found {
		e.Names = append(e.Names, f.Node.Name+"/"+f.Container.Name)
	}
	return Ref{}, e
}

// qualified finds node/ref, where ref is a name, an ID or a unique prefix on that node.
func (s *Snapshot) qualified(ref string) (Ref, bool) {
	node, rest, ok := strings.Cut(ref, "/")
	if !ok || rest == "" {
		return Ref{}, false
	}
	n, ok := s.NodeByName(node)
	if !ok {
		return Ref{}, false
	}
	var match *Container
	matches := 0
	for _, c := range n.Containers {
		switch {
		case c.Name == rest || c.ID == rest:
			return Ref{n, c}, true
		case strings.HasPrefix(c.ID, rest):
			match = c
			matches++
		}
	}
	return Ref{n, match}, matches == 1
}

// Named returns every container of that name, of which there should be at most one.
func (s *Snapshot) Named(name string) []Ref {
	return s.search(s.names, fnv(name), fnv(name), math.MaxInt, func(_ uint64, c *Container) bool { return c.Name == name })
}

// Called returns every container that has the name, or has it as an alias.
func (s *Snapshot) Called(name string) []Ref {
	return s.search(s.names, fnv(name), fnv(name), math.MaxInt, func(_ uint64, c *Container) bool {
		return c.Name == name || slices.Contains(c.Aliases, name)
	})
}

// WithID returns the containers whose IDs begin so, at most so many, in the order of their IDs.
func (s *Snapshot) WithID(prefix string, most int) []Ref { return s.withID(prefix, false, most) }

// WithSwarmID returns every container with that Swarm ID.
func (s *Snapshot) WithSwarmID(id string) []Ref {
	if id == "" {
		return nil
	}
	return s.bySwarmID(id, true, math.MaxInt)
}

// Find returns a node's container by its full ID.
func (n *Node) Find(id string) (*Container, bool) {
	i, ok := slices.BinarySearchFunc(n.Containers, id, func(c *Container, id string) int { return strings.Compare(c.ID, id) })
	if !ok {
		return nil, false
	}
	return n.Containers[i], true
}

// beginning are the node's containers whose IDs begin with that number.
func (n *Node) beginning(id uint64) []*Container {
	i, _ := slices.BinarySearchFunc(n.Containers, id, func(c *Container, id uint64) int { return cmp.Compare(beginning(c.ID), id) })
	end := i
	for end < len(n.Containers) && beginning(n.Containers[end].ID) == id {
		end++
	}
	return n.Containers[i:end]
}
