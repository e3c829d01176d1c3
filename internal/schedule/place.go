package schedule

import (
	"fmt"
	"slices"

	"berth/internal/fleet"
)

// Place returns the node that the request should run on. Otherwise the error is a *NoFit, a *Contradiction, what
// Policy.Check says, or names a reference to a container that is ambiguous.
func Place(v View, r *Request, policy Policy) (*fleet.Node, error) {
	p, err := newPlan(v, r, policy)
	if err != nil {
		return nil, err
	}
	if n := p.best(); n != nil {
		return n, nil
	}
	return nil, p.noFit()
}

// Rank returns all nodes that fit, the one that Place takes first.
func Rank(v View, r *Request, policy Policy) ([]*fleet.Node, error) {
	verdicts, err := Explain(v, r, policy)
	if err != nil {
		return nil, err
	}
	var nodes []*fleet.Node
	for _, verdict := range verdicts {
		if verdict.Fits {
			nodes = append(nodes, verdict.Node)
		}
	}
	if len(nodes) == 0 {
		p, err := newPlan(v, r, policy)
		if err != nil {
			return nil, err
		}
		return nil, p.noFit()
	}
	return nodes, nil
}

// Verdict is what becomes of a request on one node.
type Verdict struct {
	Node *fleet.Node
	Fits bool
	// Why it does not fit, and which filter or check says so.
	Filter, Reason string
	// What the strategy looks at where it fits.
	Wishes, Granted int // soft expressions, and how many of them hold
	Weight          int
	Containers      int
}

// Explain judges every node: those that fit, best first, and then the others by name.
func Explain(v View, r *Request, policy Policy) ([]Verdict, error) {
	p, err := newPlan(v, r, policy)
	if err != nil {
		return nil, err
	}
	var fitting []ranked
	var refused []Verdict
	for i, n := range p.snapshot.Nodes() {
		c := p.candidate(i)
		if s, i := p.refusal(&c); s != nil {
			refused = append(refused, Verdict{Node: n, Filter: s.name, Reason: s.reasons[i].one})
			continue
		}
		fitting = append(fitting, ranked{n, p.score(&c), p.preference(n), p.hash(c.facts.Hash)})
	}
	slices.SortFunc(fitting, ranked.compare)
	var all []Verdict
	for _, f := range fitting {
		all = append(all, Verdict{
			Node: f.node, Fits: true, Wishes: len(p.wishes), Granted: f.granted,
			Weight: f.cost * p.sign, Containers: f.count * p.sign,
		})
	}
	return append(all, refused...), nil
}

// plan is a request made ready to be put to each node.
type plan struct {
	snapshot *fleet.Snapshot
	req      *Request
	loads    loads
	stages   []*stage // in order
	wishes   []test

	strategy
	resources
}

func newPlan(v View, r *Request, policy Policy) (*plan, error) {
	if err := policy.Check(); err != nil {
		return nil, fmt.Errorf("place %s: %w", r.Name, err)
	}
	if v.Snapshot == nil {
		v.Snapshot = &fleet.Snapshot{}
	}
	p := &plan{
		snapshot: v.Snapshot, req: r, loads: newLoads(v),
		strategy: newStrategy(r, policy), resources: newResources(r, policy.Overcommit),
	}
	p.add(stateStage())
	p.add(excludeStage(r))
	p.add(apiStage(r))
	p.add(platformStage(r))
	p.add(overlayStage(p.snapshot, r))
	p.add(tieStage(p.snapshot, r.Ties))
	var deps []dependency
	for _, name := range policy.filters() {
		if name == FilterDependency {
			var err error
			if deps, err = p.dependencies(); err != nil {
				return nil, fmt.Errorf("place %s: %w", r.Name, err)
			}
		}
		p.addFilter(name, deps)
	}
	if err := contradiction(r, p.snapshot, deps); err != nil {
		return nil, err
	}
	if !p.random {
		p.add(memoryStage(p.resources))
		p.add(cpuStage(p.resources))
	}
	return p, nil
}

func (p *plan) add(s *stage) {
	if s != nil {
		p.stages = append(p.stages, s)
	}
}

func (p *plan) addFilter(name string, deps []dependency) {
	switch name {
	case FilterHealth:
		p.add(healthStage())
	case FilterPort:
		p.add(portStage(p.req))
	case FilterSlots:
		p.add(slotsStage())
	case FilterDependency:
		p.add(dependencyStage(deps))
	case FilterAffinity:
		p.add(p.affinityStage())
		p.wish(p.req.Rules.Affinities, p.affinityTest)
	case FilterConstraint:
		p.add(constraintStage(p.req))
		p.wish(p.req.Rules.Constraints, constraintTest)
	case FilterWhitelist:
		p.add(whitelistStage(p.req))
		p.wish(p.req.Rules.Whitelists, whitelistTest)
	}
}

// wish adds the soft expressions.
func (p *plan) wish(exprs []Expr, compile func(Expr) test) {
	for _, e := range exprs {
		if e.Soft {
			p.wishes = append(p.wishes, compile(e))
		}
	}
}

// candidate is the node at that place in the fleet.
func (p *plan) candidate(at int) candidate {
	n := p.snapshot.At(at)
	c := candidate{node: n, facts: n.Facts(), brief: p.snapshot.Brief(at), load: p.loads.at(at)}
	p.measure(&c)
	return c
}

// candidateOf is a node of the fleet.
func (p *plan) candidateOf(n *fleet.Node) candidate {
	at, _ := p.snapshot.Position(n.ID, 0)
	return p.candidate(at)
}

// refusal returns the first stage that refuses the node and which of its reasons, or no stage.
func (p *plan) refusal(c *candidate) (*stage, int) {
	for _, s := range p.stages {
		if i := s.check(c); i != fits {
			return s, i
		}
	}
	return nil, fits
}

func (p *plan) refuses(c *candidate) bool {
	s, _ := p.refusal(c)
	return s != nil
}

// preference is the node's place among the nodes to prefer, or after them.
func (p *plan) preference(n *fleet.Node) int {
	if i := slices.Index(p.req.Prefer, n.ID); i >= 0 && !p.random {
		return i
	}
	return len(p.req.Prefer)
}
