package move

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
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
	"berth/internal/intents"
	"berth/internal/proxy"
	"berth/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is engines called n1, n2, … and what is wanted of them. Managers come and go.
type world struct {
	t       *testing.T
	daemons []*dockertest.Daemon
	intents string
}

func newWorld(t *testing.T, n int, edit ...func(i int, o *dockertest.Options)) *world {
	t.Helper()
	w := &world{t: t, intents: filepath.Join(t.TempDir(), "intents.json")}
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
	w      *world
	api    *api.Server
	server *httptest.Server
	mover  *Mover
	calls  *mortal
	kept   *intents.Keeper
	stop   func()
}

type source []engine.Endpoint

func (s source) Watch(ctx context.Context, update func([]engine.Endpoint)) error {
	update(s)
	<-ctx.Done()
	return ctx.Err()
}

// mortal is a fleet that a manager reaches until it is killed.
type mortal struct {
	*cluster.Cluster
	dockertest.Mortal
	knowledge *api.Server
	check     func() // after each answer
}

func (m *mortal) Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error) {
	res, err := m.Mortal.Do(ctx, nodeID, r)
	if m.check != nil && !errors.Is(err, dockertest.ErrDead) {
		m.check()
	}
	return res, err
}

func (m *mortal) Requirements(ctx context.Context, name string, body []byte, along []string) (*schedule.Request, error) {
	return m.knowledge.Requirements(ctx, name, body, along)
}

func (m *mortal) Carry(ctx context.Context, from, to *fleet.Node, ref, id string) (string, error) {
	if !m.Alive() {
		return "", dockertest.ErrDead
	}
	return m.knowledge.Carry(ctx, from, to, ref, id)
}

// manage starts a manager; it is stopped with the test, or earlier by stop.
func (w *world) manage() *manager {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	kept, err := intents.Open(w.intents)
	if err != nil {
		w.t.Fatal(err)
	}
	tunnels := new(proxy.Tunnels)
	m := &manager{w: w, kept: kept}
	m.Cluster = cluster.New(cluster.Options{
		Engine: engine.Options{APIMax: "1.51", FailureRetry: 3, Log: log, Tunnels: tunnels, Timing: engine.Timing{
			Dial: time.Second, Probe: 2 * time.Second, List: 5 * time.Second, PingEvery: 200 * time.Millisecond, PingTimeout: 500 * time.Millisecond, Patience: time.Second,
			RetryMin: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond, Resync: time.Hour,
		}},
		Policy: schedule.DefaultPolicy(), Backlog: 4096, Log: log, Intents: kept,
	})
	var eps source
	for _, d := range w.daemons {
		eps = append(eps, engine.Endpoint{
			Addr: d.HostPort(), Key: d.HostPort(), Dial: func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "", "") },
		})
	}
	m.calls = &mortal{Cluster: m.Cluster, Mortal: dockertest.Mortal{Call: m.Do}}
	m.mover = New(Options{
		Fleet: m.calls, Knowledge: m.calls, Owner: "me", APIMax: "1.51", Parallel: 2, Every: 5 * time.Millisecond, RetryMin: 20 * time.Millisecond,
		RetryMax: 50 * time.Millisecond, Log: log,
	})
	m.api = api.New(m.Cluster, api.Options{Version: "test", APIMax: "1.51", ID: "me", Log: log, Members: m.Cluster, Moves: m.mover})
	m.calls.knowledge = m.api
	m.server = httptest.NewServer(m.api)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, eps) }()
	m.stop = sync.OnceFunc(func() {
		m.server.Close()
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("cluster: %v", err)
		}
	})
	w.t.Cleanup(m.stop)
	m.await("all nodes are healthy", func(s *fleet.Snapshot) bool {
		healthy := 0
		for _, n := range s.Nodes() {
			if n.State == fleet.Healthy {
				healthy++
			}
		}
		return healthy == len(w.daemons)
	})
	return m
}

// follow runs the mover until the manager stops.
func (m *manager) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.mover.Run(ctx) }()
	before := m.stop
	m.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		before()
	})
	m.w.t.Cleanup(m.stop)
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

// shown is what the engines have.
func (w *world) shown() string {
	var b strings.Builder
	for _, d := range w.daemons {
		fmt.Fprintf(&b, "%s:", d.Name())
		for _, c := range d.Containers() {
			fmt.Fprintf(&b, " %s (%s)", c.Name, c.State)
		}
		for _, v := range volumesOf(d) {
			fmt.Fprintf(&b, " volume %s", v)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func volumesOf(d *dockertest.Daemon) []string {
	_, b := d.Do("GET", "/volumes", nil)
	var list struct{ Volumes []struct{ Name string } }
	if json.Unmarshal(b, &list) != nil {
		return nil
	}
	var names []string
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	return names
}

// do makes a request at the endpoint that has to succeed.
func (m *manager) do(method, path string, body any) []byte {
	m.w.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		in = bytes.NewReader(b)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			m.w.t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(m.w.t.Context(), method, m.server.URL+"/v1.41"+path, in)
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

// run creates a container on a node and starts it.
func (m *manager) run(node, name string, body map[string]any) {
	m.w.t.Helper()
	m.create(node, name, body)
	m.do("POST", "/containers/"+name+"/start", nil)
}

func (m *manager) create(node, name string, body map[string]any) {
	m.w.t.Helper()
	if body["Image"] == nil {
		body["Image"] = "busybox"
	}
	if body["Cmd"] == nil {
		body["Cmd"] = []string{"sleep", "1000"}
	}
	m.do("POST", "/containers/create?name="+node+"/"+name, body)
}

func (m *manager) node(name string) *fleet.Node {
	m.w.t.Helper()
	n, ok := m.Snapshot().NodeByName(name)
	if !ok {
		m.w.t.Fatalf("no node %s", name)
	}
	return n
}

// want sets a node's availability, and whether volumes go along.
func (m *manager) want(name string, a fleet.Availability, volumes bool) {
	m.w.t.Helper()
	n := m.node(name)
	i := fleet.Intent{Availability: a, EngineID: n.EngineID, Addr: n.Addr, Name: n.Name}
	if volumes {
		i.Labels = map[string]string{fleet.LabelDrainVolumes: "true"}
	}
	if err := m.SetIntent(m.w.t.Context(), n.ObjectID(), n.IntentVersion, func(fleet.Intent) fleet.Intent { return i }); err != nil {
		m.w.t.Fatal(err)
	}
}

// at tells on which node a container is shown; "" if on none, or several.
func at(s *fleet.Snapshot, name string) string {
	found := s.Named(name)
	if len(found) != 1 {
		return ""
	}
	return found[0].Node.Name
}
