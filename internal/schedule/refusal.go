package schedule

import (
	"fmt"
	"strings"
)

// NoFit says why no node can take a request. Each node is counted once, under the first thing that spoke against it.
type NoFit struct {
	Name    string
	Nodes   int
	Reasons []Reason // those first that the most other checks were passed for
	// Classic is how classic Swarm would have put it; scripts look for that.
	Classic string
}

// Reason is why some nodes do not fit.
type Reason struct {
	Filter string // the filter's name, or the check's
	Count  int
	Text   string // "lack constraint size==xxl"
}

// Error is one line of ours, such as "no node fits web: 2 of 5 lack constraint size==xxl, 1 has port 80/tcp taken, 2
// unhealthy", and then classic Swarm's.
func (e *NoFit) Error() string {
	var b strings.Builder
	b.WriteString("no node fits")
	if e.Name != "" {
		b.WriteString(" " + e.Name)
	}
	if len(e.Reasons) == 0 {
		b.WriteString(": the fleet has no nodes")
	}
	for i, r := range e.Reasons {
		if i == 0 {
			fmt.Fprintf(&b, ": %d of %d %s", r.Count, e.Nodes, r.Text)
			continue
		}
		fmt.Fprintf(&b, ", %d %s", r.Count, r.Text)
	}
	return b.String() + "\n" + e.Classic
}

// Unavailable makes it errdefs.ErrUnavailable: it may fit later.
func (e *NoFit) Unavailable() {}

// Contradiction says that a request uses two things that are on no node together.
type Contradiction struct {
	Name                 string
	One, Other           string // "network web_default", "container db"
	OneNodes, OtherNodes string // the names of the nodes they are on
}

func (e *Contradiction) Error() string {
	name := e.Name
	if name == "" {
		name = "the container"
	}
	return fmt.Sprintf("no node can run %s: %s is on %s, %s is on %s", name, e.One, e.OneNodes, e.Other, e.OtherNodes)
}

// InvalidParameter makes it errdefs.ErrInvalidArgument.
func (e *Contradiction) InvalidParameter() {}

// noFit counts the refusals. It runs only when there is nothing but refusals.
func (p *plan) noFit() *NoFit {
	counts := make([][]int, len(p.stages))
	for i, s := range p.stages {
		counts[i] = make([]int, len(s.reasons))
	}
	deepest := 0
	for at := range p.snapshot.Nodes() {
		c := p.candidate(at)
		for i, s := range p.stages {
			if why := s.check(&c); why != fits {
				counts[i][why]++
				deepest = max(deepest, i)
				break
			}
		}
	}
	e := &NoFit{Name: p.req.Name, Nodes: len(p.snapshot.Nodes()), Classic: p.classic(deepest)}
	for i := len(p.stages) - 1; i >= 0; i-- {
		for j, count := range counts[i] {
			if count > 0 {
				e.Reasons = append(e.Reasons, Reason{p.stages[i].name, count, p.stages[i].reasons[j].text(count)})
			}
		}
	}
	return e
}

func (r reason) text(count int) string {
	if count == 1 {
		return r.one
	}
	return r.many
}

// classic is classic Swarm's text for a request whose last node was lost at a stage.
func (p *plan) classic(deepest int) string {
	switch p.stages[deepest].name {
	case checkState, FilterHealth:
		return "No healthy node available in the cluster"
	case checkMemory, checkCPUs:
		return "no resources available to schedule container"
	case checkExclude, checkAPI, checkPlatform, checkOverlay, checkTie:
		return "No nodes available in the cluster"
	}
	var b strings.Builder
	b.WriteString("Unable to find a node that satisfies the following conditions ")
	for _, s := range p.stages[:deepest+1] {
		if len(s.classic) > 0 {
			b.WriteString("\n[" + strings.Join(s.classic, " ") + "]")
		}
	}
	return b.String()
}
