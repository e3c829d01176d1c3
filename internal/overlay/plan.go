package overlay

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/fleet"
)

// kind is what a step does.
type kind string

const (
	form    kind = "form"    // the cluster, on a node
	join    kind = "join"    // a node to it
	rejoin  kind = "rejoin"  // a node that the cluster does not know any more
	label   kind = "label"   // the cluster's entry of a node of the fleet
	promote kind = "promote" // an entry to a manager
	demote  kind = "demote"
	remove  kind = "remove" // an entry
)

// step is one thing to do.
type step struct {
	kind   kind
	node   *fleet.Node // of form, join, rejoin and label
	member swarm.Node  // of the others, and label
	why    string
}

func (s step) String() string {
	if s.node != nil {
		return string(s.kind) + " " + s.node.Name
	}
	return string(s.kind) + " " + memberName(s.member)
}

func memberName(m swarm.Node) string {
	if name := m.Spec.Labels[labelNode]; name != "" {
		return name
	}
	return m.Description.Hostname
}

// timers tell how long something has been amiss. What is not asked for in a round is well again.
type timers struct {
	now   time.Time
	since map[string]time.Time
	seen  map[string]bool
}

func (t *timers) of(what string) time.Duration {
	t.seen[what] = true
	if _, known := t.since[what]; !known {
		t.since[what] = t.now
	}
	return t.now.Sub(t.since[what])
}

// end forgets what is well again.
func (t *timers) end() {
	for what := range t.since {
		if !t.seen[what] {
			delete(t.since, what)
		}
	}
}

// plan says what is to be done now, and what must be waited for. It changes nothing but the timers.
func plan(p *picture, grace time.Duration, t *timers) (steps []step, waits []string) {
	c := p.cluster
	switch {
	case c == nil && len(p.headless) > 0:
		return nil, []string{headlessText(p)}
	case c == nil:
		return planForm(p, grace, t)
	case c.speaker == nil && !c.refused:
		return nil, []string{"overlay networks: the managers of the swarm do not answer just now: " + managerNames(c)}
	case !c.quorum():
		return nil, []string{muteText(c)}
	}
	for _, n := range p.healthy() {
		if s, ok := planNode(c, n, grace, t); ok {
			steps = append(steps, s)
		}
	}
	gone := planGone(p, grace, t)
	steps = append(steps, gone...)
	if c.ours && !slices.ContainsFunc(gone, func(s step) bool { return s.kind == demote }) {
		steps = append(steps, planManagers(p, grace, t)...)
	}
	return steps, nil
}

// planForm forms the cluster where no node is in one. Nodes that do not answer may be in one that is only away.
func planForm(p *picture, grace time.Duration, t *timers) ([]step, []string) {
	var able []*fleet.Node
	var silent []string
	for _, n := range p.nodes {
		switch {
		case n.State == fleet.Healthy && n.NoOverlay == "" && n.Swarm.State == "inactive":
			able = append(able, n)
		case n.State != fleet.Healthy && (n.EngineID == "" || n.Swarm.Active()):
			silent = append(silent, n.Name)
		}
	}
	if len(able) == 0 {
		return nil, []string{"overlay networks: no node that answers can form their swarm"}
	}
	if len(silent) > 0 && (t.of("silent") < grace || 2*len(silent) >= len(p.nodes)) {
		return nil, []string{fmt.Sprintf("overlay networks: %s may be in a swarm already and must answer first", strings.Join(silent, ", "))}
	}
	return []step{{kind: form, node: able[0], why: "no node is in a swarm"}}, nil
}

// planNode is what is to be done with a healthy node of the fleet.
func planNode(c *cluster, n *fleet.Node, grace time.Duration, t *timers) (step, bool) {
	if n.NoOverlay != "" {
		return step{}, false
	}
	m, known := c.member(n)
	switch {
	case n.Swarm.State == "inactive":
		return step{kind: join, node: n}, true
	case n.Swarm.State == "pending" || n.Swarm.State == "error":
		// An engine that just started is pending, and one that was removed or cannot find its managers stays so.
		ours, patience := c.ours && (known || c.knows(n)), grace
		if !known {
			patience /= 4 // it was removed
		}
		if ours && t.of("stray "+n.ID) >= patience {
			return step{kind: rejoin, node: n, why: "it is " + n.Swarm.State + " and finds its managers no more"}, true
		}
	case !n.Swarm.Active():
	case !known && c.ours && c.knows(n):
		if t.of("stray "+n.ID) >= grace/4 {
			return step{kind: rejoin, node: n, why: "the swarm does not know it any more"}, true
		}
	case known && c.ours && n.Swarm.Manager && m.Spec.Role == swarm.NodeRoleWorker:
		if t.of("stray "+n.ID) >= grace {
			return step{kind: rejoin, node: n, why: "it takes itself for a manager and is none any more"}, true
		}
	case known && c.ours && m.Spec.Role == swarm.NodeRoleManager && m.ManagerStatus == nil && t.of("stray "+n.ID) >= grace:
		return step{kind: rejoin, node: n, why: "it is to be a manager and becomes none"}, true
	case known && c.ours && (m.Spec.Labels[labelAddr] != n.Addr || m.Spec.Labels[labelNode] != n.Name):
		return step{kind: label, node: n, member: m}, true
	}
	return step{}, false
}

// planGone removes entries that berth labelled and whose nodes the fleet has no more, or that came back as others.
func planGone(p *picture, grace time.Duration, t *timers) []step {
	var steps []step
	for _, m := range p.cluster.members {
		addr := m.Spec.Labels[labelAddr]
		if addr == "" || slices.ContainsFunc(p.nodes, func(n *fleet.Node) bool { return n.Swarm.NodeID == m.ID && n.Swarm.Active() }) {
			continue
		}
		why := ""
		i := slices.IndexFunc(p.nodes, func(n *fleet.Node) bool { return n.Addr == addr })
		switch {
		case i < 0 && t.of("gone "+m.ID) >= grace:
			why = "its node has left the fleet"
		case i >= 0 && p.nodes[i].State == fleet.Healthy && p.nodes[i].Swarm.Active() && p.cluster.has(p.nodes[i]) && m.Status.State != swarm.NodeStateReady:
			why = "its node has joined anew"
		default:
			continue
		}
		if m.ManagerStatus != nil {
			steps = append(steps, step{kind: demote, member: m, why: why})
			continue
		}
		steps = append(steps, step{kind: remove, member: m, why: why})
	}
	return steps
}

func (c *cluster) has(n *fleet.Node) bool {
	_, known := c.member(n)
	return known
}

// wantManagers is how many managers a cluster of so many nodes has: two would lose their quorum with either.
func wantManagers(members int) int {
	switch {
	case members >= 7:
		return 5
	case members >= 3:
		return 3
	}
	return 1
}

// planManagers keeps as many managers as there ought to be, by one step a round.
func planManagers(p *picture, grace time.Duration, t *timers) []step {
	c := p.cluster
	var managers, lost, spare []swarm.Node
	size, settling := 0, false
	for _, m := range c.members {
		n := p.nodeOf(m)
		if n != nil {
			size++
		}
		up := n != nil && n.State == fleet.Healthy && m.Status.State == swarm.NodeStateReady
		switch {
		case m.Spec.Role == swarm.NodeRoleManager && m.ManagerStatus == nil:
			settling = settling || up // it is to be one, and was promoted just now, or left out by a new beginning
		case m.Spec.Role == swarm.NodeRoleManager:
			managers = append(managers, m)
			reachable := m.ManagerStatus.Reachability == swarm.ReachabilityReachable
			switch {
			case n == nil:
				lost = append(lost, m)
			case !reachable && t.of("manager "+m.ID) >= grace:
				lost = append(lost, m)
			case !reachable:
				settling = true // it may come back
			}
		case up && n.Takes():
			if m.ManagerStatus != nil {
				settling = true
				continue
			}
			spare = append(spare, m)
		}
	}
	want := wantManagers(size)
	switch {
	case settling:
	case len(managers)-len(lost) < want && len(spare) > 0:
		m := p.spread(spare, managers)
		return []step{{kind: promote, member: m, why: fmt.Sprintf("%d of %d managers", len(managers)-len(lost), want)}}
	case len(managers) > want && len(lost) > 0:
		return []step{{kind: demote, member: lost[0], why: "it does not answer, and another has its place"}}
	case len(managers) > want && t.of("too many managers") >= grace: // a node that is back in a moment would make another
		for _, m := range slices.Backward(managers) {
			if !m.ManagerStatus.Leader && m.ID != c.speaker.Swarm.NodeID {
				return []step{{kind: demote, member: m, why: fmt.Sprintf("%d nodes need no more than %d", size, want)}}
			}
		}
	}
	return nil
}

// nodeOf is the node of the fleet that an entry is; nil if it is none.
func (p *picture) nodeOf(m swarm.Node) *fleet.Node {
	for _, n := range p.nodes {
		if n.Swarm.NodeID == m.ID || n.Swarm.NodeID == "" && n.Addr == m.Spec.Labels[labelAddr] {
			return n
		}
	}
	return nil
}

// labelZone is the engine label by which managers are spread, where engines have it.
const labelZone = "zone"

// spread chooses the next manager: in a zone that has the fewest, then by name.
func (p *picture) spread(spare, managers []swarm.Node) swarm.Node {
	zone := func(m swarm.Node) string {
		if n := p.nodeOf(m); n != nil {
			return n.Labels[labelZone]
		}
		return ""
	}
	inZone := map[string]int{}
	for _, m := range managers {
		inZone[zone(m)]++
	}
	return slices.MinFunc(spare, func(a, b swarm.Node) int {
		if d := inZone[zone(a)] - inZone[zone(b)]; d != 0 {
			return d
		}
		return strings.Compare(memberName(a), memberName(b))
	})
}

const forceHint = "if they do not come back: berth overlay up --force-new-cluster"

func managerNames(c *cluster) string {
	var names []string
	for _, n := range c.managers {
		names = append(names, n.Name)
	}
	return strings.Join(names, ", ")
}

func muteText(c *cluster) string {
	lost := ""
	if reachable, all := c.reachable(); all > 0 {
		lost = fmt.Sprintf(" (%d of %d managers reach each other)", reachable, all)
	}
	return fmt.Sprintf("overlay networks: the swarm has lost its quorum%s: %s cannot decide alone. What runs goes on; no container can join an overlay network, "+
		"and none can be made, until the other managers are back; %s", lost, managerNames(c), forceHint)
}

func headlessText(p *picture) string {
	var names, ids []string
	for _, n := range p.headless {
		names = append(names, n.Name)
		ids = append(ids, n.Swarm.Managers...)
	}
	var lost []string
	for _, n := range p.nodes {
		if n.State != fleet.Healthy && slices.Contains(ids, n.Swarm.NodeID) && n.Swarm.NodeID != "" {
			lost = append(lost, n.Name)
		}
	}
	who := "no manager of the swarm answers"
	if len(lost) > 0 {
		who += " (" + strings.Join(lost, ", ") + ")"
	}
	return fmt.Sprintf("overlay networks: %s that %s is in. What runs goes on; no container can join an overlay network until a majority of the managers is back; %s",
		who, strings.Join(names, ", "), forceHint)
}
