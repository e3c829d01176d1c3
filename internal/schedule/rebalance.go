package schedule

import (
	"cmp"
	"fmt"
	"slices"

	"berth/internal/fleet"
)

// Movable is a container that may move, and what it asks of a node.
type Movable struct {
	NodeID  string // where it is
	ID      string
	Request *Request
}

// Shift is a container that would be better off on another node.
type Shift struct {
	Movable
	To  *fleet.Node
	Why string
}

// tremor is how many percent of memory and CPUs are too few to move a container for.
const tremor = 2

// Rebalance evens a fleet out by the strategy's own score: it returns at most limit shifts, the one that helps most first, each
// worked out with those before it done. A shift is worth it only if the container, were it new, would be placed elsewhere with a
// better score than where it is, so a fleet that is even needs none. No container moves twice. Random wants nothing.
func Rebalance(v View, movable []Movable, policy Policy, limit int) ([]Shift, error) {
	if err := policy.Check(); err != nil {
		return nil, fmt.Errorf("rebalance: %w", err)
	}
	if policy.strategy() == Random || v.Snapshot == nil {
		return nil, nil
	}
	left := slices.Clone(movable)
	slices.SortFunc(left, func(a, b Movable) int { return cmp.Or(cmp.Compare(a.NodeID, b.NodeID), cmp.Compare(a.ID, b.ID)) })
	v.Pending = slices.Clone(v.Pending)
	var plan []Shift
	for len(plan) < limit {
		best, at := proposal{}, -1
		for i, m := range left {
			p, err := propose(v, m, policy)
			if err != nil {
				return nil, err
			}
			if p.to != nil && (at < 0 || p.beats(best)) {
				best, at = p, i
			}
		}
		if at < 0 {
			break
		}
		m := left[at]
		left = slices.Delete(left, at, at+1)
		plan = append(plan, Shift{m, best.to, best.why})
		v.Snapshot = gone(v.Snapshot, m)
		v.Pending = append(v.Pending, Pending{NodeID: best.to.ID, Request: m.Request})
	}
	return plan, nil
}

// proposal is where a container would be better off, and how much: wishes granted, percent, containers. A container whose node
// no longer fits it comes first.
type proposal struct {
	to      *fleet.Node
	misfit  bool
	granted int
	cost    int
	count   int
	why     string
}

func (p proposal) beats(o proposal) bool {
	if p.misfit != o.misfit {
		return p.misfit
	}
	return cmp.Or(cmp.Compare(p.granted, o.granted), cmp.Compare(p.cost, o.cost), cmp.Compare(p.count, o.count)) > 0
}

// propose places a container as if it were new. Without a gain, to is nil.
func propose(v View, m Movable, policy Policy) (proposal, error) {
	v.Snapshot = gone(v.Snapshot, m)
	now, ok := v.Snapshot.Node(m.NodeID)
	if !ok || now.State != fleet.Healthy || !now.Takes() {
		return proposal{}, nil
	}
	p, err := newPlan(v, m.Request, policy)
	if err != nil {
		return proposal{}, nil //nolint:nilerr // what contradicts itself by now stays where it is
	}
	to := p.best()
	if to == nil || to.ID == m.NodeID {
		return proposal{}, nil
	}
	here, there := p.candidateOf(now), p.candidateOf(to)
	if s, i := p.refusal(&here); s != nil {
		return proposal{to: to, misfit: true, why: fmt.Sprintf("%s %s", now.Name, s.reasons[i].one)}, nil
	}
	is, better := p.score(&here), p.score(&there)
	gain := proposal{to: to, granted: better.granted - is.granted, cost: is.cost - better.cost, count: is.count - better.count}
	switch {
	case gain.granted > 0:
		gain.why = fmt.Sprintf("%s grants %d more of its soft expressions", to.Name, gain.granted)
	case gain.granted == 0 && gain.cost >= tremor:
		gain.why = fmt.Sprintf("%s would have %d %% of its memory and CPUs given away, %s %d %%", to.Name, p.given(&there), now.Name, p.given(&here))
	case gain.granted == 0 && gain.cost > -tremor && gain.cost < tremor && gain.count > 0:
		gain.cost = 0
		gain.why = fmt.Sprintf("%s has %d containers besides, %s %d", now.Name, p.count(&here), to.Name, p.count(&there))
	default:
		return proposal{}, nil
	}
	return gain, nil
}

// given is the larger of the two shares of a node that would be given away, of what is asked for.
func (p *plan) given(c *candidate) int {
	share := 0
	if p.memory > 0 {
		share = percent(c.memory)
	}
	if p.nanoCPUs > 0 {
		share = max(share, percent(c.cpus))
	}
	return share
}

// count is how many containers the strategy sees.
func (p *plan) count(c *candidate) int { return p.promise(c).count * p.sign }

// gone is a snapshot without a container.
func gone(s *fleet.Snapshot, m Movable) *fleet.Snapshot {
	n, ok := s.Node(m.NodeID)
	if !ok {
		return s
	}
	less := *n
	less.Containers = slices.DeleteFunc(slices.Clone(n.Containers), func(c *fleet.Container) bool { return c.ID == m.ID })
	return s.Replace(less.Seal())
}
