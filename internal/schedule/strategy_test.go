package schedule

import (
	"fmt"
	"testing"

	"berth/internal/fleet"
)

func TestStrategies(t *testing.T) {
	uneven := func() []*fleet.Node {
		return []*fleet.Node{node("n1", "+a", "+b,stopped", "+c,stopped"), node("n2", "+d", "+e"), node("n3", "+f")}
	}
	used := func() []*fleet.Node {
		return []*fleet.Node{node("n1", "+a,2G", "+b"), node("n2", "+c,1G", "+d", "+e"), node("n3", "+f,3G")}
	}
	for name, tt := range map[string]struct {
		nodes  []*fleet.Node
		policy Policy
		req    Request
		rules  []string
		want   string
	}{
		"spread takes the fewest containers":           {nodes: uneven(), want: "n3 n2 n1"},
		"spread takes the fewest running ones":         {nodes: []*fleet.Node{node("n1", "+a,stopped", "+b,stopped"), node("n2", "+c")}, policy: Policy{CountRunningOnly: true}, want: "n1 n2"},
		"binpack takes the most containers":            {nodes: uneven(), policy: Policy{Strategy: "binpack"}, want: "n1 n2 n3"},
		"binpack by its other name":                    {nodes: uneven(), policy: Policy{Strategy: "binpacking"}, want: "n1 n2 n3"},
		"binpack counts running ones":                  {nodes: []*fleet.Node{node("n1", "+a,stopped", "+b,stopped"), node("n2", "+c")}, policy: Policy{Strategy: "binpack", CountRunningOnly: true}, want: "n2 n1"},
		"spread takes the least memory":                {nodes: used(), req: Request{Memory: 1 << 29}, want: "n2 n1 n3"},
		"binpack takes the most memory":                {nodes: used(), policy: Policy{Strategy: "binpack"}, req: Request{Memory: 1 << 29}, want: "n3 n1 n2"},
		"an ailing node comes last in spread":          {nodes: []*fleet.Node{node("n1", "ailing"), node("n2", "+a,3G", "+b")}, req: Request{Memory: 1 << 29}, want: "n2 n1"},
		"an ailing node comes last in binpack":         {nodes: []*fleet.Node{node("n1", "+a,3G", "+b", "ailing"), node("n2")}, policy: Policy{Strategy: "binpack"}, req: Request{Memory: 1 << 29}, want: "n2 n1"},
		"within one percent containers decide":         {nodes: []*fleet.Node{node("n1", "+a", "+b"), bigger(node("n2", "+c"), -1<<20)}, req: Request{Memory: 1 << 30}, want: "n2 n1"},
		"a wish goes before the strategy":              {nodes: uneven(), rules: []string{"constraint:node==~n1"}, want: "n1 n3 n2"},
		"the most wishes win":                          {nodes: uneven(), rules: []string{"constraint:node==~n1", "affinity:container==~d", "affinity:container==~e", "affinity:container==~nope"}, want: "n2 n1 n3"},
		"a wish against":                               {nodes: uneven(), rules: []string{"constraint:node!=~n3"}, want: "n2 n1 n3"},
		"a wish by whitelist":                          {nodes: uneven(), rules: []string{"whitelist:node==~n1|n2"}, want: "n2 n1 n3"},
		"a wish that its filter may not make":          {nodes: uneven(), policy: Policy{Filters: []string{"health"}}, rules: []string{"constraint:node==~n1"}, want: "n3 n2 n1"},
		"wishes decide for random too":                 {nodes: uneven(), policy: Policy{Strategy: "random"}, rules: []string{"constraint:node==~n2", "constraint:node==~/n[12]/"}, want: "n2 n1 n3"},
		"preference decides between equals":            {nodes: []*fleet.Node{node("n1"), node("n2"), node("n3")}, req: Request{Prefer: []string{"gone", node("n3").ID, node("n1").ID}}, want: "n3 n1 n2"},
		"preference is no reason against the strategy": {nodes: uneven(), req: Request{Prefer: []string{node("n1").ID}}, want: "n3 n2 n1"},
		"preference does not make a node fit":          {nodes: []*fleet.Node{node("n1", "unhealthy"), node("n2"), node("n3")}, req: Request{Prefer: []string{node("n1").ID, node("n3").ID}}, want: "n3 n2"},
		"nor one that breaks a rule":                   {nodes: []*fleet.Node{node("n1", "size=m"), node("n2"), node("n3")}, rules: []string{"constraint:size!=m"}, req: Request{Prefer: []string{node("n1").ID, node("n3").ID}}, want: "n3 n2"},
		"preference is by ID where only one fits":      {nodes: []*fleet.Node{node("n1"), node("n2", "+x")}, req: Request{Prefer: []string{node("n2").ID}}, want: "n1 n2"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.req.Name, tt.req.Rules = "web", rules(t, tt.rules...)
			v := View{Snapshot: snapshot(tt.nodes...)}
			if got := outcome(v, &tt.req, tt.policy); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			first, err := Place(v, &tt.req, tt.policy)
			if err != nil || first.Name != tt.want[:2] {
				t.Errorf("Place = %v, %v, want the first of %s", first, err, tt.want)
			}
		})
	}
}

func bigger(n *fleet.Node, bytes int64) *fleet.Node {
	n.Memory += bytes
	return n.Seal()
}

func TestPendingCreatesCountAsContainers(t *testing.T) {
	n1, n2 := node("n1"), node("n2", "+a")
	v := View{snapshot(n1, n2), []Pending{pending(n1, Request{}), pending(n1, Request{}), pending(node("gone"), Request{})}}
	if got := outcome(v, &Request{Name: "web"}, Policy{}); got != "n2 n1" {
		t.Errorf("spread = %s, want n2 n1", got)
	}
	if got := outcome(v, &Request{Name: "web"}, Policy{Strategy: Binpack}); got != "n1 n2" {
		t.Errorf("binpack = %s, want n1 n2", got)
	}
}

func TestRandomIsRandom(t *testing.T) {
	nodes := []*fleet.Node{node("n1"), node("n2", "+a", "+b,9G"), node("n3", "+c")}
	v := View{Snapshot: snapshot(nodes...)}
	const draws = 3000
	got := map[string]int{}
	for seed := range uint64(draws) {
		// More memory than a node has: random never looked at that.
		n, err := Place(v, &Request{Name: "web", Seed: seed + 1, Memory: 8 << 30, Prefer: []string{nodes[0].ID}}, Policy{Strategy: Random})
		if err != nil {
			t.Fatal(err)
		}
		got[n.Name]++
	}
	for _, n := range nodes {
		if c := got[n.Name]; c < draws/3-150 || c > draws/3+150 { // almost six standard deviations
			t.Errorf("%s was drawn %d times of %d, want about a third: %v", n.Name, c, draws, got)
		}
	}
}

func TestEqualNodesAreNotAlwaysTheSameOne(t *testing.T) {
	v := View{Snapshot: snapshot(node("n1"), node("n2"), node("n3"))}
	got := map[string]int{}
	for i := range 60 {
		n, err := Place(v, &Request{Name: fmt.Sprint("web", i)}, Policy{})
		if err != nil {
			t.Fatal(err)
		}
		got[n.Name]++
	}
	if len(got) != 3 {
		t.Errorf("60 names on three empty nodes went to %v, want all three", got)
	}
}

func TestPolicyCheck(t *testing.T) {
	nan := 0.0
	nan /= nan
	for name, tt := range map[string]struct {
		policy Policy
		want   string
	}{
		"default":    {DefaultPolicy(), ""},
		"zero":       {Policy{}, ""},
		"binpacking": {Policy{Strategy: "binpacking"}, ""},
		"strategy":   {Policy{Strategy: "best"}, `strategy not supported: "best" is none of spread, binpack, random`},
		"filter":     {Policy{Filters: []string{"health", "disk"}}, `filter not supported: "disk" is none of health, port, containerslots, dependency, affinity, constraint, whitelist`},
		"overcommit": {Policy{Overcommit: -1}, "overcommit -1: must be larger than -1"},
		"no number":  {Policy{Overcommit: nan}, "overcommit NaN: must be larger than -1"},
		"little":     {Policy{Overcommit: -0.99}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := tt.policy.Check(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("Check() = %s, want %s", got, tt.want)
			}
			_, err := Place(View{Snapshot: snapshot(node("n1"))}, &Request{Name: "web"}, tt.policy)
			if (err != nil) != (tt.want != "") {
				t.Errorf("Place with that policy = %v, want an error: %v", err, tt.want != "")
			}
		})
	}
}
