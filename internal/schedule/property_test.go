package schedule

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"berth/internal/fleet"
)

// drawNode makes a node out of few values, so that requests drawn from the same values collide.
func drawNode(t *rapid.T, name string) *fleet.Node {
	words := []string{"zone=" + rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone")}
	words = append(words, rapid.SampledFrom([]string{"", "", "", "", "unhealthy", "pending", "failing", "ailing"}).Draw(t, "state"))
	if rapid.Bool().Draw(t, "limited") {
		words = append(words, fmt.Sprintf("containerslots=%d", rapid.IntRange(0, 4).Draw(t, "slots")))
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "containers") {
		words = append(words, fmt.Sprintf("+%s-%d,tier=%s,%s,%dG,%dcpu", name, i,
			rapid.SampledFrom([]string{"front", "back"}).Draw(t, "tier"), drawPort(t), rapid.IntRange(0, 2).Draw(t, "memory"), rapid.IntRange(0, 2).Draw(t, "cpus")))
	}
	return node(name, words...)
}

func drawPort(t *rapid.T) string {
	return rapid.SampledFrom([]string{"0", "80", "443"}).Draw(t, "port") + "/" + rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "proto")
}

func drawRequest(t *rapid.T, name string) *Request {
	env := rapid.SliceOfN(rapid.SampledFrom([]string{
		"constraint:zone==a", "constraint:zone!=b", "constraint:zone==~c", "constraint:node==~/n[0-3]/", "affinity:tier==front",
		"affinity:tier!=back", "affinity:tier!=~front", "affinity:container==~n1-0", "whitelist:node==n0|n1|n2|n3",
	}), 0, 2).Draw(t, "env")
	r, _, _, err := ParseRules(env, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Request{
		Name: name, Rules: r, Labels: map[string]string{"tier": rapid.SampledFrom([]string{"front", "back"}).Draw(t, "tier")},
		Ports:  ports(drawPort(t)),
		Memory: int64(rapid.IntRange(0, 3).Draw(t, "memory")) << 30, NanoCPUs: int64(rapid.IntRange(0, 3).Draw(t, "cpus")) * 1e9,
		Seed:   rapid.Uint64Range(0, 3).Draw(t, "seed"),
		Prefer: rapid.SliceOfN(rapid.SampledFrom([]string{node("n0").ID, node("n1").ID, node("n2").ID}), 0, 2).Draw(t, "prefer"),
	}
}

func drawPolicy(t *rapid.T) Policy {
	p := DefaultPolicy()
	p.Strategy = rapid.SampledFrom([]string{Spread, Binpack, Random}).Draw(t, "strategy")
	p.CountRunningOnly = rapid.Bool().Draw(t, "running only")
	p.Overcommit = rapid.SampledFrom([]float64{0, 0.05, -0.5, 1}).Draw(t, "overcommit")
	p.Filters = rapid.Permutation(allFilters()).Draw(t, "filters")
	return p
}

func drawScene(t *rapid.T) ([]*fleet.Node, View, *Request, Policy) {
	var nodes []*fleet.Node
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		nodes = append(nodes, drawNode(t, fmt.Sprint("n", i)))
	}
	v := View{Snapshot: snapshot(nodes...)}
	for i := range rapid.IntRange(0, 3).Draw(t, "pending") {
		if len(nodes) > 0 {
			v.Pending = append(v.Pending, Pending{NodeID: rapid.SampledFrom(nodes).Draw(t, "on").ID, Request: drawRequest(t, fmt.Sprint("p", i))})
		}
	}
	return nodes, v, drawRequest(t, "web"), drawPolicy(t)
}

// TestPlaceIsSafe works out without indexes what a placement must not do.
func TestPlaceIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, v, r, p := drawScene(t)
		n, err := Place(v, r, p)
		if err != nil {
			return
		}
		if n.State != fleet.Healthy || n.Health <= 0 {
			t.Fatalf("placed on %s, which is %s with health %d", n.Name, n.State, n.Health)
		}
		memory, nanoCPUs, count := r.Memory, r.NanoCPUs, 1
		var taken []fleet.Port
		for _, c := range n.Containers {
			memory, nanoCPUs, count = memory+c.Memory, nanoCPUs+c.NanoCPUs, count+1
			taken = append(taken, c.Wanted...)
		}
		for _, o := range v.Pending {
			if o.NodeID == n.ID {
				memory, nanoCPUs, count = memory+o.Request.Memory, nanoCPUs+o.Request.NanoCPUs, count+1
				taken = append(taken, o.Request.Ports...)
			}
		}
		if p.Strategy != Random && r.Memory > 0 && float64(memory) > float64(n.Memory)*(1+p.Overcommit) {
			t.Errorf("%d bytes given away on %s, which has %d", memory, n.Name, n.Memory)
		}
		if p.Strategy != Random && r.NanoCPUs > 0 && float64(nanoCPUs) > float64(n.CPUs)*1e9*(1+p.Overcommit) {
			t.Errorf("%d billionths of a CPU given away on %s, which has %d CPUs", nanoCPUs, n.Name, n.CPUs)
		}
		if slots, ok := n.Labels["containerslots"]; ok && fmt.Sprint(count) > slots { // single digits
			t.Errorf("%d containers on %s, which has %s slots", count, n.Name, slots)
		}
		if wanted := r.Ports[0]; wanted.HostPort != 0 && slices.Contains(taken, wanted) {
			t.Errorf("port %v given away twice on %s", wanted, n.Name)
		}
	})
}

func TestPlaceIsTheFirstOfRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, v, r, p := drawScene(t)
		n, err := Place(v, r, p)
		all, rankErr := Rank(v, r, p)
		if err != nil || rankErr != nil {
			if fmt.Sprint(err) != fmt.Sprint(rankErr) {
				t.Fatalf("Place says %v, Rank %v", err, rankErr)
			}
			return
		}
		if n != all[0] {
			t.Fatalf("Place = %s, Rank begins with %s", n.Name, all[0].Name)
		}
	})
}

func TestOrderOfNodesDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, v, r, p := drawScene(t)
		w := View{snapshot(rapid.Permutation(nodes).Draw(t, "other order")...), rapid.Permutation(v.Pending).Draw(t, "pending order")}
		if got, want := outcome(w, r, p), outcome(v, r, p); got != want {
			t.Fatalf("in another order %s, want %s", got, want)
		}
	})
}

func TestRefusalCountsEachNodeOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, v, r, p := drawScene(t)
		_, err := Place(v, r, p)
		var refused *NoFit
		if !errors.As(err, &refused) {
			return
		}
		sum := 0
		for _, reason := range refused.Reasons {
			sum += reason.Count
		}
		if sum != len(nodes) || refused.Nodes != len(nodes) {
			t.Fatalf("%v counts %d of %d nodes, there are %d", err, sum, refused.Nodes, len(nodes))
		}
	})
}

// placeAll places requests one after the other, each in flight for those after it, and returns where they went.
func placeAll(t *rapid.T, v View, p Policy, requests ...*Request) (placed map[string]int, order []string, err error) {
	placed = map[string]int{}
	for _, r := range requests {
		n, err := Place(v, r, p)
		if err != nil {
			return placed, order, err
		}
		placed[n.Name]++
		order = append(order, n.Name)
		v.Pending = append(v.Pending, Pending{NodeID: n.ID, Request: r})
	}
	return placed, order, nil
}

func birds(t *rapid.T, memory int64) []*Request {
	var all []*Request
	for i := range rapid.IntRange(1, 30).Draw(t, "birds") {
		all = append(all, &Request{Name: fmt.Sprint("bird", i), Memory: memory, Labels: map[string]string{"bird": "yes"}})
	}
	return all
}

func emptyNodes(t *rapid.T) []*fleet.Node {
	var nodes []*fleet.Node
	for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
		nodes = append(nodes, node(fmt.Sprint("n", i)))
	}
	return nodes
}

func TestSpreadIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := emptyNodes(t)
		memory := rapid.SampledFrom([]int64{0, 0, 64 << 20}).Draw(t, "memory")
		placed, order, err := placeAll(t, View{Snapshot: snapshot(nodes...)}, DefaultPolicy(), birds(t, memory)...)
		if err != nil {
			t.Fatal(err)
		}
		least, most := len(order), 0
		for _, n := range nodes {
			least, most = min(least, placed[n.Name]), max(most, placed[n.Name])
		}
		if most-least > 1 {
			t.Fatalf("spread put %v", placed)
		}
	})
}

func TestBinpackFillsOneNodeBeforeTheNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := emptyNodes(t)
		p := Policy{Strategy: Binpack}
		_, order, err := placeAll(t, View{Snapshot: snapshot(nodes...)}, p, birds(t, 1<<30)...)
		var full *NoFit
		if errors.As(err, &full) && len(order) == 4*len(nodes) {
			err = nil // four of them fill a node of 4 GiB
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range order {
			if first := i - i%4; order[i] != order[first] {
				t.Fatalf("bird %d went to %s before %s was full: %v", i, order[i], order[first], order)
			}
		}
	})
}

func TestAntiAffinityTakesEachNodeOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := emptyNodes(t)
		r, _, _, err := ParseRules([]string{"affinity:bird!=yes"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		requests := birds(t, 0)
		for _, b := range requests {
			b.Rules = r
		}
		p := DefaultPolicy()
		p.Strategy = rapid.SampledFrom([]string{Spread, Binpack, Random}).Draw(t, "strategy")
		placed, order, err := placeAll(t, View{Snapshot: snapshot(nodes...)}, p, requests...)
		for name, times := range placed {
			if times > 1 {
				t.Fatalf("%s was taken %d times", name, times)
			}
		}
		if want := min(len(requests), len(nodes)); len(order) != want || (err != nil) != (len(requests) > len(nodes)) {
			t.Fatalf("%d of %d placed on %d nodes, error %v", len(order), len(requests), len(nodes), err)
		}
	})
}

// TestLargeFleet goes past the width of the window that best reads ahead.
func TestLargeFleet(t *testing.T) {
	var nodes []*fleet.Node
	for i := range 200 {
		words := []string{"zone=a"}
		for c := range 1 + i%7 {
			words = append(words, fmt.Sprintf("+c%d-%d", i, c))
		}
		nodes = append(nodes, node(fmt.Sprint("n", i), words...))
	}
	v := View{Snapshot: snapshot(nodes...)}
	for seed := range uint64(50) {
		for _, strategy := range []string{Spread, Binpack, Random} {
			r := &Request{Name: "web", Seed: seed, Prefer: []string{nodes[150].ID, nodes[154].ID}}
			n, err := Place(v, r, Policy{Strategy: strategy})
			if err != nil {
				t.Fatal(err)
			}
			all, err := Rank(v, r, Policy{Strategy: strategy})
			if err != nil || n != all[0] || len(all) != 200 {
				t.Fatalf("Place = %s, Rank = %d nodes from %s, %v", n.Name, len(all), all[0].Name, err)
			}
			if strategy == Spread && n != v.Snapshot.Nodes()[154] {
				t.Fatalf("Place = %s, want the preferred of the emptiest, n154", n.Name)
			}
		}
	}
}
