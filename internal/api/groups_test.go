package api

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

func withLabels(labels ...string) map[string]any { return map[string]any{"Labels": labelMap(labels)} }

// nodesOf is the nodes in "a@n1 b@n2", each once.
func nodesOf(at string) map[string]bool {
	seen := map[string]bool{}
	for _, w := range strings.Fields(at) {
		_, node, _ := strings.Cut(w, "@")
		seen[node] = true
	}
	return seen
}

const project = fleet.LabelProject + "="

func TestProjectSharesAHome(t *testing.T) {
	f := newFleet(t, 3)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { f.network(fmt.Sprintf("net%d", i), project+"web") })
		wg.Go(func() { f.volume(fmt.Sprintf("vol%d", i), project+"web") })
	}
	wg.Wait()
	if at := f.networksAt() + " " + f.volumesAt(""); len(nodesOf(at)) != 1 {
		t.Errorf("the project is at %s", at)
	}
}

func TestProjectsSpread(t *testing.T) {
	f := newFleet(t, 3)
	f.run("a1", map[string]any{"Labels": map[string]string{}})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			group := fmt.Sprintf("%sp%d", project, i)
			f.network(fmt.Sprintf("p%d_net", i), group)
			f.volume(fmt.Sprintf("p%d_vol", i), group)
		})
	}
	wg.Wait()
	count := map[string]int{}
	for _, w := range f.networks(`{"type":["custom"]}`) {
		count[w.Labels[fleet.LabelNode]]++
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		if count[n] < 3 || count[n] > 5 {
			t.Errorf("projects by node = %v", count)
			break
		}
	}
}

func TestYoungProjectMovesToWhereItsFirstContainerMustGo(t *testing.T) {
	for _, node := range []string{"n1", "n2", "n3"} {
		t.Run(node, func(t *testing.T) {
			f := newFleet(t, 3)
			id := f.network("front", project+"web")
			f.network("back", project+"web", "own=1")
			f.volume("data", project+"web")
			if got := f.run("web1", onNetwork("front", "constraint:node=="+node)); got != node {
				t.Fatalf("web1 is on %s", got)
			}
			want := fmt.Sprintf("back@%[1]s front@%[1]s data@%[1]s", node)
			if got := f.networksAt() + " " + f.volumesAt(""); got != want {
				t.Errorf("the project is at %s, want %s", got, want)
			}
			if rows := f.networks(`{"label":["own=1"]}`); len(rows) != 1 {
				t.Errorf("back lost its label: %v", rows)
			}
			var w struct{ Name string }
			f.must(200, "GET", "/networks/"+id, nil).decode(t, &w)
			if w.Name != "front" {
				t.Errorf("the ID that the client was told means %q", w.Name)
			}
			if got := f.run("web2", onNetwork(id)); got != node {
				t.Errorf("a container on the network's first ID is on %s", got)
			}
			f.must(204, "POST", "/containers/web2/start", nil)
			// Used is used: now the project stays.
			other := "n1"
			if node == "n1" {
				other = "n2"
			}
			if got := f.run("web3", mounting("data", "constraint:node=="+other)); !strings.HasPrefix(got, "503 no node fits web3: ") {
				t.Errorf("web3 is on %s", got)
			}
		})
	}
}

func TestUnrelatedYoungObjectsMeet(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n1/fixed"})
	for i := range 4 { // at least one of them is made on n2
		f.volume(fmt.Sprintf("v%d", i))
	}
	for i := range 4 {
		body := onNetwork("fixed")
		body["HostConfig"].(map[string]any)["Binds"] = []string{fmt.Sprintf("v%d:/data", i)}
		if got := f.run(fmt.Sprintf("c%d", i), body); got != "n1" {
			t.Errorf("c%d is on %s", i, got)
		}
	}
	if got := f.volumesAt(""); got != "v0@n1 v1@n1 v2@n1 v3@n1" {
		t.Errorf("volumes = %s", got)
	}
}

func TestTiesThatCannotMeet(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n1/net"})
	f.volume("n2/vol")
	body := onNetwork("net")
	body["HostConfig"].(map[string]any)["Binds"] = []string{"vol:/data"}
	if got, want := f.run("c1", body), "400 no node can run c1: network net is on n1, volume vol is on n2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWhatWasUsedDoesNotMove(t *testing.T) {
	for name, use := range map[string]func(f *testFleet, d *dockertest.Daemon){
		"by a container that is gone": func(f *testFleet, _ *dockertest.Daemon) {
			f.run("old", mounting("data"))
			f.must(204, "DELETE", "/containers/old", nil)
		},
		"directly, by a container that is gone": func(f *testFleet, d *dockertest.Daemon) {
			d.Do("POST", "/containers/create?name=old", map[string]any{
				"Image": "busybox", "Cmd": []string{"true"}, "HostConfig": map[string]any{"Binds": []string{"data:/data"}},
			})
			d.Do("POST", "/containers/old/start", nil)
			d.Do("DELETE", "/containers/old?force=1", nil)
			f.await("the end of old shows", func(s *fleet.Snapshot) bool {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				events, _ := f.cluster.Subscribe(ctx)
				for _, ev := range events {
					if ev.Type == "container" && ev.Action == "destroy" {
						return len(s.Named("old")) == 0
					}
				}
				return false
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 2)
			f.volume("data")
			home := strings.TrimPrefix(f.volumesAt(""), "data@")
			i := 0
			if home == "n2" {
				i = 1
			}
			use(f, f.daemons[i])
			got := f.run("c1", mounting("data", "constraint:node!="+home))
			if !strings.HasPrefix(got, "503 no node fits c1: ") || f.volumesAt("") != "data@"+home {
				t.Errorf("c1: %s; the volume is at %s, was on %s", got, f.volumesAt(""), home)
			}
		})
	}
}

func TestFailedMoveLeavesAllAsItWas(t *testing.T) {
	f := newFleet(t, 2)
	f.network("net", project+"web")
	f.volume("vol", project+"web")
	before := f.networksAt() + " " + f.volumesAt("")
	home := strings.TrimPrefix(f.networksAt(), "net@")
	other := f.daemons[0]
	if home == "n1" {
		other = f.daemons[1]
	}
	other.FailNext("POST", "/volumes/create", 500, "disk full")
	got := f.run("c1", onNetwork("net", "constraint:node!="+home))
	if !strings.HasPrefix(got, "503 move volume vol from "+home) || !strings.HasSuffix(got, "disk full") {
		t.Errorf("create = %s", got)
	}
	if after := f.networksAt() + " " + f.volumesAt(""); after != before {
		t.Errorf("after the failure: %s, before: %s", after, before)
	}
	if got := f.run("c1", onNetwork("net", "constraint:node!="+home)); got != other.Name() {
		t.Errorf("the second try is on %s, want %s", got, other.Name())
	}
}

func TestLookupWaitsForAMove(t *testing.T) {
	f := newFleet(t, 2)
	f.network("net")
	home := strings.TrimPrefix(f.networksAt(), "net@")
	other := f.daemons[0]
	if home == "n1" {
		other = f.daemons[1]
	}
	reached, release := other.HoldNext("POST", "/networks/create")
	created := make(chan string)
	go func() { created <- f.run("c1", onNetwork("net", "constraint:node!="+home)) }()
	<-reached // the network is on no node now
	inspected := make(chan int)
	go func() { inspected <- f.do("GET", "/networks/net", nil).status }()
	select {
	case status := <-inspected:
		t.Errorf("inspect during the move = %d", status)
		release()
	case <-time.After(50 * time.Millisecond):
		release()
		if status := <-inspected; status != 200 {
			t.Errorf("inspect after the move = %d", status)
		}
	}
	if got := <-created; got != other.Name() {
		t.Errorf("c1 is on %s", got)
	}
}

func TestProjectsContainersSpreadWithoutANetwork(t *testing.T) {
	f := newFleet(t, 3)
	count := map[string]int{}
	for i := range 9 {
		count[f.run(fmt.Sprintf("bird%d", i), withLabels(project+"zoo"))]++
	}
	if count["n1"] != 3 || count["n2"] != 3 || count["n3"] != 3 {
		t.Errorf("birds by node = %v", count)
	}
}

func TestGatheringGroupsStayTogether(t *testing.T) {
	for _, group := range []string{"org.testcontainers.sessionId=1", "devcontainer.local_folder=/x", "berth.group=g"} {
		t.Run(group, func(t *testing.T) {
			f := newFleet(t, 3)
			nodes := make(chan string, 9)
			for i := range cap(nodes) {
				go func() { nodes <- f.run(fmt.Sprintf("c%d", i), withLabels(group)) }()
			}
			seen := map[string]int{}
			for range cap(nodes) {
				seen[<-nodes]++
			}
			if len(seen) != 1 {
				t.Fatalf("the session's containers are on %v", seen)
			}
			f.network("net", group)
			f.volume("vol", group)
			for node := range nodesOf(f.networksAt() + " " + f.volumesAt("")) {
				if seen[node] == 0 {
					t.Errorf("its network or volume is on %s, its containers on %v", node, seen)
				}
			}
			if got := f.run("more", withLabels(strings.Replace(group, "=", "=other", 1))); seen[got] > 0 {
				t.Errorf("another session is on %s too", got)
			}
		})
	}
}

func TestGroupIsKnownAfterARestart(t *testing.T) {
	f := newFleet(t, 3)
	f.network("net", project+"web")
	f.api.groups = newGroups() // all that a restart of the manager forgets
	f.volume("vol", project+"web")
	at := f.networksAt() + " " + f.volumesAt("")
	if len(nodesOf(at)) != 1 {
		t.Errorf("the project is at %s", at)
	}
	home := strings.TrimPrefix(f.networksAt(), "net@")
	if got := f.run("c1", onNetwork("net", "constraint:node!="+home)); !strings.HasPrefix(got, "503 no node fits c1: ") {
		t.Errorf("what another manager made has moved: c1 is on %s", got)
	}
}

func TestLabelsOfANetworkRuleItsContainers(t *testing.T) {
	f := newFleet(t, 3)
	rule := map[string]string{fleet.LabelConstraints: `["node==n2"]`}
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "net", "Labels": rule})
	if at := f.networksAt(); at != "net@n2" {
		t.Errorf("the network is at %s", at)
	}
	if got := f.run("c1", onNetwork("net", "constraint:node==n1")); !strings.HasPrefix(got, "503 no node fits c1: ") {
		t.Errorf("against the network's rule c1 is on %s", got)
	}
	f.fails("POST", "/networks/create", map[string]any{"Name": "bad", "Labels": map[string]string{fleet.LabelConstraints: `x`}}, 400,
		`error from constraint filter: "x": the label must hold a JSON list of strings: invalid character 'x' looking for beginning of value`)
}

func TestOneGroupDoesNotWaitForAnother(t *testing.T) {
	f := newFleet(t, 1)
	reached, release := f.daemons[0].HoldNext("POST", "/networks/create")
	slow := make(chan int)
	go func() {
		slow <- f.do("POST", "/networks/create", map[string]any{"Name": "slow", "Labels": labelMap([]string{project + "slow"})}).status
	}()
	<-reached
	f.network("fast", project+"fast")
	release()
	if status := <-slow; status != 201 {
		t.Errorf("the slow create = %d", status)
	}
}

func TestLocks(t *testing.T) {
	l := newLocks()
	release, err := l.take(t.Context(), []string{"b", "a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.take(ctx, []string{"c", "b"}); err == nil {
		t.Error("a held lock was had twice")
	}
	free, err := l.take(t.Context(), []string{"c"})
	if err != nil {
		t.Fatalf("the lock that was taken before the one waited for is not free: %v", err)
	}
	free()
	release()
	var wg sync.WaitGroup
	n := 0
	for i := range 50 {
		wg.Go(func() {
			names := []string{"a", "b", "c"}
			release, err := l.take(t.Context(), []string{names[i%3], names[(i+1)%3], "all"})
			if err != nil {
				t.Error(err)
				return
			}
			n++
			release()
		})
	}
	wg.Wait()
	if n != 50 || len(l.held) != 0 {
		t.Errorf("%d had the locks, %d are left", n, len(l.held))
	}
}
