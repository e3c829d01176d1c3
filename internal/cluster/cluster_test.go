package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/dockertest"
	"berth/internal/engine"
	"berth/internal/fleet"
	"berth/internal/intents"
	"berth/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// static is a source whose set the test changes.
type static struct {
	mu     sync.Mutex
	eps    []engine.Endpoint
	update func([]engine.Endpoint)
}

func (s *static) Watch(ctx context.Context, update func([]engine.Endpoint)) error {
	s.mu.Lock()
	s.update = update
	update(s.eps)
	s.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (s *static) set(eps ...engine.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eps = eps
	if s.update != nil {
		s.update(eps)
	}
}

func endpoint(d *dockertest.Daemon) engine.Endpoint {
	return engine.Endpoint{Addr: d.HostPort(), Key: d.HostPort(), Dial: func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "", "") }}
}

func timing() engine.Timing {
	return engine.Timing{
		Dial: time.Second, Probe: time.Second, List: 5 * time.Second, PingEvery: 200 * time.Millisecond, PingTimeout: 300 * time.Millisecond, Patience: time.Second,
		RetryMin: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond, Resync: time.Hour,
	}
}

type rig struct {
	*Cluster
	source  *static
	intents *intents.Keeper
	daemons []*dockertest.Daemon
}

// newRig runs a cluster over n daemons called n1, n2, … and waits until all are healthy.
func newRig(t *testing.T, n int, edit ...func(*dockertest.Options)) *rig {
	t.Helper()
	r := &rig{source: &static{}}
	var err error
	if r.intents, err = intents.Open(filepath.Join(t.TempDir(), "intents.json")); err != nil {
		t.Fatal(err)
	}
	var eps []engine.Endpoint
	for i := range n {
		o := dockertest.Options{Name: fmt.Sprintf("n%d", i+1), Images: []string{"app:1"}}
		for _, e := range edit {
			e(&o)
		}
		d := dockertest.New(t, o)
		r.daemons = append(r.daemons, d)
		eps = append(eps, endpoint(d))
	}
	r.source.eps = eps
	r.Cluster = New(Options{
		Engine: engine.Options{APIMax: "1.51", FailureRetry: 2, Timing: timing(), Log: slog.New(slog.DiscardHandler)},
		Policy: schedule.DefaultPolicy(), Backlog: 4096, Log: slog.New(slog.DiscardHandler), Intents: r.intents,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, r.source) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.await(t, "all nodes healthy", func(s *fleet.Snapshot) bool { return healthy(s) == n })
	return r
}

func healthy(s *fleet.Snapshot) int {
	n := 0
	for _, node := range s.Nodes() {
		if node.State == fleet.Healthy {
			n++
		}
	}
	return n
}

func (r *rig) await(t *testing.T, what string, ok func(*fleet.Snapshot) bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok(r.Snapshot()) {
		if time.Now().After(deadline) {
			for _, n := range r.Snapshot().Nodes() {
				t.Logf("%s %s %q %d containers", n.Name, n.State, n.Error, len(n.Containers))
			}
			t.Fatalf("not within 10s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *rig) create(ctx context.Context, name string) (*http.Response, *fleet.Node, error) {
	return r.Create(ctx, &schedule.Request{Name: name, Image: "app:1"}, func(n *fleet.Node, name string, labels map[string]string, _ func([]fleet.Port) ([]fleet.Port, error)) (*http.Request, error) {
		body, err := json.Marshal(map[string]any{
			"Image": "app:1", "Cmd": []string{"sleep", "100"}, "Labels": labels,
		})
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequest(http.MethodPost, n.Path("1.41", "/containers/create")+"?name="+url.QueryEscape(name), bytes.NewReader(body))
		if err == nil {
			req.Header.Set("Content-Type", "application/json")
		}
		return req, err
	})
}

func TestNodesAndTheirContainersAreSeen(t *testing.T) {
	r := newRig(t, 3)
	id := r.daemons[1].AddContainer(dockertest.Container{Name: "web", Memory: 64 << 20, Ports: []string{"8080:80"}})
	r.await(t, "web with its details", func(s *fleet.Snapshot) bool {
		c, err := s.Container("web")
		return err == nil && c.Container.Inspected
	})
	c, err := r.Snapshot().Container(id[:12])
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "n2" || c.Container.Memory != 64<<20 || len(c.Container.Wanted) != 1 || c.Container.Wanted[0].HostPort != 8080 || !c.Container.Running() {
		t.Errorf("web is seen as %+v on %s", c.Container, c.Node.Name)
	}
	r.daemons[1].Exit("web", 3)
	r.await(t, "its exit code", func(s *fleet.Snapshot) bool {
		c, err := s.Container("n2/web")
		return err == nil && c.Container.State == "exited" && c.Container.ExitCode == 3
	})
	if status, body := r.daemons[1].Do(http.MethodDelete, "/containers/web", nil); status != http.StatusNoContent {
		t.Fatalf("remove: %d %s", status, body)
	}
	r.await(t, "its end", func(s *fleet.Snapshot) bool { return s.Containers() == 0 })
}

// An engine's event stream that breaks must cost no event: the next one goes on from the last event seen.
func TestNoEventIsLostOverAReconnect(t *testing.T) {
	r := newRig(t, 1)
	d := r.daemons[0]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, live := r.Subscribe(ctx)
	const n = 60
	go func() {
		for i := range n {
			if i%20 == 10 {
				d.BreakEvents()
			}
			d.Emit("container", "probe", fmt.Sprintf("c%d", i), nil)
		}
	}()
	seen := map[string]int{}
	timeout := time.After(10 * time.Second)
	for len(seen) < n {
		select {
		case ev := <-live:
			if ev.Action == "probe" {
				seen[ev.ActorID]++
			}
		case <-timeout:
			t.Fatalf("%d of %d events came", len(seen), n)
		}
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("event of %s came %d times", id, times)
		}
	}
}

func TestHungAndRefusingNodesAreNoticedAndComeBack(t *testing.T) {
	for name, ill := range map[string]struct {
		strike func(*dockertest.Daemon)
		heal   func(*dockertest.Daemon) error
	}{
		"hung":     {(*dockertest.Daemon).Hang, func(d *dockertest.Daemon) error { d.Resume(); return nil }},
		"refusing": {(*dockertest.Daemon).Refuse, (*dockertest.Daemon).Listen},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2)
			d := r.daemons[0]
			d.AddContainer(dockertest.Container{Name: "kept"})
			r.await(t, "the container", func(s *fleet.Snapshot) bool { return s.Containers() == 1 })
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, live := r.Subscribe(ctx)
			ill.strike(d)
			r.await(t, "n1 unhealthy", func(s *fleet.Snapshot) bool {
				n, ok := s.NodeByName("n1")
				return ok && n.State == fleet.Unhealthy && n.Error != "" && n.Health == 0
			})
			if c, err := r.Snapshot().Container("kept"); err != nil || c.Node.Name != "n1" {
				t.Errorf("its container is not known any more: %v", err)
			}
			if err := ill.heal(d); err != nil {
				t.Fatal(err)
			}
			r.await(t, "n1 healthy again", func(s *fleet.Snapshot) bool { return healthy(s) == 2 })
			want := []string{"engine_disconnect", "engine_reconnect"}
			for len(want) > 0 {
				select {
				case ev := <-live:
					if ev.Action == want[0] {
						want = want[1:]
					}
				case <-time.After(5 * time.Second):
					t.Fatalf("no event %s", want[0])
				}
			}
		})
	}
}

func TestOneNameIsGivenOnceUnder64Creates(t *testing.T) {
	r := newRig(t, 4)
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[string]int{}
	for i := range 64 {
		wg.Go(func() {
			res, _, err := r.create(t.Context(), fmt.Sprintf("web%d", i%4))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				codes[fmt.Sprintf("%T", err)]++
				return
			}
			codes[res.Status]++
		})
	}
	wg.Wait()
	if codes["201 Created"] != 4 || codes["*cluster.ConflictError"] != 60 {
		t.Errorf("outcomes: %v, want 4 created and 60 conflicts", codes)
	}
	total := 0
	for _, d := range r.daemons {
		total += len(d.Containers())
	}
	if total != 4 {
		t.Errorf("the engines have %d containers, want 4", total)
	}
}

func TestContainersWithoutNamesAreNotTakenForOne(t *testing.T) {
	r := newRig(t, 4)
	r.o.Policy.Strategy = schedule.Random
	nodes := map[string]int{}
	for range 32 {
		_, n, err := r.create(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		nodes[n.Name]++
	}
	if len(nodes) == 1 {
		t.Errorf("random put 32 containers without names on %v", nodes)
	}
}

// The engine did what it was asked and died before it could say so: the create goes elsewhere, and what was made is removed.
func TestACreateWhoseAnswerIsLostIsNotDoubled(t *testing.T) {
	r := newRig(t, 2)
	for _, d := range r.daemons {
		d.DropNext(http.MethodPost, "/containers/create", true)
	}
	// Both drop their first answer, so the first create fails; the client tries again.
	if _, _, err := r.create(t.Context(), "web"); err == nil {
		t.Error("a create that no engine answered succeeded")
	}
	res, _, err := r.create(t.Context(), "web")
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("the second try: %v, %v", res, err)
	}
	r.await(t, "one container and no more", func(s *fleet.Snapshot) bool {
		n := 0
		for _, d := range r.daemons {
			n += len(d.Containers())
		}
		return n == 1 && s.Containers() == 1
	})
}

// An engine that stands still in the midst of a create does not hold the client up, and leaves no second container when it
// goes on.
func TestACreateOnAHungNodeGoesElsewhere(t *testing.T) {
	r := newRig(t, 2)
	first := r.daemons[0]
	first.Hang()
	began := time.Now()
	for i := range 2 { // spread would take n1 for one of the two
		res, n, err := r.create(t.Context(), fmt.Sprintf("web%d", i))
		if err != nil {
			t.Fatalf("create: %v", err)
		}
		if res.StatusCode != http.StatusCreated || n.Name != "n2" {
			t.Errorf("create answers %s on %s, want 201 on n2", res.Status, n.Name)
		}
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("two creates took %s", took)
	}
	first.Resume()
	r.await(t, "both nodes, two containers", func(s *fleet.Snapshot) bool {
		return healthy(s) == 2 && len(first.Containers()) == 0 && s.Containers() == 2
	})
}

func TestClonedEnginesAndEqualNamesBothWork(t *testing.T) {
	r := newRig(t, 2, func(o *dockertest.Options) { o.Name, o.ID = "vm", "SAME:ENGINE:ID" })
	nodes := r.Snapshot().Nodes()
	if len(nodes) != 2 || nodes[0].Name == nodes[1].Name || nodes[0].ID == nodes[1].ID {
		t.Fatalf("nodes: %s %s and %s %s", nodes[0].Name, nodes[0].ID, nodes[1].Name, nodes[1].ID)
	}
	for i := range 2 {
		if _, _, err := r.create(t.Context(), fmt.Sprintf("c%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range r.daemons {
		if n := len(d.Containers()); n != 1 {
			t.Errorf("engine %d has %d containers, want 1", i, n)
		}
	}
}

func TestNodesComeAndGo(t *testing.T) {
	r := newRig(t, 2)
	eps := r.source.eps
	r.source.set(eps[0])
	r.await(t, "one node", func(s *fleet.Snapshot) bool { return len(s.Nodes()) == 1 })
	if _, err := r.Do(t.Context(), "gone", nil); err == nil {
		t.Error("a call to a node that left gave no error")
	}
	r.source.set(eps...)
	r.await(t, "two nodes", func(s *fleet.Snapshot) bool { return healthy(s) == 2 })
}

// Who asks for no name gets one that nobody has, also where the node has one of which nobody knew.
func TestContainersWithoutANameAreGivenOne(t *testing.T) {
	r := newRig(t, 1)
	r.daemons[0].AddContainer(dockertest.Container{Name: "happy_darwin"})
	var asked []string
	res, _, err := r.Create(t.Context(), &schedule.Request{Image: "app:1"}, func(n *fleet.Node, name string, _ map[string]string, _ func([]fleet.Port) ([]fleet.Port, error)) (*http.Request, error) {
		asked = append(asked, name)
		if len(asked) == 1 {
			name = "happy_darwin" // as if it had been invented
		}
		req, err := http.NewRequest(http.MethodPost, n.Path("1.41", "/containers/create")+"?name="+name, bytes.NewReader([]byte(`{"Image":"app:1","Cmd":["sleep","9"]}`)))
		if err == nil {
			req.Header.Set("Content-Type", "application/json")
		}
		return req, err
	})
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("create: %v", err)
	}
	if len(asked) != 2 || asked[0] == asked[1] {
		t.Fatalf("the names %q were tried, want two", asked)
	}
	if _, err := r.Snapshot().Container(asked[1]); err != nil {
		t.Error(err)
	}
}

func TestInventedNamesAreUnique(t *testing.T) {
	s := newSeats().state
	names := map[string]bool{}
	for i := range uint64(30_000) { // more than there are without a number
		names[s.invent(new(fleet.Snapshot), i)] = true
	}
	if len(names) != 30_000 {
		t.Errorf("%d different names of 30000", len(names))
	}
}

// made has a container created.
func (r *rig) made(t *testing.T, name string) (n *fleet.Node, id string) {
	t.Helper()
	res, n, err := r.create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if id, err = answered(res); err != nil {
		t.Fatal(err)
	}
	return n, id
}

// send asks a node for something, whose answer is of no interest.
func (r *rig) send(t *testing.T, n *fleet.Node, method, path string) {
	t.Helper()
	req, err := http.NewRequest(method, n.Path("1.41", path), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Do(t.Context(), n.ID, req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
}

// A create costs one call, and a start one more; the row is read when somebody looks, once.
func TestCallsOfACreateAndStart(t *testing.T) {
	r := newRig(t, 1)
	d := r.daemons[0]
	before := d.RequestCount()
	n, id := r.made(t, "web")
	c, err := r.Snapshot().Container("web")
	if err != nil || c.Container.ID != id || c.Container.State != "created" || !c.Container.Promised {
		t.Fatalf("after the create: %+v, %v", c.Container, err)
	}
	r.send(t, n, http.MethodPost, "/containers/"+id+"/start")
	r.Changed(n.ID, fleet.KindContainer, id)
	for range 3 {
		r.Settle(t.Context(), fleet.KindContainer)
	}
	c, err = r.Snapshot().Container("web")
	if err != nil || c.Container.State != "running" || c.Container.Promised {
		t.Errorf("after the start: %+v, %v", c.Container, err)
	}
	if calls := d.RequestCount() - before; calls > 4 {
		t.Errorf("%d calls", calls)
	}
}

// What is gone is looked at no more, and its end is published once, whoever told of it.
func TestWhatIsRemovedIsAskedForNoMore(t *testing.T) {
	r := newRig(t, 1)
	d := r.daemons[0]
	n, id := r.made(t, "web")
	r.send(t, n, http.MethodDelete, "/containers/"+id+"?force=1")
	r.await(t, "it is gone", func(s *fleet.Snapshot) bool { return s.Containers() == 0 })
	calls, version := d.RequestCount(), r.Snapshot().Version()
	r.Forget(n.ID, id)
	r.Settle(t.Context(), fleet.KindContainer)
	if more := d.RequestCount() - calls; more != 0 {
		t.Errorf("%d calls for a container that is gone", more)
	}
	if now := r.Snapshot().Version(); now != version {
		t.Errorf("what is gone was published %d times more", now-version)
	}
}

func TestRefusalIsReadableTwice(t *testing.T) {
	res := &http.Response{Status: "500 Internal Server Error", Body: io.NopCloser(bytes.NewReader([]byte(`{"message":"disk full"}`)))}
	for range 2 {
		if got := answerText(res); got != "disk full" {
			t.Errorf("answerText = %q", got)
		}
	}
}

// A list that comes while a container is being started shows it as its engine does at that moment.
func TestWhatChangesIsLookedAt(t *testing.T) {
	r := newRig(t, 1)
	n, id := r.made(t, "web")
	r.Settle(t.Context(), fleet.KindContainer)
	changed := r.Changing(n.ID, fleet.KindContainer, id)
	calls := r.daemons[0].RequestCount()
	r.Settle(t.Context(), fleet.KindContainer)
	if made := r.daemons[0].RequestCount() - calls; made != 1 {
		t.Errorf("%d looks while it changes, want 1", made)
	}
	changed()
	changed()
	r.Settle(t.Context(), fleet.KindContainer)
	calls = r.daemons[0].RequestCount()
	r.Settle(t.Context(), fleet.KindContainer)
	if made := r.daemons[0].RequestCount() - calls; made != 0 {
		t.Errorf("%d looks although nothing changes any more", made)
	}
}
