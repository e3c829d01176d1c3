package api

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
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/cluster"
	"berth/internal/dockertest"
	"berth/internal/engine"
	"berth/internal/fleet"
	"berth/internal/intents"
	"berth/internal/proxy"
	"berth/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testFleet is a Server over in-process daemons called n1, n2, …
type testFleet struct {
	*httptest.Server
	t       testing.TB
	api     *Server
	cluster *cluster.Cluster
	daemons []*dockertest.Daemon
	ports   cluster.PortRange
	timing  engine.Timing // testTiming if it is not set
}

// newFleet starts n daemons that have the image busybox, and serves them once all are healthy. edit changes a daemon's options.
func newFleet(t *testing.T, n int, edit ...func(*dockertest.Options)) *testFleet {
	t.Helper()
	f := &testFleet{t: t}
	f.start(n, edit...)
	return f
}

// start makes the daemons and serves them.
func (f *testFleet) start(n int, edit ...func(*dockertest.Options)) {
	f.t.Helper()
	var eps []engine.Endpoint
	for i := range n {
		o := dockertest.Options{Name: fmt.Sprintf("n%d", i+1), Images: []string{"busybox"}}
		for _, e := range edit {
			e(&o)
		}
		d := dockertest.New(f.t, o)
		f.daemons = append(f.daemons, d)
		eps = append(eps, engine.Endpoint{
			Addr: d.HostPort(), Key: d.HostPort(), Dial: func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "", "") },
		})
	}
	f.serve(eps)
}

// serve starts the endpoint and returns once all engines are healthy.
func (f *testFleet) serve(eps []engine.Endpoint) {
	f.t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if f.timing == (engine.Timing{}) {
		f.timing = testTiming()
	}
	tunnels := new(proxy.Tunnels)
	kept, err := intents.Open(filepath.Join(f.t.TempDir(), "intents.json"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.cluster = cluster.New(cluster.Options{
		Engine: engine.Options{APIMax: "1.51", FailureRetry: 3, Log: log, Timing: f.timing, Tunnels: tunnels},
		Policy: schedule.DefaultPolicy(), Backlog: 4096, Log: log, UniquePorts: f.ports, Intents: kept,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.cluster.Run(ctx, testSource(eps)) }()
	f.api = New(f.cluster, Options{Version: "test", APIMax: "1.51", ID: "test", Log: log, Members: f.cluster})
	f.Server = httptest.NewServer(f.api)
	f.t.Cleanup(func() {
		f.Close()
		cancel()
		if err := tunnels.Drain(ctx); err != nil && !errors.Is(err, context.Canceled) {
			f.t.Errorf("streams: %v", err)
		}
		if err := <-done; err != nil {
			f.t.Errorf("cluster: %v", err)
		}
	})
	f.await("all nodes are healthy", func(s *fleet.Snapshot) bool {
		healthy := 0
		for _, n := range s.Nodes() {
			if n.State == fleet.Healthy {
				healthy++
			}
		}
		return healthy == len(eps)
	})
}

func testTiming() engine.Timing {
	return engine.Timing{
		Dial: time.Second, Probe: 2 * time.Second, List: 5 * time.Second, PingEvery: 200 * time.Millisecond, PingTimeout: 500 * time.Millisecond, Patience: time.Second,
		RetryMin: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond, Resync: time.Hour,
	}
}

// testSource is a set of engines that never changes.
type testSource []engine.Endpoint

func (s testSource) Watch(ctx context.Context, update func([]engine.Endpoint)) error {
	update(s)
	<-ctx.Done()
	return ctx.Err()
}

// await polls the snapshot, which has no other way to tell that it changed.
func (f *testFleet) await(what string, ok func(*fleet.Snapshot) bool) {
	f.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok(f.cluster.Snapshot()) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// answer is an answer read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request in API 1.41 unless the path has a version. body is encoded as JSON; nil is none.
func (f *testFleet) do(method, path string, body any) answer {
	f.t.Helper()
	if !versioned.MatchString(path) {
		path = "/v1.41" + path
	}
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			f.t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.URL+path, in)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := f.Client().Do(r)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{res.StatusCode, res.Header, b}
}

// must is do for a request whose answer has to have a status.
func (f *testFleet) must(status int, method, path string, body any) answer {
	f.t.Helper()
	a := f.do(method, path, body)
	if a.status != status {
		f.t.Fatalf("%s %s = %d %s, want %d", method, path, a.status, a.body, status)
	}
	return a
}

// decode reads the body as JSON.
func (a answer) decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// fails checks the status and the message of an error.
func (f *testFleet) fails(method, path string, body any, status int, message string) {
	f.t.Helper()
	a := f.do(method, path, body)
	var m struct{ Message string }
	if err := json.Unmarshal(a.body, &m); a.status != status || err != nil || m.Message != message {
		f.t.Errorf("%s %s = %d %s, want %d %q", method, path, a.status, a.body, status, message)
	}
}
