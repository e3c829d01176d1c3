package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"berth/internal/fleet"
)

// listedNetwork is a row of GET /networks.
type listedNetwork struct {
	ID     string `json:"Id"`
	Name   string
	Labels map[string]string
}

func (f *testFleet) networks(filter string) []listedNetwork {
	f.t.Helper()
	var rows []listedNetwork
	f.must(200, "GET", "/networks?filters="+url.QueryEscape(filter), nil).decode(f.t, &rows)
	return rows
}

// networksAt is "a@n1 b@n2": the user's networks and their nodes, by name.
func (f *testFleet) networksAt() string {
	var at []string
	for _, w := range f.networks(`{"type":["custom"]}`) {
		at = append(at, w.Name+"@"+w.Labels[fleet.LabelNode])
	}
	slices.Sort(at)
	return strings.Join(at, " ")
}

// network makes a network and returns its ID.
func (f *testFleet) network(name string, labels ...string) string {
	f.t.Helper()
	var made struct {
		ID string `json:"Id"`
	}
	f.must(201, "POST", "/networks/create", map[string]any{"Name": name, "Labels": labelMap(labels)}).decode(f.t, &made)
	return made.ID
}

func labelMap(labels []string) map[string]string {
	m := map[string]string{}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		m[k] = v
	}
	return m
}

// run creates a container and returns its node, or the error as "400 text". The body has Image and HostConfig already.
func (f *testFleet) run(name string, fields map[string]any) string {
	f.t.Helper()
	body := map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "1000"}}
	for k, v := range fields {
		body[k] = v
	}
	a := f.do("POST", "/containers/create?name="+name, body)
	if a.status != 201 {
		return fmt.Sprintf("%d %s", a.status, engineMessage(a.body))
	}
	return a.header.Get("X-Berth-Node")
}

func onNetwork(name string, env ...string) map[string]any {
	return map[string]any{"Env": env, "HostConfig": map[string]any{"NetworkMode": name}}
}

func TestPredefinedNetworksAreListedOnce(t *testing.T) {
	f := newFleet(t, 3)
	id := f.network("web")
	rows := f.networks("")
	var names []string
	for _, w := range rows {
		names = append(names, w.Name)
		if w.Name == "web" && (w.ID != id || w.Labels[fleet.LabelNode] == "") {
			t.Errorf("row of web = %+v, want ID %s and a label %s", w, id, fleet.LabelNode)
		}
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "bridge host none web" {
		t.Errorf("networks = %s", got)
	}
	n1, _ := f.daemons[0].Do("GET", "/networks/bridge", nil)
	_, body := f.daemons[0].Do("GET", "/networks/bridge", nil)
	var bridge listedNetwork
	if err := json.Unmarshal(body, &bridge); err != nil || n1 != 200 {
		t.Fatal(n1, err)
	}
	if i := slices.IndexFunc(rows, func(w listedNetwork) bool { return w.Name == "bridge" }); rows[i].ID != bridge.ID {
		t.Errorf("bridge has ID %s, want that of the first node %s", rows[i].ID, bridge.ID)
	}
}

func TestNetworkFilters(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n1/front", "Labels": map[string]string{"tier": "a"}})
	back := f.network("n2/back", "tier=b")
	f.run("c1", onNetwork("n1/front"))
	f.must(204, "POST", "/containers/c1/start", nil)
	for filter, want := range map[string]string{
		`{"name":["ron"]}`:                          "front",
		`{"name":["^back$"]}`:                       "back",
		`{"id":["` + back[:12] + `"]}`:              "back",
		`{"label":["tier"]}`:                        "back front",
		`{"label":["tier=a"]}`:                      "front",
		`{"label":{"berth.node=n2":true}}`:          "back",
		`{"driver":["host"]}`:                       "host",
		`{"type":["builtin"]}`:                      "bridge host none",
		`{"type":["custom"],"scope":["local"]}`:     "back front",
		`{"scope":["swarm"]}`:                       "",
		`{"node":["n2"],"type":["custom"]}`:         "back",
		`{"dangling":["true"]}`:                     "back",
		`{"dangling":["false"],"type":["custom"]}`:  "front",
		`{"name":["("],"driver":["bridge","null"]}`: "",
	} {
		var names []string
		for _, w := range f.networks(filter) {
			names = append(names, w.Name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s gives %q, want %q", filter, got, want)
		}
	}
	f.fails("GET", "/networks?filters="+url.QueryEscape(`{"type":["x"]}`), nil, 400, "invalid filter: 'type'='x'")
	f.fails("GET", "/networks?filters="+url.QueryEscape(`{"x":["x"]}`), nil, 400, "invalid filter 'x'")
}

func TestNetworkErrorsAreTheEngines(t *testing.T) {
	f := newFleet(t, 2)
	f.network("web")
	f.fails("POST", "/networks/create", map[string]any{"Name": "web"}, 409, "network with name web already exists")
	f.fails("POST", "/networks/create", map[string]any{"Name": "n1/web"}, 409, "network with name web already exists")
	f.fails("POST", "/networks/create", map[string]any{"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network ")
	f.fails("POST", "/networks/create", map[string]any{"Name": "x1", "ConfigFrom": map[string]string{"Network": "nope"}}, 404,
		`configuration network "nope" does not exist`)
	f.fails("POST", "/networks/create", nil, 400, "got EOF while reading request body")
	f.fails("POST", "/networks/create", []string{"x"}, 400, "request body: not a JSON object")
	f.fails("GET", "/networks/nope", nil, 404, "network nope not found")
	f.fails("DELETE", "/networks/nope", nil, 404, "network nope not found")
	f.fails("DELETE", "/networks/host", nil, 403, "host is a pre-defined network and cannot be removed")
	f.fails("POST", "/networks/web/connect", map[string]any{"Container": "nope"}, 404, "No such container: nope")
	if got := f.run("c1", onNetwork("nope")); got != "400 network nope not found" {
		t.Errorf("create on an unknown network = %s", got)
	}
}

func TestNetworkIsFoundByAllItsNames(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n2/web", "Labels": map[string]string{"berth.node": "forged", "own": "1"}})
	id := f.networks(`{"name":["web"]}`)[0].ID
	for _, ref := range []string{"web", id, id[:5], "n2/web", "n2/" + id} {
		var w struct {
			ID     string `json:"Id"`
			Labels map[string]string
			Node   struct{ Name string }
		}
		f.must(200, "GET", "/networks/"+ref, nil).decode(t, &w)
		if w.ID != id || w.Node.Name != "n2" || len(w.Labels) != 1 || w.Labels["own"] != "1" {
			t.Errorf("%s is %+v, want %s on n2 with label own alone", ref, w, id)
		}
	}
	f.daemons[0].Do("POST", "/networks/create", map[string]string{"Name": "web"})
	f.await("the second web shows", func(s *fleet.Snapshot) bool { _, err := s.Networks("web"); return err != nil })
	f.fails("GET", "/networks/web", nil, 400, "network web is ambiguous (2 matches found on name): n1/web, n2/web")
	f.must(204, "DELETE", "/networks/n1/web", nil)
	f.must(204, "DELETE", "/networks/web", nil)
	if got := f.networksAt(); got != "" {
		t.Errorf("left: %s", got)
	}
}

func TestPredefinedNetworkShowsContainersOfAllNodes(t *testing.T) {
	f := newFleet(t, 2)
	for _, name := range []string{"aa", "bb"} {
		f.run(name, nil)
		f.must(204, "POST", "/containers/"+name+"/start", nil)
	}
	var w struct {
		Containers map[string]struct{ Name string }
	}
	f.must(200, "GET", "/networks/bridge", nil).decode(t, &w)
	if len(w.Containers) != 2 {
		t.Errorf("containers = %v, want aa and bb", w.Containers)
	}
	f.must(200, "GET", "/networks/n2/bridge", nil).decode(t, &w)
	f.daemons[1].Refuse()
	a := f.do("GET", "/networks/bridge", nil)
	if a.status != 200 || a.header.Get("X-Berth-Partial") != "n2" {
		t.Errorf("with n2 away: %d %s, partial %q", a.status, a.body, a.header.Get("X-Berth-Partial"))
	}
}

func TestConnectWhereBothAre(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n1/here"})
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n2/there"})
	if got := f.run("c1", onNetwork("here")); got != "n1" {
		t.Fatalf("c1 is on %s", got)
	}
	f.fails("POST", "/networks/there/connect", map[string]any{"Container": "c1"}, 400,
		"container c1 is on node n1, network there is on node n2: a bridge network has the containers of its own node only")
	f.fails("POST", "/networks/there/disconnect", map[string]any{"Container": "c1"}, 400,
		"container c1 is on node n1, network there is on node n2: a bridge network has the containers of its own node only")
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n1/more"})
	f.must(204, "POST", "/containers/c1/start", nil)
	f.must(200, "POST", "/networks/more/connect", map[string]any{"Container": "n1/c1"})
	c, err := f.cluster.Snapshot().Container("c1")
	if err != nil || !slices.ContainsFunc(c.Container.Networks, func(a fleet.Attachment) bool { return a.Name == "more" && a.NetworkID != "" }) {
		t.Errorf("after connect the picture shows %v, %v", c.Container.Networks, err)
	}
	f.must(200, "POST", "/networks/n1/more/disconnect", map[string]any{"Container": "c1"})
	if c, err = f.cluster.Snapshot().Container("c1"); err != nil || len(c.Container.Networks) != 1 {
		t.Errorf("after disconnect the picture shows %v, %v", c.Container.Networks, err)
	}
	f.must(200, "POST", "/networks/bridge/connect", map[string]any{"Container": "c1"})
}

func TestYoungNetworkFollowsTheContainerItIsConnectedTo(t *testing.T) {
	f := newFleet(t, 2)
	node := f.run("c1", nil)
	for range 4 { // at least one of them is made elsewhere
		f.network(fmt.Sprintf("w%d", len(f.networks(`{"type":["custom"]}`))))
	}
	for _, w := range f.networks(`{"type":["custom"]}`) {
		f.must(200, "POST", "/networks/"+w.ID+"/connect", map[string]any{"Container": "c1"})
	}
	want := fmt.Sprintf("w0@%[1]s w1@%[1]s w2@%[1]s w3@%[1]s", node)
	if got := f.networksAt(); got != want {
		t.Errorf("networks = %s, want %s", got, want)
	}
}

func TestPruneNetworksOnAllNodes(t *testing.T) {
	f := newFleet(t, 3)
	for _, name := range []string{"n1/a", "n2/b", "n3/c"} {
		f.must(201, "POST", "/networks/create", map[string]any{"Name": name})
	}
	f.run("x1", onNetwork("b"))
	f.must(204, "POST", "/containers/x1/start", nil)
	var gone struct{ NetworksDeleted []string }
	f.must(200, "POST", "/networks/prune", nil).decode(t, &gone)
	slices.Sort(gone.NetworksDeleted)
	if got := strings.Join(gone.NetworksDeleted, " "); got != "a c" || f.networksAt() != "b@n2" {
		t.Errorf("pruned %s, left %s", got, f.networksAt())
	}
}

func TestNetworksOfALostNodeStayListed(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n2/web"})
	f.daemons[1].Refuse()
	f.await("n2 is lost", func(s *fleet.Snapshot) bool { n, _ := s.NodeByName("n2"); return n.State != fleet.Healthy })
	if got := f.networksAt(); got != "web@n2" {
		t.Errorf("networks = %s", got)
	}
	if a := f.do("GET", "/networks", nil); a.header.Get("X-Berth-Partial") != "n2" {
		t.Errorf("partial = %q, want n2", a.header.Get("X-Berth-Partial"))
	}
	f.fails("POST", "/networks/create", map[string]any{"Name": "web"}, 409, "network with name web already exists")
	if a := f.do("GET", "/networks/web", nil); a.status != 503 || !strings.Contains(string(a.body), "node n2 is unreachable") {
		t.Errorf("inspect = %d %s, want 503 naming n2", a.status, a.body)
	}
}

func TestOneOfManyCreatesOfANetworkWins(t *testing.T) {
	f := newFleet(t, 3)
	statuses := make(chan int, 16)
	for range cap(statuses) {
		go func() { statuses <- f.do("POST", "/networks/create", map[string]any{"Name": "web"}).status }()
	}
	count := map[int]int{}
	for range cap(statuses) {
		count[<-statuses]++
	}
	if count[201] != 1 || count[409] != cap(statuses)-1 {
		t.Errorf("statuses = %v, want one 201", count)
	}
}
