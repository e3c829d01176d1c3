package fleet

import (
	"fmt"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
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
	if ref == "" || s.ids == nil {
		return Ref{}, none
	}
	if ps, ok := s.ids.Get([]byte(ref)); ok {
		return s.one(ref, ps)
	}
	name := strings.TrimPrefix(ref, "/")
	if ps, ok := s.names.Get([]byte(name)); ok {
		return s.one(ref, ps)
	}
	if r, ok := s.qualified(name); ok {
		return r, nil
	}
	for _, t := range []*iradix.Tree[[]place]{s.ids, s.swarm} {
		if ps := withPrefix(t, ref); len(ps) > 0 {
			if len(ps) > 1 {
				return Ref{}, &AmbiguousError{Kind: KindContainer, Ref: ref, Count: len(ps)}
			}
			return s.ref(ps[0]), nil
		}
	}
	return Ref{}, none
}

// withPrefix collects at most two containers under a prefix: more are not needed to know that it is not unique.
func withPrefix(t *iradix.Tree[[]place], prefix string) []place {
	var found []place
	t.Root().WalkPrefix([]byte(prefix), func(_ []byte, ps []place) bool {
		found = append(found, ps...)
		return len(found) > 1
	})
	return found
}

func (s *Snapshot) one(ref string, ps []place) (Ref, error) {
	if len(ps) == 1 {
		return s.ref(ps[0]), nil
	}
	e := &AmbiguousError{Kind: KindContainer, Ref: ref, Count: len(ps)}
	for _, p := range ps {
		if n, ok := s.Node(p.nodeID); ok {
			e.Names = append(e.Names, n.Name+"/"+p.container.Name)
		}
	}
	return Ref{}, e
}

func (s *Snapshot) ref(p place) Ref {
	n, _ := s.Node(p.nodeID) // Replace and Without keep nodes and indexes together
	return Ref{n, p.container}
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
	if s.names == nil {
		return nil
	}
	ps, _ := s.names.Get([]byte(name))
	return s.refs(ps)
}

// WithSwarmID returns every container with that Swarm ID.
func (s *Snapshot) WithSwarmID(id string) []Ref {
	if s.swarm == nil || id == "" {
		return nil
	}
	ps, _ := s.swarm.Get([]byte(id))
	return s.refs(ps)
}

func (s *Snapshot) refs(ps []place) []Ref {
	var out []Ref
	for _, p := range ps {
		out = append(out, s.ref(p))
	}
	return out
}

// Find returns a node's container by its full ID.
func (n *Node) Find(id string) (*Container, bool) {
	lo, hi := 0, len(n.Containers)
	for lo < hi {
		mid := (lo + hi) / 2
		if n.Containers[mid].ID < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(n.Containers) && n.Containers[lo].ID == id {
		return n.Containers[lo], true
	}
	return nil, false
}
