package rescue

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// doubles watches that a name is never shown twice, until the test ends.
func (m *manager) doubles(names ...string) {
	var stop atomic.Bool
	done := make(chan struct{})
	m.w.t.Cleanup(func() { stop.Store(true); <-done })
	go func() {
		defer close(done)
		for !stop.Load() {
			for _, name := range names {
				if found := m.Snapshot().Named(name); len(found) > 1 {
					m.w.t.Errorf("%s is shown on %s and %s", name, found[0].Node.Name, found[1].Node.Name)
					return
				}
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
}

// The containers with the policy come back elsewhere as they were, once, and what was lost is set aside.
func TestALostNode(t *testing.T) {
	w := newWorld(t, 3)
	m := w.manage(3).follow()
	m.run("n1", "web", []string{policy, "A=b"}, map[string]any{"RestartPolicy": map[string]any{"Name": "always"}})
	m.create("n1", "idle", []string{policy}, nil)
	m.run("n1", "plain", nil, nil)
	m.run("n2", "other", []string{policy}, nil)
	m.awaitKept(3)
	m.doubles("web", "idle", "plain", "other")
	was, _ := w.daemons[0].Find("web")
	w.daemons[0].Refuse()
	m.await("web runs elsewhere", on("web", "running", "n2", "n3"))
	m.await("idle is elsewhere", on("idle", "created", "n2", "n3"))
	is, _ := w.daemons[0].Find("plain")
	if got := at(m.Snapshot(), "plain"); got != "n1" || is.State != "running" {
		t.Errorf("plain is on %s", got)
	}
	found := m.Snapshot().Named("web")[0]
	if found.Container.Labels.Get(fleet.LabelSwarmID) != was.Labels[fleet.LabelSwarmID] {
		t.Error("the Swarm ID is another")
	}
	if got := at(m.Snapshot(), "other"); got != "n2" {
		t.Errorf("other is on %s", got)
	}
	if err := w.daemons[0].Listen(); err != nil {
		t.Fatal(err)
	}
	stale := fleet.StaleName("web", was.ID)
	m.await("what was lost is shown under another name", on(stale, "exited", "n1"))
	m.await("idle's, too", func(*fleet.Snapshot) bool { _, aside := w.copies("idle"); return aside == 1 })
	if n := w.running("web"); n != 1 {
		t.Errorf("web runs %d times\n%s", n, w.shown())
	}
	c := m.Snapshot().Named(stale)[0].Container
	if c.Labels.Get(fleet.LabelStale) != "web" || c.Labels.Get(fleet.LabelSwarmID) != "" || c.Reschedule != fleet.RescheduleOff {
		t.Errorf("labels of what was lost: %s", c.Labels)
	}
	_, b := w.daemons[0].Do("GET", "/containers/"+stale+"/json", nil)
	var i inspection
	if err := json.Unmarshal(b, &i); err != nil || i.HostConfig.RestartPolicy.Name != "no" || i.ID != was.ID {
		t.Errorf("%v, restart policy %q, ID %s", err, i.HostConfig.RestartPolicy.Name, i.ID)
	}
	// It is found by its ID and by its node's name, and its user may remove it.
	m.do("GET", "/containers/"+was.ID+"/json", nil)
	m.do("DELETE", "/containers/n1/"+stale, nil)
	if own, aside := w.copies("web"); own != 1 || aside != 0 {
		t.Errorf("web: %d, aside %d", own, aside)
	}
	for action, want := range map[string]string{EventDone: `"reason":"node n1 is lost"`, EventAside: `"from":"n1"`} {
		if !m.told(action, "web", want) {
			t.Errorf("no event %s", action)
		}
	}
}

// told looks for an event.
func (m *manager) told(action, name, with string) bool {
	ctx := m.w.t.Context()
	backlog, _ := m.Subscribe(ctx)
	return slices.ContainsFunc(backlog, func(e fleet.Event) bool {
		return e.Action == action && strings.Contains(string(e.Attributes), `"`+name) && strings.Contains(string(e.Attributes), with)
	})
}

// What is lost twice is there once; both lost ones are set aside.
func TestTwoNodesLostInTurn(t *testing.T) {
	w := newWorld(t, 3)
	m := w.manage(3).follow()
	m.run("n1", "web", []string{policy}, nil)
	m.awaitKept(1)
	m.doubles("web")
	w.daemons[0].Refuse()
	m.await("web runs elsewhere", on("web", "running", "n2", "n3"))
	m.awaitKept(1)
	second, last := 1, 2
	if at(m.Snapshot(), "web") == "n3" {
		second, last = 2, 1
	}
	w.daemons[second].Refuse()
	m.await("web runs on the last", on("web", "running", fmt.Sprintf("n%d", last+1)))
	for _, i := range []int{0, second} {
		if err := w.daemons[i].Listen(); err != nil {
			t.Fatal(err)
		}
	}
	m.await("both are set aside", func(*fleet.Snapshot) bool {
		own, aside := w.copies("web")
		return own == 1 && aside == 2 && w.running("web") == 1
	})
	m.await("web runs", on("web", "running", fmt.Sprintf("n%d", last+1)))
}

// What keeps a container from coming back is said once, and once it is gone the container comes back.
func TestWaiting(t *testing.T) {
	full := func(i int, o *dockertest.Options) { o.MemTotal = 1 << 30 }
	for name, tt := range map[string]struct {
		env   []string
		host  map[string]any
		image string
		edit  func(i int, o *dockertest.Options)
		block func(m *manager)
		why   string
		help  func(m *manager)
	}{
		"no room": {
			host: map[string]any{"Memory": 600 << 20}, edit: full, why: "lacks memory",
			block: func(m *manager) { m.run("n2", "big", nil, map[string]any{"Memory": 600 << 20}) },
			help:  func(m *manager) { m.do("DELETE", "/containers/big?force=1", nil) },
		},
		"no image": {
			image: "special:1", edit: func(i int, o *dockertest.Options) {
				if i == 0 {
					o.Images = append(o.Images, "special:1")
				}
			},
			why:  "no node has image special:1, and it cannot be pulled",
			help: func(m *manager) { m.w.daemons[1].AddPullable("special:1") },
		},
		"a constraint": {
			env: []string{"constraint:node==n1"}, why: "lacks constraint node==n1",
		},
		"a volume": {host: map[string]any{"Binds": []string{"data:/data"}}, why: "its data in volume data is on node n1"},
		"a volume without a name": {
			host: map[string]any{"Mounts": []map[string]any{{"Type": "volume", "Target": "/data"}}}, why: "its data in a volume without a name is on node n1",
		},
		"--rm": {host: map[string]any{"AutoRemove": true}, why: "--rm"},
		"a name that somebody took": {
			block: func(m *manager) { m.w.daemons[1].AddContainer(dockertest.Container{Name: "web"}) }, why: "already in use",
			help: func(m *manager) { m.w.daemons[1].Do("DELETE", "/containers/web?force=1", nil) },
		},
		"a start that fails": {
			block: func(m *manager) { m.w.daemons[1].FailNext("POST", "/containers/", 500, "no luck") }, // the create
			why:   "no luck", help: func(*manager) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, func(i int, o *dockertest.Options) {
				if tt.edit != nil {
					tt.edit(i, o)
				}
			})
			m := w.manage(2)
			body := map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "1000"}, "Env": append(tt.env, policy), "HostConfig": tt.host}
			if tt.image != "" {
				body["Image"] = tt.image
			}
			m.do("POST", "/containers/create?name=n1/web", body)
			m.do("POST", "/containers/web/start", nil)
			m.awaitKept(1)
			id := m.Snapshot().Named("web")[0].Container.ID
			if tt.block != nil {
				tt.block(m)
			}
			m.follow()
			w.daemons[0].Refuse()
			if tt.why != "" {
				m.await("it waits: "+tt.why, func(*fleet.Snapshot) bool { return m.told(EventWaiting, "web", tt.why) })
			}
			if tt.help == nil {
				time.Sleep(2 * testDelay)
				if why := m.rescuer.Waiting(id); !strings.Contains(why, tt.why) {
					t.Errorf("waits for %q", why)
				}
				if got := at(m.Snapshot(), "web"); got != "n1" {
					t.Errorf("it is on %s", got)
				}
				return
			}
			tt.help(m)
			m.await("web runs on n2", on("web", "running", "n2"))
			if own, _ := w.copies("web"); own != 2 {
				t.Errorf("%d of them\n%s", own, w.shown())
			}
			if why := m.rescuer.Waiting(id); why != "" && !eventuallyEmpty(m, id) {
				t.Errorf("still waits for %q", why)
			}
		})
	}
}

func eventuallyEmpty(m *manager, id string) bool {
	for range 1000 {
		if m.rescuer.Waiting(id) == "" {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// With restart-empty a container comes back with new volumes, labelled as the old ones, and never with somebody else's.
func TestRestartEmpty(t *testing.T) {
	w := newWorld(t, 3)
	m := w.manage(3).follow()
	m.do("POST", "/volumes/create", map[string]any{"Name": "n1/data", "Labels": map[string]string{"app": "shop"}})
	m.run("n1", "db", []string{"reschedule:restart-empty"}, map[string]any{"Binds": []string{"data:/data"}})
	w.daemons[1].Do("POST", "/volumes/create", map[string]any{"Name": "data"})
	m.awaitKept(1)
	w.daemons[0].Refuse()
	m.await("db runs on n3", on("db", "running", "n3"))
	_, b := w.daemons[2].Do("GET", "/volumes/data", nil)
	if !strings.Contains(string(b), `"app":"shop"`) {
		t.Errorf("the new volume: %s", b)
	}
	if err := w.daemons[0].Listen(); err != nil {
		t.Fatal(err)
	}
	m.await("the old one is set aside", func(*fleet.Snapshot) bool { _, aside := w.copies("db"); return aside == 1 })
	if _, b := w.daemons[0].Do("GET", "/volumes/data", nil); !strings.Contains(string(b), `"app":"shop"`) {
		t.Errorf("the old volume: %s", b)
	}
}

// A start that one node refuses is tried on another, and nothing is left on the first.
func TestAStartThatIsRefused(t *testing.T) {
	w := newWorld(t, 3)
	m := w.manage(3)
	m.run("n1", "web", []string{policy}, nil)
	m.awaitKept(1)
	m.doubles("web")
	var refusedOn atomic.Pointer[string] // the node that is asked first
	m.calls.veto = func(nodeID string, r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/start") && (refusedOn.CompareAndSwap(nil, &nodeID) || *refusedOn.Load() == nodeID)
	}
	m.follow()
	w.daemons[0].Refuse()
	m.await("web runs elsewhere", on("web", "running", "n2", "n3"))
	if own, aside := w.copies("web"); own != 2 || aside != 0 {
		t.Errorf("%d, %d aside\n%s", own, aside, w.shown())
	}
	if !m.told(EventWaiting, "web", "would not") {
		t.Error("nobody was told")
	}
}

// A node that comes back before its container was started elsewhere keeps it.
func TestANodeThatComesBackInTheMiddle(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage(2)
	m.run("n1", "web", []string{policy}, nil)
	m.awaitKept(1)
	m.doubles("web")
	reached, release := w.daemons[1].HoldNext("POST", "/containers/create")
	m.follow()
	w.daemons[0].Refuse()
	<-reached
	if err := w.daemons[0].Listen(); err != nil {
		t.Fatal(err)
	}
	m.await("n1 answers", func(s *fleet.Snapshot) bool { n, _ := s.NodeByName("n1"); return n.State == fleet.Healthy })
	release()
	m.await("nothing is left on n2", func(*fleet.Snapshot) bool {
		created := slices.ContainsFunc(w.daemons[1].Requests(), func(r dockertest.Request) bool { return r.Method == "DELETE" })
		return created && len(w.daemons[1].Containers()) == 0
	})
	m.await("web runs where it was", on("web", "running", "n1"))
}

// Another manager goes on wherever the one before was killed; nothing is lost, and nothing runs twice.
func TestAManagerKilledAtAnyStep(t *testing.T) {
	for _, effect := range []bool{false, true} {
		for left := range 4 {
			t.Run(fmt.Sprintf("after %d changes, the last done %v", left, effect), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 3)
				m := w.manage(3)
				m.run("n1", "web", []string{policy}, nil)
				m.awaitKept(1)
				m.calls.DieAfter(left, effect)
				m.follow()
				w.daemons[0].Refuse()
				if left < 3 { // create, rename, start
					<-m.calls.Died()
				} else {
					m.await("web runs elsewhere", on("web", "running", "n2", "n3"))
				}
				m.stop()
				m = w.manage(2).follow()
				m.doubles("web")
				m.await("web runs elsewhere", on("web", "running", "n2", "n3"))
				m.await("nothing else is left", func(*fleet.Snapshot) bool { own, _ := w.copies("web"); return own == 2 && w.running("web") == 2 })
				if err := w.daemons[0].Listen(); err != nil { // it ran on, which nobody could help
					t.Fatal(err)
				}
				m.await("the lost one is set aside", func(*fleet.Snapshot) bool { own, aside := w.copies("web"); return own == 1 && aside == 1 })
				m.await("web runs", on("web", "running", "n2", "n3"))
			})
		}
	}
}

// The same while what was lost is set aside.
func TestAManagerKilledWhileItSetsAside(t *testing.T) {
	for _, effect := range []bool{false, true} {
		for left := range 3 { // policy, stop, rename
			t.Run(fmt.Sprintf("after %d changes, the last done %v", left, effect), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 2)
				m := w.manage(2).follow()
				m.run("n1", "web", []string{policy}, map[string]any{"RestartPolicy": map[string]any{"Name": "always"}})
				m.awaitKept(1)
				w.daemons[0].Refuse()
				m.await("web runs on n2", on("web", "running", "n2"))
				m.awaitKept(1)
				m.calls.DieAfter(left, effect)
				if err := w.daemons[0].Listen(); err != nil {
					t.Fatal(err)
				}
				<-m.calls.Died()
				m.stop()
				m = w.manage(2).follow()
				m.await("the lost one is set aside", func(*fleet.Snapshot) bool { own, aside := w.copies("web"); return own == 1 && aside == 1 })
				m.await("web runs on n2", on("web", "running", "n2"))
			})
		}
	}
}

// A node that leaves while it answers is not lost; one that does not answer when it leaves is.
func TestANodeThatLeaves(t *testing.T) {
	w := newWorld(t, 3)
	m := w.manage(3).follow()
	m.run("n1", "web", []string{policy}, nil)
	m.run("n2", "db", []string{policy}, nil)
	m.awaitKept(2)
	m.set <- w.endpoints(1, 2)
	m.await("n1 has left", func(s *fleet.Snapshot) bool { return len(s.Nodes()) == 2 })
	w.daemons[1].Refuse()
	m.await("n2 is unhealthy", func(s *fleet.Snapshot) bool { n, _ := s.NodeByName("n2"); return n.State == fleet.Unhealthy })
	time.Sleep(20 * time.Millisecond) // the keeper sees it, too
	m.set <- w.endpoints(2)
	m.await("db runs on n3", on("db", "running", "n3"))
	time.Sleep(2 * testDelay)
	if found := m.Snapshot().Named("web"); len(found) != 0 {
		t.Errorf("web is on %s", found[0].Node.Name)
	}
	m.set <- w.endpoints(0, 2)
	m.await("web is where it was", on("web", "running", "n1"))
}

// Of several managers, each with a store of its own, one acts. Another that takes over knows what to do, and what was done: a
// container that was removed after it came back elsewhere does not come back again.
func TestAnotherManagerTakesOver(t *testing.T) {
	w := newWorld(t, 3)
	replica, primary := w.manageAt(filepath.Join(t.TempDir(), "other"), 3), w.manage(3)
	primary.run("n1", "web", []string{policy}, nil)
	primary.run("n1", "shop", []string{policy}, nil)
	primary.awaitKept(2)
	replica.awaitKept(2)
	replica.doubles("web", "shop")
	primary.calls.DieAfter(1, true)
	primary.follow()
	w.daemons[0].Refuse()
	<-primary.calls.Died()
	primary.stop()
	replica.follow()
	for _, name := range []string{"web", "shop"} {
		replica.await(name+" runs elsewhere", on(name, "running", "n2", "n3"))
	}
	replica.do("DELETE", "/containers/web?force=1", nil)
	time.Sleep(2 * testDelay)
	if own, aside := w.copies("web"); own != 1 || aside != 0 { // that of the dead node
		t.Errorf("web after it was removed: %d, %d aside\n%s", own, aside, w.shown())
	}
	if own, _ := w.copies("shop"); own != 2 {
		t.Errorf("%d of shop\n%s", own, w.shown())
	}
}

// A deposed primary does nothing any more.
func TestOneThatMayNotAct(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage(2)
	m.run("n1", "web", []string{policy}, nil)
	m.awaitKept(1)
	m.rescuer.o.Check = func() error { return errors.New("this manager is not the primary any more") }
	m.follow()
	w.daemons[1].ResetRequests()
	w.daemons[0].Refuse()
	m.await("it tries", func(*fleet.Snapshot) bool { return m.told(EventWaiting, "web", "not the primary") })
	if changed := slices.ContainsFunc(w.daemons[1].Requests(), func(r dockertest.Request) bool { return r.Method != "GET" && r.Method != "HEAD" }); changed {
		t.Errorf("it changed something: %+v", w.daemons[1].Requests())
	}
}

// What is kept has secrets and is removed with its container.
func TestTheShelf(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage(2)
	m.run("n1", "web", []string{policy, "SECRET=1"}, nil)
	m.awaitKept(1)
	id := m.Snapshot().Named("web")[0].Container.ID
	path := filepath.Join(w.dir, id+".json")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if dir, err := os.Stat(w.dir); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", dir, err)
	}
	m.do("POST", "/containers/web/rename?name=shop", nil)
	m.await("the new name is kept", func(*fleet.Snapshot) bool {
		d, err := m.keeper.shelf.get(id)
		return err == nil && d.Record.Name == "shop"
	})
	m.do("DELETE", "/containers/shop?force=1", nil)
	m.await("it is forgotten", func(*fleet.Snapshot) bool { _, err := os.Stat(path); return os.IsNotExist(err) })
}

// A container that its engine ended as it shut down is started; one that had ended before is not.
func TestWhatCountsAsRunning(t *testing.T) {
	at := time.Unix(1e9, 0)
	n := &fleet.Node{ID: "e|a", Skew: time.Minute}
	end := func(ago time.Duration) *inspection {
		i := &inspection{ID: "x"}
		i.State.Status, i.State.FinishedAt = "exited", at.Add(-ago).Add(n.Skew)
		return i
	}
	run := &inspection{ID: "x"}
	run.State.Status, run.State.Running = "running", true
	created := &inspection{ID: "x"}
	created.State.Status = "created"
	toStart := &inspection{ID: "x"}
	toStart.State.Status, toStart.Config.Labels = "created", map[string]string{fleet.LabelRescued: fleet.Rescue{From: []string{"y"}, Run: true}.Label()}
	for name, tt := range map[string]struct {
		is     *inspection
		before *record
		want   bool
		later  bool // after its node went on for a while
	}{
		"it runs":                          {run, nil, true, true},
		"it was never started":             {created, nil, false, false},
		"its place was taken a moment ago": {toStart, nil, true, true},
		"it ended a moment ago":            {end(time.Second), &record{Run: true}, true, false},
		"it ended while nobody looked":     {end(time.Hour), &record{Run: true}, false, false},
		"it had ended":                     {end(time.Second), &record{}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(n, tt.is, nil, tt.before, at)
			if r.Run != tt.want {
				t.Errorf("runs: %v", r.Run)
			}
			if r.settle(at.Add(farewell)); r.Run != tt.later {
				t.Errorf("runs later: %v", r.Run)
			}
		})
	}
}

// An engine that shuts down ends its containers before it falls silent.
func TestAShutdown(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage(2).follow()
	m.run("n1", "web", []string{policy}, nil)
	m.awaitKept(1)
	w.daemons[0].Exit("web", 143)
	m.await("web has ended", on("web", "exited", "n1"))
	m.awaitKept(1)
	w.daemons[0].Refuse()
	m.await("web runs on n2", on("web", "running", "n2"))
}

// A container goes back to a node of its own: policies and marks of ended rescues do not start anything.
func TestAStoppedOneStaysStopped(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manage(2).follow()
	m.run("n1", "web", []string{policy}, nil)
	m.awaitKept(1)
	w.daemons[0].Refuse()
	m.await("web runs on n2", on("web", "running", "n2"))
	m.do("POST", "/containers/web/stop", nil)
	if err := w.daemons[0].Listen(); err != nil {
		t.Fatal(err)
	}
	m.await("what was lost is set aside", func(*fleet.Snapshot) bool { _, aside := w.copies("web"); return aside == 1 })
	time.Sleep(50 * time.Millisecond)
	m.await("web is stopped", on("web", "exited", "n2"))
	if n := w.running("web"); n != 0 {
		t.Errorf("it runs %d times", n)
	}
}
