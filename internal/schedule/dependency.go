package schedule

import (
	"errors"
	"fmt"
	"strings"

	"berth/internal/fleet"
)

// dependency is a container that must be on the same node.
type dependency struct {
	flag string // as classic Swarm spells it
	ref  string
	on   map[*fleet.Node]bool
}

func (d dependency) what() string { return "container " + d.ref }

// dependencies finds the nodes of the containers that the request leans on.
func (p *plan) dependencies() ([]dependency, error) {
	var all []dependency
	for _, group := range []struct {
		flag string
		refs []string
	}{
		{"--volumes-from=", p.req.VolumesFrom}, {"--link=", p.req.Links}, {"--net=container:", p.req.Shares},
	} {
		for _, ref := range group.refs {
			name, _, _ := strings.Cut(ref, ":")
			on, err := p.find(name)
			if err != nil {
				return nil, fmt.Errorf("%s%s: %w", group.flag, ref, err)
			}
			all = append(all, dependency{group.flag + ref, name, on})
		}
	}
	return all, nil
}

// find returns the nodes where a reference means a container. A name may be on several, when a node came back.
func (p *plan) find(ref string) (map[*fleet.Node]bool, error) {
	on := p.named(strings.TrimPrefix(ref, "/"))
	if len(on) > 0 {
		return on, nil
	}
	found, err := p.snapshot.Container(ref)
	var missing *fleet.NotFoundError
	switch {
	case errors.As(err, &missing):
		return map[*fleet.Node]bool{}, nil
	case err != nil:
		return nil, err
	}
	return map[*fleet.Node]bool{found.Node: true}, nil
}

// named returns the nodes that have a container of that name, or a create of it in flight.
func (p *plan) named(name string) map[*fleet.Node]bool {
	on := map[*fleet.Node]bool{}
	for _, ref := range p.snapshot.Named(name) {
		on[ref.Node] = true
	}
	for i := range p.snapshot.Len() {
		if p.loads.at(i).any(func(o *Request) bool { return o.Name == name && name != "" }) {
			on[p.snapshot.At(i)] = true
		}
	}
	return on
}

func dependencyStage(all []dependency) *stage {
	if len(all) == 0 {
		return nil
	}
	s := &stage{name: FilterDependency}
	for _, d := range all {
		s.reasons = append(s.reasons, reason{"lacks " + d.what(), "lack " + d.what()})
		s.classic = append(s.classic, d.flag)
	}
	s.check = func(c *candidate) int {
		for i := range all {
			if !all[i].on[c.node] {
				return i
			}
		}
		return fits
	}
	return s
}

// contradiction finds two ties, or a tie and a dependency, that no node can satisfy together. A dependency that is nowhere
// contradicts nothing: it is lacking.
func contradiction(r *Request, s *fleet.Snapshot, deps []dependency) error {
	if len(r.Ties)+len(deps) < 2 {
		return nil
	}
	type home struct {
		what string
		ids  []string
	}
	var homes []home
	for _, t := range r.Ties {
		homes = append(homes, home{t.What, t.NodeIDs})
	}
	for _, d := range deps {
		var ids []string
		for _, n := range s.Nodes() {
			if d.on[n] {
				ids = append(ids, n.ID)
			}
		}
		homes = append(homes, home{d.what(), ids})
	}
	for i, a := range homes {
		for _, b := range homes[:i] {
			if len(a.ids) > 0 && len(b.ids) > 0 && disjoint(a.ids, b.ids) {
				return &Contradiction{
					Name: r.Name, One: b.what, OneNodes: nodeNames(s, b.ids), Other: a.what, OtherNodes: nodeNames(s, a.ids),
				}
			}
		}
	}
	return nil
}

func disjoint(a, b []string) bool {
	in := make(map[string]bool, len(a))
	for _, id := range a {
		in[id] = true
	}
	for _, id := range b {
		if in[id] {
			return false
		}
	}
	return true
}
