package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

func (f *testFleet) members() []memberNode {
	f.t.Helper()
	var nodes []memberNode
	f.must(200, "GET", "/nodes", nil).decode(f.t, &nodes)
	return nodes
}

func (f *testFleet) memberNamed(name string) memberNode {
	f.t.Helper()
	var n memberNode
	f.must(200, "GET", "/nodes/"+name, nil).decode(f.t, &n)
	return n
}

// want updates a node as the stock client does: with the version it has just read.
func (f *testFleet) want(name string, edit func(*swarm.NodeSpec)) {
	f.t.Helper()
	n := f.memberNamed(name)
	edit(&n.Spec)
	f.must(200, "POST", fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec)
}

func pause(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityPause }

func TestNodesAsObjects(t *testing.T) {
	f := newFleet(t, 2, func(o *dockertest.Options) { o.Labels = []string{"zone=" + o.Name} })
	nodes := f.members()
	if len(nodes) != 2 {
		t.Fatalf("%d nodes", len(nodes))
	}
	n := nodes[0]
	if len(n.ID) != 25 || n.Description.Hostname != "n1" || n.Status.State != "ready" || n.Spec.Availability != "active" || n.Spec.Role != "worker" ||
		n.ManagerStatus != nil || n.Description.Engine.Labels["zone"] != "n1" || n.Description.Resources.NanoCPUs != 2e9 || n.Description.Engine.EngineVersion == "" ||
		n.CreatedAt.IsZero() || n.Berth.Addr != f.daemons[0].HostPort() {
		t.Errorf("n1 is shown as %+v", n)
	}
	for _, ref := range []string{n.ID, n.ID[:6], "n1", f.daemons[0].ID(), n.Berth.NodeID} {
		if got := f.memberNamed(ref); got.ID != n.ID {
			t.Errorf("%s is node %s, want %s", ref, got.ID, n.ID)
		}
	}
	f.fails("GET", "/nodes/nosuch", nil, 404, "node nosuch not found")
	for filter, want := range map[string]int{
		`{"name":{"n2":true}}`: 1, `{"id":["` + n.ID + `"]}`: 1, `{"role":["manager"]}`: 0, `{"role":["worker"]}`: 2, `{"label":["zone=n2"]}`: 1,
		`{"node.label":["size"]}`: 0, `{"membership":["accepted"]}`: 2,
	} {
		var found []memberNode
		f.must(200, "GET", "/nodes?"+query("filters", filter), nil).decode(t, &found)
		if len(found) != want {
			t.Errorf("filter %s finds %d, want %d", filter, len(found), want)
		}
	}
	f.fails("GET", "/nodes?"+query("filters", `{"colour":["red"]}`), nil, 400, "invalid filter 'colour'")
	var info struct {
		Swarm struct{ LocalNodeState string }
	}
	f.must(200, "GET", "/info", nil).decode(t, &info)
	if info.Swarm.LocalNodeState != "inactive" {
		t.Errorf("info says Swarm is %s", info.Swarm.LocalNodeState)
	}
}

func TestAPausedNodeTakesNoContainers(t *testing.T) {
	f := newFleet(t, 2)
	f.want("n1", pause)
	for i := range 4 {
		f.must(201, "POST", fmt.Sprintf("/containers/create?name=c%d", i), map[string]any{"Image": "busybox"})
	}
	if n := len(f.daemons[0].Containers()); n != 0 {
		t.Errorf("the paused node got %d containers", n)
	}
	a := f.do("POST", "/containers/create", map[string]any{"Image": "busybox", "Env": []string{"constraint:node==n1"}})
	if a.status != 503 || !strings.Contains(string(a.body), "1 paused") {
		t.Errorf("a create for the paused node = %d %s", a.status, a.body)
	}
	b := string(f.must(200, "GET", "/info", nil).body)
	if !strings.Contains(b, `["  └ Availability","pause"]`) || !strings.Contains(b, `"Availability":"pause"`) {
		t.Errorf("info does not tell of the pause: %s", b)
	}
	f.want("n1", func(s *swarm.NodeSpec) { s.Availability = "active" })
	f.must(201, "POST", "/containers/create?name=back", map[string]any{"Image": "busybox"})
	if n := len(f.daemons[0].Containers()); n != 1 {
		t.Errorf("the node that is active again got %d containers, want the next one", n)
	}
	events := string(f.must(200, "GET", "/events?until=0&"+query("filters", `{"type":["node"],"event":["pause","active"]}`), nil).body)
	for _, want := range []string{`"availability.new":"pause"`, `"availability.old":"pause"`, `"reason":"availability was set to active"`} {
		if !strings.Contains(events, want) {
			t.Errorf("the events lack %s:\n%s", want, events)
		}
	}
}

func TestAddedLabelsCountForConstraints(t *testing.T) {
	f := newFleet(t, 2)
	f.want("n2", func(s *swarm.NodeSpec) { s.Labels = map[string]string{"size": "xxl", "containerslots": "1"} })
	create := map[string]any{"Image": "busybox", "Env": []string{"constraint:size==xxl"}}
	if node := f.must(201, "POST", "/containers/create", create).header.Get("X-Berth-Node"); node != "n2" {
		t.Errorf("went to %s", node)
	}
	if a := f.do("POST", "/containers/create", create); a.status != 503 || !strings.Contains(string(a.body), "container slot") {
		t.Errorf("past the added containerslots = %d %s", a.status, a.body)
	}
	if n := f.memberNamed("n2"); n.Spec.Labels["size"] != "xxl" || n.Description.Engine.Labels["size"] != "" {
		t.Errorf("n2 is shown as %+v", n)
	}
	f.want("n2", func(s *swarm.NodeSpec) { delete(s.Labels, "size") })
	f.must(503, "POST", "/containers/create", create)
}

func TestUpdatesThatAreRefused(t *testing.T) {
	f := newFleet(t, 1)
	n := f.memberNamed("n1")
	at := func(version int) string { return fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, version) }
	spec := map[string]any{"Role": "worker", "Availability": "pause"}
	if n.Version.Index != 1 {
		t.Errorf("a new node has version %d, want 1: docker-py takes 0 for none", n.Version.Index)
	}
	f.fails("POST", at(0), spec, 500, "rpc error: code = Unknown desc = update out of sequence")
	f.must(200, "POST", at(1), spec)
	f.fails("POST", at(1), spec, 500, "rpc error: code = Unknown desc = update out of sequence")
	f.fails("POST", "/nodes/"+n.ID+"/update?version=x", spec, 400, `invalid node version 'x': strconv.ParseUint: parsing "x": invalid syntax`)
	f.fails("POST", at(2), map[string]any{"Role": "manager"}, 400, noRoles)
	f.fails("POST", at(2), map[string]any{"Availability": "lazy"}, 400, `invalid availability "lazy": it is active, pause or drain`)
	f.fails("POST", at(2), map[string]any{"Labels": map[string]string{"node": "x"}}, 400, "label node says what the engine is, and cannot be given")
	f.fails("POST", "/nodes/nosuch/update?version=1", spec, 404, "node nosuch not found")
	if got := f.memberNamed("n1"); got.Version.Index != 2 || got.Spec.Availability != "pause" {
		t.Errorf("n1 is shown as %+v", got)
	}
}

func TestNodesAreRemoved(t *testing.T) {
	f := newFleet(t, 2)
	a := f.do("DELETE", "/nodes/n1", nil)
	if a.status != 400 || !strings.Contains(string(a.body), "its source still names it") {
		t.Errorf("rm of a node that answers = %d %s", a.status, a.body)
	}
	f.daemons[0].Refuse()
	f.await("n1 is lost", func(s *fleet.Snapshot) bool { n, _ := s.NodeByName("n1"); return n.State == fleet.Unhealthy })
	f.must(200, "DELETE", "/nodes/n1", nil)
	if nodes := f.members(); len(nodes) != 1 || nodes[0].Description.Hostname != "n2" {
		t.Errorf("after the removal: %+v", nodes)
	}
	f.must(200, "DELETE", "/nodes/n2?force=1", nil)
	if nodes := f.members(); len(nodes) != 0 {
		t.Errorf("after the removal by force: %+v", nodes)
	}
	f.must(404, "DELETE", "/nodes/n2", nil)
	// An update brings it back.
	f.want("n2", func(s *swarm.NodeSpec) { s.Availability = "active" })
	f.await("n2 is back", func(s *fleet.Snapshot) bool { n, ok := s.NodeByName("n2"); return ok && n.State == fleet.Healthy })
}

func TestTasksAreTheContainersOfANode(t *testing.T) {
	f := newFleet(t, 1)
	f.must(201, "POST", "/containers/create?name=web", map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "1000"}})
	f.must(204, "POST", "/containers/web/start", nil)
	f.must(201, "POST", "/containers/create?name=new", map[string]any{"Image": "busybox"})
	n := f.memberNamed("n1")
	var tasks []swarm.Task
	f.must(200, "GET", "/tasks?"+query("filters", `{"node":["`+n.ID+`"]}`), nil).decode(t, &tasks)
	if len(tasks) != 2 || tasks[0].ServiceID != "new" || tasks[0].Status.State != "ready" || tasks[1].ServiceID != "web" || tasks[1].Status.State != "running" ||
		tasks[1].DesiredState != "running" || tasks[1].Spec.ContainerSpec.Image != "busybox" || tasks[1].NodeID != n.ID {
		t.Errorf("%+v", tasks)
	}
	f.must(200, "GET", "/tasks?"+query("filters", `{"node":["n1"],"name":["web"]}`), nil).decode(t, &tasks)
	if len(tasks) != 1 {
		t.Errorf("by name: %+v", tasks)
	}
	f.must(http.StatusServiceUnavailable, "GET", "/services/web", nil)
}
