//go:build linux

package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"berth/internal/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is one node with as much of an engine as relays ask for. The processes of its relay run in this one.
type site struct {
	t        *testing.T
	dir      string // of the volume
	desk     string
	snapshot atomic.Pointer[fleet.Snapshot]
	images   atomic.Int32 // how many were imported

	mu    sync.Mutex
	refs  map[string]bool
	relay *box
	made  int
	fault func(method, path string) (int, string)
	execs []process
}

type box struct {
	id     string
	state  string
	cancel context.CancelFunc
	done   chan struct{}
}

// process is one beside the relay's own.
type process struct {
	stream io.Closer
	done   chan struct{}
}

var desks atomic.Int32

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: t.TempDir(), desk: fmt.Sprintf("@berth-relay-test-%d-%d", os.Getpid(), desks.Add(1)), refs: map[string]bool{}}
	s.show()
	t.Cleanup(func() {
		s.stop()
		s.cut()
	})
	return s
}

// show publishes the node with its containers.
func (s *site) show() {
	n := &fleet.Node{ID: "n1", EngineID: "e1", Name: "host1", State: fleet.Healthy, API: "1.41", MinAPI: "1.12"}
	s.mu.Lock()
	if s.relay != nil {
		n.Containers = []*fleet.Container{{ID: s.relay.id, State: s.relay.state, Labels: fleet.LabelsOf(map[string]string{fleet.LabelRelay: protocol})}}
	}
	s.mu.Unlock()
	s.snapshot.Store(new(fleet.Snapshot).Replace(n.Seal()))
}

func (s *site) Snapshot() *fleet.Snapshot { return s.snapshot.Load() }

func (s *site) node() *fleet.Node { return s.Snapshot().Nodes()[0] }

// stop ends the relay's process.
func (s *site) stop() {
	s.mu.Lock()
	c := s.relay
	if c != nil {
		c.state = "exited"
	}
	s.mu.Unlock()
	if c != nil && c.cancel != nil {
		c.cancel()
		<-c.done
	}
}

// cut breaks all streams to the engine, and waits until the processes behind them have ended: one that has not noticed yet could
// take a connection and end with it.
func (s *site) cut() {
	s.mu.Lock()
	execs := s.execs
	s.execs = nil
	s.mu.Unlock()
	for _, p := range execs {
		_ = p.stream.Close() // it may be closed already
		<-p.done
	}
}

func answer(code int, body any) *http.Response {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Body: io.NopCloser(bytes.NewReader(b))}
}

func message(code int, text string) *http.Response {
	return answer(code, map[string]string{"message": text})
}

// Do plays the engine.
func (s *site) Do(_ context.Context, nodeID string, r *http.Request) (*http.Response, error) {
	path := strings.TrimPrefix(r.URL.Path, "/v1.41")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		if code, text := s.fault(r.Method, path); code != 0 {
			return message(code, text), nil
		}
	}
	switch route := r.Method + " " + strings.NewReplacer("c1", "{id}", "c2", "{id}").Replace(path); {
	case nodeID != "n1":
		return nil, errors.New("no such node")
	case route == "GET /containers/json":
		rows := []map[string]string{}
		if s.relay != nil {
			rows = append(rows, map[string]string{"Id": s.relay.id, "State": s.relay.state})
		}
		return answer(200, rows), nil
	case route == "POST /volumes/create":
		return answer(201, map[string]string{"Name": Name}), nil
	case strings.HasPrefix(route, "GET /images/"):
		if !s.refs[strings.TrimSuffix(strings.TrimPrefix(path, "/images/"), "/json")] {
			return message(404, "no such image"), nil
		}
		return answer(200, map[string]string{}), nil
	case route == "POST /images/create":
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
		s.images.Add(1)
		s.refs[r.URL.Query().Get("repo")+":"+r.URL.Query().Get("tag")] = true
		return answer(200, map[string]string{"status": "sha256:1"}), nil
	case route == "POST /containers/create":
		if s.relay != nil {
			return message(409, "name taken"), nil
		}
		s.made++
		s.relay = &box{id: fmt.Sprintf("c%d", s.made), state: "created"}
		return answer(201, map[string]string{"Id": s.relay.id}), nil
	case route == "POST /containers/{id}/start":
		s.start()
		return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
	case route == "GET /containers/{id}/json":
		return answer(200, map[string]any{"Mounts": []map[string]string{{"Destination": folder, "Source": s.dir}}}), nil
	case route == "POST /containers/{id}/exec":
		return answer(201, map[string]string{"Id": "x1"}), nil
	case route == "POST /exec/x1/start":
		return s.exec(), nil
	}
	return message(404, "page not found: "+r.Method+" "+path), nil
}

func (s *site) start() {
	ctx, cancel := context.WithCancel(context.Background())
	c := s.relay
	c.state, c.cancel, c.done = "running", cancel, make(chan struct{})
	go func() {
		defer close(c.done)
		if err := hold(ctx, filepath.Join(s.dir, socketFile), s.desk); err != nil {
			s.t.Error(err)
		}
	}()
}

// exec runs a process beside the relay, whose streams are mixed as engines mix them.
func (s *site) exec() *http.Response {
	if s.relay.state != "running" {
		return message(409, "container is not running")
	}
	near, far := net.Pipe()
	done := make(chan struct{})
	s.execs = append(s.execs, process{near, done})
	go func() {
		defer close(done)
		out := &mixer{far, stdoutPart}
		if err := join(context.Background(), line{far, out}, s.desk); err != nil {
			_, _ = (&mixer{far, stderrPart}).Write([]byte(err.Error())) // who would read it may have gone
		}
		_ = far.Close() // join may have closed it
	}()
	return &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: near}
}

// mixer writes frames.
type mixer struct {
	io.WriteCloser
	kind byte
}

func (m *mixer) Write(p []byte) (int, error) {
	frame := make([]byte, frameHead, frameHead+len(p))
	frame[0] = m.kind
	binary.BigEndian.PutUint32(frame[4:], uint32(len(p)))
	if _, err := m.WriteCloser.Write(append(frame, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// manager is relays that run until the test ends, or stop is called.
type manager struct {
	*Relays
	stop func()
}

func newManager(t *testing.T, s *site) *manager {
	t.Helper()
	program := &Program{path: os.Args[0], Sum: "0123456789ab", Arch: "amd64"}
	info, err := os.Stat(program.path)
	if err != nil {
		t.Fatal(err)
	}
	program.size = info.Size()
	r := New(s, program, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	m := &manager{Relays: r, stop: sync.OnceFunc(func() {
		_ = r.Close() // it never fails
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})}
	t.Cleanup(m.stop)
	return m
}
