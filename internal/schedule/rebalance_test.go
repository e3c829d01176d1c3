package schedule

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"berth/internal/fleet"
)

// movables are the containers of nodes whose names begin so, each with what a container made by container asks for.
func movables(t testing.TB, nodes []*fleet.Node, prefix string, env ...string) []Movable {
	t.Helper()
	var all []Movable
	for _, n := range nodes {
		for _, c := range n.Containers {
			if strings.HasPrefix(c.Name, prefix) {
				all = append(all, Movable{n.ID, c.ID, &Request{Name: c.Name, Memory: c.Memory, NanoCPUs: c.NanoCPUs, Ports: c.Wanted, Labels: maps.Collect(c.Labels.All()), Rules: rules(t, env...)}})
			}
		}
	}
	return all
}

func counts(nodes []*fleet.Node, plan []Shift) map[string]int {
	c := map[string]int{}
	for _, n := range nodes {
		c[n.ID] = len(n.Containers)
	}
	for _, s := range plan {
		c[s.NodeID]--
		c[s.To.ID]++
	}
	named := map[string]int{}
	for _, n := range nodes {
		named[n.Name] = c[n.ID]
	}
	return named
}

func TestRebalance(t *testing.T) {
	crowd := func(n int) []string {
		var words []string
		for i := range n {
			words = append(words, fmt.Sprintf("+m%d", i))
		}
		return words
	}
	for name, tt := range map[string]struct {
		nodes  []*fleet.Node
		env    []string
		policy Policy
		limit  int
		want   string // containers by node after it
		why    string // of the first shift
	}{
		"a new node gets its share":          {nodes: []*fleet.Node{node("n1", crowd(6)...), node("n2")}, limit: 9, want: "n1:3 n2:3", why: "n1 has 5 containers besides, n2 0"},
		"no more than the limit":             {nodes: []*fleet.Node{node("n1", crowd(6)...), node("n2")}, limit: 2, want: "n1:4 n2:2"},
		"a fleet that is even is left alone": {nodes: []*fleet.Node{node("n1", "+m1", "+m2"), node("n2", "+m3")}, limit: 9, want: "n1:2 n2:1"},
		"what cannot move stays":             {nodes: []*fleet.Node{node("n1", "+x1", "+x2", "+x3", "+m1"), node("n2")}, limit: 9, want: "n1:3 n2:1"},
		"memory counts before containers": {
			nodes: []*fleet.Node{node("n1", "+m1,2G", "+m2,2G"), node("n2", "+x1", "+x2", "+x3")}, limit: 9, want: "n1:1 n2:4",
			why: "n2 would have 50 % of its memory and CPUs given away, n1 100 %",
		},
		"rules hold":                        {nodes: []*fleet.Node{node("n1", append(crowd(4), "zone=a")...), node("n2", "zone=b"), node("n3", "zone=a")}, env: []string{"constraint:zone==a"}, limit: 9, want: "n1:2 n2:0 n3:2"},
		"a rule that is broken by now":      {nodes: []*fleet.Node{node("n1", "+m1", "zone=b"), node("n2", "zone=a", "+x1", "+x2")}, env: []string{"constraint:zone==a"}, limit: 9, want: "n1:0 n2:3", why: "n1 lacks constraint zone==a"},
		"a wish that can be granted by now": {nodes: []*fleet.Node{node("n1", "+m1", "zone=b"), node("n2", "zone=a", "+x1", "+x2")}, env: []string{"constraint:zone==~a"}, limit: 9, want: "n1:0 n2:3", why: "n2 grants 1 more of its soft expressions"},
		"ports are looked at":               {nodes: []*fleet.Node{node("n1", "+m1,80/tcp", "+x1", "+x2"), node("n2", "+y,80/tcp")}, limit: 9, want: "n1:3 n2:1"},
		"only nodes that answer":            {nodes: []*fleet.Node{node("n1", crowd(3)...), node("n2", "unhealthy")}, limit: 9, want: "n1:3 n2:0"},
		"binpack packs":                     {nodes: []*fleet.Node{node("n1", "+m1"), node("n2", "+x1", "+x2")}, policy: Policy{Strategy: Binpack}, limit: 9, want: "n1:0 n2:3"},
		"random wants nothing":              {nodes: []*fleet.Node{node("n1", crowd(3)...), node("n2")}, policy: Policy{Strategy: Random}, limit: 9, want: "n1:3 n2:0"},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := Rebalance(View{Snapshot: snapshot(tt.nodes...)}, movables(t, tt.nodes, "m", tt.env...), tt.policy, tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			after := counts(tt.nodes, plan)
			for _, n := range tt.nodes {
				got = append(got, fmt.Sprintf("%s:%d", n.Name, after[n.Name]))
			}
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("%s, want %s: %+v", text, tt.want, plan)
			}
			if tt.why != "" && (len(plan) == 0 || plan[0].Why != tt.why) {
				t.Errorf("%+v, want %q", plan, tt.why)
			}
		})
	}
}

func TestAPausedNodeIsNotRebalanced(t *testing.T) {
	n1, n2 := node("n1", "+m1", "+m2", "+m3", "+m4"), node("n2")
	n2.Availability = fleet.Pause
	nodes := []*fleet.Node{n1, n2}
	if plan, err := Rebalance(View{Snapshot: snapshot(nodes...)}, movables(t, nodes, "m"), Policy{}, 9); err != nil || len(plan) != 0 {
		t.Errorf("%+v, %v", plan, err)
	}
}

// Each shift is to a node that fits, no container moves twice, the plan is the same each time, and spread leaves no node with
// two containers more than another if all may go anywhere.
func TestRebalanceHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []*fleet.Node
		for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
			var words []string
			for j := range rapid.IntRange(0, 6).Draw(t, "containers") {
				words = append(words, fmt.Sprintf("+m%d-%d", i, j))
			}
			nodes = append(nodes, node(fmt.Sprintf("n%d", i), words...))
		}
		var all []Movable
		for _, n := range nodes {
			for _, c := range n.Containers {
				all = append(all, Movable{n.ID, c.ID, &Request{Name: c.Name}})
			}
		}
		plan, err := Rebalance(View{Snapshot: snapshot(nodes...)}, all, Policy{}, 100)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := Rebalance(View{Snapshot: snapshot(nodes...)}, all, Policy{}, 100)
		if fmt.Sprint(len(plan)) != fmt.Sprint(len(again)) {
			t.Fatalf("%d shifts, and then %d", len(plan), len(again))
		}
		moved := map[string]bool{}
		for i, s := range plan {
			if moved[s.ID] || s.To.ID == s.NodeID || again[i].ID != s.ID || again[i].To.ID != s.To.ID {
				t.Fatalf("shift %+v", s)
			}
			moved[s.ID] = true
		}
		low, high := 1000, 0
		for _, n := range counts(nodes, plan) {
			low, high = min(low, n), max(high, n)
		}
		if high-low > 1 {
			t.Fatalf("from %d to %d containers on a node after %d shifts", low, high, len(plan))
		}
	})
}
