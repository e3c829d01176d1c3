package move

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/internal/fleet"
)

// drained waits until a node has nothing left to move.
func (m *manager) drained(node string) fleet.Draining {
	m.w.t.Helper()
	var r fleet.Draining
	m.await(node+" is drained", func(s *fleet.Snapshot) bool {
		n, ok := s.NodeByName(node)
		if ok {
			r = m.mover.Report(n)
		}
		return ok && n.Availability == fleet.Drain && r.Done
	})
	return r
}

func TestADrainMovesContainersAsTheyAre(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	m.run("n1", "web", map[string]any{
		"Env": []string{"A=b"}, "Labels": map[string]string{"app": "shop"}, "ExposedPorts": map[string]any{"80/tcp": map[string]any{}},
		"HostConfig": map[string]any{
			"RestartPolicy": map[string]any{"Name": "always"}, "Memory": 64 << 20, "PortBindings": map[string]any{"80/tcp": []map[string]string{{"HostPort": "8080"}}},
		},
	})
	m.create("n1", "idle", map[string]any{})
	before, _ := w.daemons[0].Find("web")
	m.follow()
	m.want("n1", fleet.Drain, false)
	r := m.drained("n1")
	if len(r.Stuck) != 0 || len(r.Moved) != 2 {
		t.Errorf("report %+v", r)
	}
	after, ok := w.daemons[1].Find("web")
	if !ok || after.State != "running" || !slices.Contains(after.Env, "A=b") || after.Labels["app"] != "shop" || after.Memory != 64<<20 {
		t.Fatalf("web is %+v", after)
	}
	if id := after.Labels[fleet.LabelSwarmID]; id == "" || id != before.Labels[fleet.LabelSwarmID] {
		t.Errorf("Swarm ID %q became %q", before.Labels[fleet.LabelSwarmID], id)
	}
	if idle, ok := w.daemons[1].Find("idle"); !ok || idle.State != "created" {
		t.Errorf("idle is %+v", idle)
	}
	if left := w.daemons[0].Containers(); len(left) != 0 {
		t.Errorf("left behind: %+v", left)
	}
	var c struct {
		Config     struct{ Hostname string }
		HostConfig struct {
			RestartPolicy struct{ Name string }
			PortBindings  map[string][]struct{ HostPort string }
		}
	}
	if err := json.Unmarshal(m.do("GET", "/containers/web/json", nil), &c); err != nil {
		t.Fatal(err)
	}
	if c.HostConfig.RestartPolicy.Name != "always" || c.HostConfig.PortBindings["80/tcp"][0].HostPort != "8080" || c.Config.Hostname != after.ID[:12] {
		t.Errorf("inspected: %+v", c)
	}
	b, _ := m.Subscribe(t.Context())
	told := slices.ContainsFunc(b, func(e fleet.Event) bool {
		var a map[string]string
		return e.Action == "move" && e.ActorID == after.ID && json.Unmarshal(e.Attributes, &a) == nil &&
			a["from"] == "n1" && a["to"] == "n2" && a["name"] == "web" && a["reason"] == "node n1 is drained"
	})
	if !told {
		t.Errorf("no event tells of the move")
	}
	// And back, so that a container which has moved moves again.
	m.want("n1", fleet.Active, false)
	m.want("n2", fleet.Drain, false)
	m.drained("n2")
	if got := at(m.Snapshot(), "web"); got != "n1" {
		t.Errorf("web is at %q\n%s", got, w.shown())
	}
}

// fill puts files into a container's directory.
func fill(t *testing.T, m *manager, name, dir string, files int) {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for i := range files {
		text := strings.Repeat(fmt.Sprintf("file %d\n", i), 500)
		h := &tar.Header{
			Name: fmt.Sprintf("f%d", i), Mode: 0o640, Uid: 1000 + i, Gid: 7, Size: int64(len(text)), Typeflag: tar.TypeReg, ModTime: time.Unix(1700000000, 0),
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	m.do("PUT", "/containers/"+name+"/archive?path="+dir, b.Bytes())
}

func contents(t *testing.T, m *manager, name, dir string) string {
	t.Helper()
	d := newDigest()
	if err := d.read(bytes.NewReader(m.do("GET", "/containers/"+name+"/archive?path="+dir+"/.", nil))); err != nil {
		t.Fatal(err)
	}
	return d.sum()
}

func TestADrainCarriesVolumesAlong(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	m.run("n1", "db", map[string]any{"Volumes": map[string]any{"/cache": map[string]any{}}, "HostConfig": map[string]any{"Binds": []string{"data:/data"}}})
	fill(t, m, "db", "/data", 3)
	fill(t, m, "db", "/cache", 2)
	data, cache := contents(t, m, "db", "/data"), contents(t, m, "db", "/cache")
	m.follow()
	m.want("n1", fleet.Drain, false)
	r := m.drained("n1")
	if len(r.Stuck) != 1 || !slices.Contains(r.Stuck[0].Reasons, "it keeps data in local volume data") || len(r.Stuck[0].Reasons) != 2 {
		t.Errorf("without volumes: %+v", r)
	}
	m.want("n1", fleet.Drain, true)
	m.await("db is at n2", func(s *fleet.Snapshot) bool { return at(s, "db") == "n2" })
	m.drained("n1")
	if got := contents(t, m, "db", "/data"); got != data {
		t.Error("the named volume is not the same")
	}
	if got := contents(t, m, "db", "/cache"); got != cache {
		t.Error("the nameless volume is not the same")
	}
	if left := volumesOf(w.daemons[0]); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if db, _ := w.daemons[1].Find("db"); db.State != "running" {
		t.Errorf("db is %s", db.State)
	}
}

// Whenever a manager is killed in the middle of a drain, nothing is lost or doubled, and the next one finishes it.
func TestAManagerIsKilledAtEachStepOfAMove(t *testing.T) {
	for _, volumes := range []bool{false, true} {
		for _, effect := range []bool{false, true} {
			t.Run(fmt.Sprintf("volumes=%t,effect=%t", volumes, effect), func(t *testing.T) {
				for after := 0; ; after++ {
					if killedAfter(t, after, volumes, effect) {
						if after < 5 {
							t.Errorf("a move took %d changes only", after)
						}
						return
					}
				}
			})
		}
	}
}

// killedAfter kills the manager after some changes, and tells whether the move needed no more than these.
func killedAfter(t *testing.T, after int, volumes, effect bool) (whole bool) {
	t.Helper()
	w := newWorld(t, 2)
	m := w.manage()
	host := map[string]any{"RestartPolicy": map[string]any{"Name": "always"}}
	if volumes {
		host["Binds"] = []string{"data:/data"}
	}
	m.run("n1", "web", map[string]any{"HostConfig": host})
	sum := ""
	if volumes {
		fill(t, m, "web", "/data", 3)
		sum = contents(t, m, "web", "/data")
	}
	var wrong atomic.Pointer[string]
	complain := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		wrong.CompareAndSwap(nil, &text)
	}
	check := func() {
		running := 0
		for _, d := range w.daemons {
			for _, c := range d.Containers() {
				if c.State == "running" {
					running++
				}
			}
		}
		if running > 1 {
			complain("%d run at once", running)
		}
	}
	m.calls.check = check
	m.calls.DieAfter(after, effect)
	watch := func(m *manager) (end func()) {
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if s := m.Snapshot(); len(s.Nodes()) == 2 && at(s, "web") == "" {
					complain("%d containers are shown as web", len(s.Named("web")))
				}
				time.Sleep(200 * time.Microsecond)
			}
		}()
		return func() { close(stop); <-ended }
	}
	end := watch(m)
	m.follow()
	m.want("n1", fleet.Drain, volumes)
	deadline := time.After(10 * time.Second)
	for !whole {
		select {
		case <-m.calls.Died():
		case <-deadline:
			t.Fatalf("after %d changes: neither killed nor done\n%s", after, w.shown())
		case <-time.After(time.Millisecond):
			whole = at(m.Snapshot(), "web") == "n2" && len(w.daemons[0].Containers()) == 0 && len(volumesOf(w.daemons[0])) == 0
			continue
		}
		break
	}
	end()
	m.stop()
	if !whole {
		next := w.manage()
		next.calls.check = check
		end := watch(next)
		next.follow()
		next.await("the drain is finished", func(s *fleet.Snapshot) bool {
			return at(s, "web") == "n2" && len(w.daemons[0].Containers()) == 0 && len(volumesOf(w.daemons[0])) == 0
		})
		end()
		m = next
		if volumes && contents(t, m, "web", "/data") != sum {
			t.Errorf("after %d changes: the volume is not the same", after)
		}
		next.await("web runs", func(*fleet.Snapshot) bool { c, _ := w.daemons[1].Find("web"); return c.State == "running" })
	}
	if text := wrong.Load(); text != nil {
		t.Errorf("after %d changes: %s", after, *text)
	}
	if n := len(w.daemons[1].Containers()); n != 1 {
		t.Errorf("after %d changes: %d containers on n2\n%s", after, n, w.shown())
	}
	m.stop()
	return whole
}

func TestAContainerThatCannotStartElsewhereComesBack(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	m.run("n1", "web", map[string]any{"HostConfig": map[string]any{
		"RestartPolicy": map[string]any{"Name": "always"}, "Binds": []string{"data:/data"},
	}})
	web := m.Snapshot().Named("web")[0]
	m.calls.check = func() {
		// The one that waits on n2 will not start.
		if c, ok := w.daemons[1].Find("web"); ok && c.State == "created" {
			w.daemons[1].FailNext("POST", "/containers/"+c.ID+"/start", 500, "no such device")
		}
	}
	_, err := m.mover.Move(t.Context(), web.Node, web.Container.ID, Wish{Volumes: true})
	if err == nil || !strings.Contains(err.Error(), "move web from n1 to n2: start: ") || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("Move: %v", err)
	}
	if got := at(m.Snapshot(), "web"); got != "n1" {
		t.Errorf("web is at %q\n%s", got, w.shown())
	}
	var c struct {
		State      struct{ Running bool }
		HostConfig struct{ RestartPolicy struct{ Name string } }
	}
	if err := json.Unmarshal(m.do("GET", "/containers/web/json", nil), &c); err != nil {
		t.Fatal(err)
	}
	if !c.State.Running || c.HostConfig.RestartPolicy.Name != "always" {
		t.Errorf("web is %+v", c)
	}
	if left := append(volumesOf(w.daemons[1]), volumesOf(w.daemons[0])...); len(w.daemons[1].Containers()) != 0 || !slices.Equal(left, []string{"data"}) {
		t.Errorf("left behind:\n%s", w.shown())
	}
}

func TestAFleetWithoutRoomKeepsContainers(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	m.run("n1", "big", map[string]any{"HostConfig": map[string]any{"Memory": 3 << 30}})
	m.run("n2", "other", map[string]any{"HostConfig": map[string]any{"Memory": 3 << 30}})
	m.run("n1", "bound", map[string]any{"Env": []string{"constraint:node==n1"}})
	m.follow()
	m.want("n1", fleet.Drain, false)
	r := m.drained("n1")
	want := map[string]string{
		"big":   "no node fits big: 1 of 2 lacks memory (need 3GiB), 1 draining",
		"bound": "no node fits bound: 1 of 2 lacks constraint node==n1, 1 draining",
	}
	for _, s := range r.Stuck {
		if got := strings.Join(s.Reasons, "; "); got != want[s.Name] {
			t.Errorf("%s: %q, want %q", s.Name, got, want[s.Name])
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("not stuck: %v", want)
	}
	if got := at(m.Snapshot(), "big"); got != "n1" {
		t.Errorf("big is at %q", got)
	}
	// When there is room, it goes.
	m.do("DELETE", "/containers/other?force=1", nil)
	m.await("big is at n2", func(s *fleet.Snapshot) bool { return at(s, "big") == "n2" })
}

func TestReasons(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	m.do("POST", "/networks/create", map[string]any{"Name": "back", "Labels": map[string]string{"com.docker.swarm.constraints": `["node==n1"]`}})
	m.run("n1", "db", map[string]any{})
	host := func(h map[string]any) map[string]any { return map[string]any{"HostConfig": h} }
	for name, body := range map[string]map[string]any{
		"binds":   host(map[string]any{"Binds": []string{"/srv:/srv"}}),
		"mounts":  host(map[string]any{"Mounts": []map[string]any{{"Type": "bind", "Source": "/opt", "Target": "/opt"}}}),
		"rm":      host(map[string]any{"AutoRemove": true}),
		"device":  host(map[string]any{"Devices": []map[string]any{{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse"}}}),
		"linked":  host(map[string]any{"Links": []string{"db:sql"}}),
		"shares":  host(map[string]any{"NetworkMode": "container:db"}),
		"network": host(map[string]any{"NetworkMode": "back"}),
		"volume":  host(map[string]any{"Binds": []string{"data:/data"}}),
	} {
		m.run("n1", name, body)
	}
	m.do("POST", "/containers/rm/pause", nil)
	want := map[string]string{
		"binds": "it mounts /srv of its node", "mounts": "it mounts /opt of its node", "device": "it uses device /dev/fuse of its node",
		"rm":     "it is paused, and what it has in memory would be lost; it is removed when it stops (--rm)",
		"linked": "it is linked to db", "shares": "it shares the network namespace of db", "network": "it is in network back of its node",
		"volume": "it keeps data in local volume data",
		"db":     "linked is linked to it; shares shares its network namespace",
	}
	m.follow()
	m.want("n1", fleet.Drain, false)
	for _, s := range m.drained("n1").Stuck {
		if got := strings.Join(s.Reasons, "; "); got != want[s.Name] {
			t.Errorf("%s: %q, want %q", s.Name, got, want[s.Name])
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("not stuck: %v\n%s", want, w.shown())
	}
}

func TestRebalanceTellsAndMoves(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	for i := range 4 {
		m.run("n1", fmt.Sprintf("web%d", i), map[string]any{})
	}
	m.run("n1", "db", map[string]any{"HostConfig": map[string]any{"Binds": []string{"data:/data"}}})
	m.follow()
	plan, considered, err := m.mover.Plan(t.Context(), 9)
	if err != nil || considered != 4 || len(plan) != 2 || plan[0].From != "n1" || plan[0].To != "n2" || plan[0].Why == "" {
		t.Fatalf("Plan = %+v of %d, %v", plan, considered, err)
	}
	for _, s := range plan {
		m.do("POST", "/berth/containers/"+s.ID+"/move?to="+s.To, nil)
		if got := at(m.Snapshot(), s.Name); got != "n2" {
			t.Errorf("%s is at %q", s.Name, got)
		}
	}
	if plan, _, err = m.mover.Plan(t.Context(), 9); err != nil || len(plan) != 0 {
		t.Errorf("after it: %+v, %v", plan, err)
	}
}

// Moves of other managers are not ours to finish: they may be in their midst.
func TestMovesOfOthersAreLeftAlone(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	m.run("n1", "web", map[string]any{})
	web := m.Snapshot().Named("web")[0]
	mark := fleet.Move{From: web.Container.ID, Node: web.Node.ID, Run: true, By: "somebody"}
	inspection := m.do("GET", "/containers/web/json", nil)
	id, err := Recreate(t.Context(), m.calls, inspection, m.node("n2"), Recreation{
		Name: fleet.MovingName(web.Container.ID, false), Labels: map[string]string{fleet.LabelMoved: mark.Label()}, API: "1.41",
	})
	if err != nil {
		t.Fatal(err)
	}
	m.follow()
	m.await("it is seen", func(*fleet.Snapshot) bool {
		n := find(m.Whole(), m.node("n2").ID)
		_, ok := n.Find(id)
		return ok
	})
	time.Sleep(50 * time.Millisecond) // several looks
	if _, ok := w.daemons[1].Find(id); !ok {
		t.Error("it was removed")
	}
	if _, shown := m.node("n2").Find(id); shown || at(m.Snapshot(), "web") != "n1" {
		t.Errorf("what waits for its turn is shown\n%s", w.shown())
	}
}

func TestPruneWaitsForMoves(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	m.run("n1", "web", map[string]any{})
	reached, release := w.daemons[0].HoldNext("POST", "/containers/"+m.Snapshot().Named("web")[0].Container.ID+"/stop")
	defer release()
	m.follow()
	m.want("n1", fleet.Drain, false)
	<-reached
	r, err := m.server.Client().Post(m.server.URL+"/v1.41/containers/prune", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != 503 {
		t.Errorf("prune in the midst of a move = %d", r.StatusCode)
	}
	release()
	m.drained("n1")
	if got := at(m.Snapshot(), "web"); got != "n2" {
		t.Errorf("web is at %q", got)
	}
	m.do("POST", "/containers/prune", nil)
}

func TestALostNodeCannotBeDrained(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage()
	m.run("n1", "web", map[string]any{})
	m.follow()
	w.daemons[0].Refuse()
	m.await("n1 is lost", func(*fleet.Snapshot) bool { return m.node("n1").State == fleet.Unhealthy })
	m.want("n1", fleet.Drain, false)
	r := m.drained("n1")
	if len(r.Stuck) != 1 || !strings.Contains(r.Stuck[0].Reasons[0], "node n1 does not answer: ") {
		t.Errorf("%+v", r)
	}
	if err := w.daemons[0].Listen(); err != nil {
		t.Fatal(err)
	}
	m.await("web is at n2", func(s *fleet.Snapshot) bool { return at(s, "web") == "n2" })
}
