package schedule

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"

	"berth/internal/fleet"
)

func TestRefusalText(t *testing.T) {
	const conditions = "Unable to find a node that satisfies the following conditions "
	for name, tt := range map[string]struct {
		nodes   []*fleet.Node
		req     Request
		rules   []string
		filters []string
		want    string
	}{
		"several reasons": {
			nodes: []*fleet.Node{node("n1"), node("n2"), node("n3", "+a,80/tcp"), node("n4", "unhealthy"), node("n5", "unhealthy")},
			req:   Request{Ports: ports("80/tcp")}, rules: []string{"constraint:size==xxl"},
			want: "no node fits web: 2 of 5 lack constraint size==xxl, 1 has port 80/tcp taken, 2 unhealthy\n" +
				conditions + "\n[port 80 (Bridge mode)]\n[available container slots]\n[size==xxl]",
		},
		"only up to the filter that took the last": {
			nodes: []*fleet.Node{node("n1", "+a,80/tcp,443/tcp")},
			req:   Request{Ports: ports("80/tcp", "443/tcp")}, rules: []string{"constraint:size==xxl"},
			want: "no node fits web: 1 of 1 has port 80/tcp taken\n" + conditions + "\n[port 80 (Bridge mode) port 443 (Bridge mode)]",
		},
		"in the order of the operator": {
			nodes: []*fleet.Node{node("n1", "+a,80/tcp")}, filters: []string{"constraint", "health", "port"},
			req: Request{Ports: ports("80/tcp")}, rules: []string{"constraint:node==n1"},
			want: "no node fits web: 1 of 1 has port 80/tcp taken\n" + conditions + "\n[node==n1]\n[port 80 (Bridge mode)]",
		},
		"host mode": {
			nodes: []*fleet.Node{node("n1", "+a,host,80/tcp")}, req: Request{HostNetwork: true, Exposed: exposed("80/tcp")},
			want: "no node fits web: 1 of 1 has port 80/tcp taken on its own network\n" + conditions + "\n[port 80/tcp (Host mode)]",
		},
		"dependency": {
			nodes: []*fleet.Node{node("n1")}, req: Request{VolumesFrom: []string{"a"}, Links: []string{"b"}, Shares: []string{"c"}},
			want: "no node fits web: 1 of 1 lacks container a\n" + conditions + "\n[available container slots]\n[--volumes-from=a --link=b --net=container:c]",
		},
		"affinity": {
			nodes: []*fleet.Node{node("n1")}, rules: []string{"affinity:image==~y", "affinity:image==x"},
			want: "no node fits web: 1 of 1 lacks affinity image==x\n" + conditions + "\n[available container slots]\n[image==y (soft=true) image==x (soft=false)]",
		},
		"whitelist": {
			nodes: []*fleet.Node{node("n1"), node("n2")}, rules: []string{"constraint:node==n1", "whitelist:node==n2|n3"},
			want: "no node fits web: 1 of 2 is not in whitelist n2|n3, 1 lacks constraint node==n1\n" + conditions +
				"\n[available container slots]\n[node==n1]\n[node==n2|n3 (soft=false)]",
		},
		"health": {
			nodes: []*fleet.Node{node("n1", "unhealthy"), node("n2", "failing")},
			want:  "no node fits web: 1 of 2 fails too often, 1 unhealthy\nNo healthy node available in the cluster",
		},
		"no nodes": {want: "no node fits web: the fleet has no nodes\nNo healthy node available in the cluster"},
		"resources": {
			nodes: []*fleet.Node{node("n1"), node("n2", "unhealthy")}, req: Request{Memory: 5 << 30},
			want: "no node fits web: 1 of 2 lacks memory (need 5GiB), 1 unhealthy\nno resources available to schedule container",
		},
		"a check of ours": {
			nodes: []*fleet.Node{node("n1")}, req: Request{Arch: "arm64"},
			want: "no node fits web: 1 of 1 is not arm64\nNo nodes available in the cluster",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tt.req.Name, tt.req.Rules = "web", rules(t, tt.rules...)
			p := DefaultPolicy()
			if tt.filters != nil {
				p.Filters = tt.filters
			}
			_, err := Place(View{Snapshot: snapshot(tt.nodes...)}, &tt.req, p)
			if err == nil || err.Error() != tt.want {
				t.Fatalf("got\n%v\nwant\n%s", err, tt.want)
			}
			if !errdefs.IsUnavailable(err) {
				t.Errorf("%T is not unavailable", err)
			}
		})
	}
}

func TestContradictionIsTheClientsFault(t *testing.T) {
	n1, n2 := node("n1"), node("n2")
	_, err := Place(View{Snapshot: snapshot(n1, n2)}, &Request{Ties: []Tie{{"a", []string{n1.ID}}, {"b", []string{n2.ID}}}}, Policy{})
	var c *Contradiction
	if !errors.As(err, &c) || !errdefs.IsInvalidArgument(err) {
		t.Fatalf("error = %v, want a Contradiction that is an invalid argument", err)
	}
	if want := "no node can run the container: a is on n1, b is on n2"; err.Error() != want {
		t.Errorf("error = %s, want %s", err, want)
	}
}

func TestAmbiguousDependencyIsTheClientsFault(t *testing.T) {
	n := node("n1", "+a", "+b")
	const prefix = "0123456789abcdef"
	for _, c := range n.Containers {
		c.ID = prefix + c.ID[len(prefix):]
	}
	_, err := Place(View{Snapshot: snapshot(n)}, &Request{Name: "web", Links: []string{prefix}}, Policy{})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("error = %v, want an invalid argument", err)
	}
	if want := "place web: --link=" + prefix + ": multiple IDs found with provided prefix: " + prefix; err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}

func TestExplain(t *testing.T) {
	s := snapshot(node("n1", "+a,80/tcp"), node("n2", "+b", "+c"), node("n3", "unhealthy"), node("n4", "+d"))
	r := &Request{Name: "web", Ports: ports("80/tcp"), Rules: rules(t, "constraint:node==~n4"), Memory: 1 << 30}
	got, err := Explain(View{Snapshot: s}, r, DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	want := []Verdict{
		{Fits: true, Wishes: 1, Granted: 1, Weight: 100 + 23 - 1000, Containers: 1},
		{Fits: true, Wishes: 1, Granted: 0, Weight: 100 + 23 - 1000, Containers: 2},
		{Filter: "port", Reason: "has port 80/tcp taken"},
		{Filter: "state", Reason: "unhealthy"},
	}
	for i, name := range []string{"n4", "n2", "n1", "n3"} {
		want[i].Node, _ = s.NodeByName(name)
	}
	if len(got) != len(want) {
		t.Fatalf("Explain = %+v, want a verdict for each node", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("verdict %d = %+v of %s, want %+v of %s", i, got[i], got[i].Node.Name, want[i], want[i].Node.Name)
		}
	}
	binpack, err := Explain(View{Snapshot: s}, r, Policy{Strategy: Binpack})
	if err != nil || binpack[0].Weight != 100+25+1000 || binpack[1].Containers != 2 {
		t.Errorf("binpack = %+v, %v, want weights and counts that are not turned around", binpack, err)
	}
}
