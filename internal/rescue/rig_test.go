package rescue

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/api"
	"berth/internal/cluster"
	"berth/internal/dockertest"
	"berth/internal/engine"
	"berth/internal/fleet"
	"berth/internal/proxy"
	"berth/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testDelay = 300 * time.Millisecond

// world is engines called n1, n2, … and a store. Managers come and go.
type world struct {
	t       *testing.T
	daemons []*dockertest.Daemon
	dir     string
}

func newWorld(t *testing.T, n int, edit ...func(i int, o *dockertest.Options)) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "kept")}
	for i := range n {
		o := dockertest.Options{Name: fmt.Sprintf("n%d", i+1), Images: []string{"busybox"}}
		for _, e := range edit {
			e(i, &o)
		}
		w.daemons = append(w.daemons, dockertest.New(t, o))
	}
	return w
}

// manager is one run of a manager.
type manager struct {
	*cluster.Cluster
	w       *world
	api     *api.Server
	server  *httptest.Server
	keeper  *Keeper
	rescuer *Rescuer
	calls   *mortal
	set     chan []engine.Endpoint // another set of members
	stop    func()
}

type source struct {
	first []engine.Endpoint
	next  chan []engine.Endpoint
}

func (s source) Watch(ctx context.Context, update func([]engine.Endpoint)) error {
	update(s.first)
	for {
		select {
		case eps := <-s.next:
			update(eps)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// mortal is a fleet that a rescuer reaches until it is killed.
type mortal struct {
	*cluster.Cluster
	dockertest.Mortal
	veto func(nodeID string, r *http.Request) bool // a call that the engine refuses
}

func newMortal(c *cluster.Cluster) *mortal {
	m := &mortal{Cluster: c}
	m.Call = func(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error) {
		if m.veto != nil && m.veto(nodeID, r) {
			return &http.Response{StatusCode: 500, Body: io.NopCloser(strings.NewReader(`{"message":"would not"}`))}, nil
		}
		return c.Do(ctx, nodeID, r)
	}
	return m
}

func (m *mortal) Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error) {
	return m.Mortal.Do(ctx, nodeID, r)
}

// A manager knows what its API knows.
func (m *manager) Requirements(ctx context.Context, name string, body []byte, along []string) (*schedule.Request, error) {
	return m.api.Requirements(ctx, name, body, along)
}

func (m *manager) Provide(ctx context.Context, to *fleet.Node, ref, id string) (string, error) {
	return m.api.Provide(ctx, to, ref, id)
}

func (w *world) endpoints(which ...int) (eps []engine.Endpoint) {
	for i, d := range w.daemons {
		if len(which) > 0 && !slices.Contains(which, i) {
			continue
		}
		eps = append(eps, engine.Endpoint{
			Addr: d.HostPort(), Key: d.HostPort(), Dial: func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "", "") },
		})
	}
	return eps
}

// manage starts a manager that keeps; it is stopped with the test, or earlier by stop.
func (w *world) manage(healthy int) *manager { return w.manageAt(w.dir, healthy) }

// manageAt is manage with a store of the manager's own.
func (w *world) manageAt(dir string, healthy int) *manager {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.t.Output(), nil))
	m := &manager{w: w, set: make(chan []engine.Endpoint)}
	m.Cluster = cluster.New(cluster.Options{
		Engine: engine.Options{APIMax: "1.51", FailureRetry: 2, Log: slog.New(slog.DiscardHandler), Tunnels: new(proxy.Tunnels), Timing: engine.Timing{
			Dial: time.Second, Probe: 2 * time.Second, List: 5 * time.Second, PingEvery: 100 * time.Millisecond, PingTimeout: 500 * time.Millisecond, Patience: time.Second,
			RetryMin: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond, Resync: time.Hour,
		}},
		Policy: schedule.DefaultPolicy(), Backlog: 4096, Log: slog.New(slog.DiscardHandler),
	})
	m.calls = newMortal(m.Cluster)
	m.keeper = NewKeeper(KeeperOptions{Fleet: m.Cluster, Dir: dir, APIMax: "1.51", Every: 5 * time.Millisecond, Retry: 20 * time.Millisecond, Log: log})
	m.rescuer = New(Options{
		Fleet: m.calls, Knowledge: m, Keeper: m.keeper, APIMax: "1.51", Delay: testDelay, Parallel: 4, Every: 5 * time.Millisecond,
		RetryMin: 20 * time.Millisecond, RetryMax: 50 * time.Millisecond, Log: log,
	})
	m.api = api.New(m.Cluster, api.Options{Version: "test", APIMax: "1.51", ID: "me", Log: log, Members: nil, Rescues: m.rescuer})
	m.server = httptest.NewServer(m.api)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := m.Run(ctx, source{w.endpoints(), m.set}); err != nil {
			w.t.Errorf("cluster: %v", err)
		}
	})
	work.Go(func() { _ = m.keeper.Run(ctx) }) // its error is the context's
	m.stop = sync.OnceFunc(func() {
		m.server.Close()
		cancel()
		work.Wait()
	})
	w.t.Cleanup(m.stop)
	m.await("nodes are healthy", func(s *fleet.Snapshot) bool {
		n := 0
		for _, node := range s.Nodes() {
			if node.State == fleet.Healthy {
				n++
			}
		}
		return n == healthy
	})
	return m
}

// follow runs the rescuer until the manager stops.
func (m *manager) follow() *manager {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.rescuer.Run(ctx) }()
	before := m.stop
	m.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		before()
	})
	m.w.t.Cleanup(m.stop)
	return m
}

func (m *manager) await(what string, ok func(*fleet.Snapshot) bool) {
	m.w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok(m.Snapshot()) {
		if time.Now().After(deadline) {
			m.w.t.Fatalf("not within 10 s: %s\n%s", what, m.w.shown())
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitKept waits until so many containers are remembered, as they are now.
func (m *manager) awaitKept(n int) {
	m.w.t.Helper()
	m.await(fmt.Sprintf("%d containers are kept", n), func(s *fleet.Snapshot) bool {
		m.keeper.mu.Lock()
		defer m.keeper.mu.Unlock()
		for _, node := range s.Nodes() {
			for _, c := range node.Facts().Guarded() {
				if k := m.keeper.kept[c.ID]; k == nil || k.seen != c {
					return false
				}
			}
		}
		for _, d := range m.w.daemons { // the snapshot may be a moment behind
			for _, c := range d.Containers() {
				if k := m.keeper.kept[c.ID]; k != nil && c.State == "running" && (!k.Run || !k.Ended.IsZero()) {
					return false
				}
			}
		}
		return len(m.keeper.kept) == n
	})
}

// shown is what the engines have.
func (w *world) shown() string {
	var b strings.Builder
	for _, d := range w.daemons {
		fmt.Fprintf(&b, "%s:", d.Name())
		for _, c := range d.Containers() {
			fmt.Fprintf(&b, " %s (%s)", c.Name, c.State)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// do makes a request at the endpoint that has to succeed.
func (m *manager) do(method, path string, body any) []byte {
	m.w.t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			m.w.t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(m.w.t.Context(), method, m.server.URL+"/v1.41"+path, bytes.NewReader(text))
	if err != nil {
		m.w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := m.server.Client().Do(r)
	if err != nil {
		m.w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 400 {
		m.w.t.Fatalf("%s %s = %d %s, %v", method, path, res.StatusCode, b, err)
	}
	return b
}

const policy = "reschedule:on-node-failure"

// create makes a container on a node, with an environment.
func (m *manager) create(node, name string, env []string, host map[string]any) {
	m.w.t.Helper()
	body := map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "1000"}, "Env": env, "HostConfig": host}
	m.do("POST", "/containers/create?name="+node+"/"+name, body)
}

func (m *manager) run(node, name string, env []string, host map[string]any) {
	m.w.t.Helper()
	m.create(node, name, env, host)
	m.do("POST", "/containers/"+name+"/start", nil)
}

// at tells on which node a container is shown; "" if on none, or several.
func at(s *fleet.Snapshot, name string) string {
	found := s.Named(name)
	if len(found) != 1 {
		return ""
	}
	return found[0].Node.Name
}

// on tells whether a container is shown on a node, in that state and nowhere else.
func on(name, state string, nodes ...string) func(*fleet.Snapshot) bool {
	return func(s *fleet.Snapshot) bool {
		found := s.Named(name)
		return len(found) == 1 && found[0].Container.State == state && slices.Contains(nodes, found[0].Node.Name)
	}
}

// running counts the engines on which a container of that name runs.
func (w *world) running(name string) (n int) {
	for _, d := range w.daemons {
		if c, ok := d.Find(name); ok && c.State == "running" {
			n++
		}
	}
	return n
}

// copies counts the containers of that name, and those that were set aside.
func (w *world) copies(name string) (own, aside int) {
	for _, d := range w.daemons {
		for _, c := range d.Containers() {
			switch was, is := fleet.Stale(c.Name, c.ID); {
			case is && was == name:
				aside++
			case c.Name == name || strings.HasPrefix(c.Name, fleet.RescuingPrefix):
				own++
			}
		}
	}
	return own, aside
}
