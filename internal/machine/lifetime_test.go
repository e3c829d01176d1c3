package machine_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"berth/internal/machine"
)

func TestAMachineWhoseTimeIsOverIsRemoved(t *testing.T) {
	s := open(t)
	synctest.Test(t, func(t *testing.T) {
		o := options("web1")
		o.TTL = 8 * time.Hour
		drv := &stranger{state: machine.StateRunning}
		if err := machine.Create(t.Context(), s, drv, o); err != nil {
			t.Fatal(err)
		}
		mustCreateElsewhere(t, s, "forever")
		find := func(name string) machine.Due {
			due, err := machine.FindDue(t.Context(), s, drv, mustLoad(t, s, name))
			if err != nil {
				t.Fatal(err)
			}
			return due
		}
		time.Sleep(8*time.Hour - time.Second)
		if due := find("web1"); due.Remove || due.Stop {
			t.Errorf("a second before its end: %+v", due)
		}
		time.Sleep(61 * time.Second)
		if due := find("forever"); due.Remove || due.Stop {
			t.Errorf("a machine without an end: %+v", due)
		}
		due := find("web1")
		if !due.Remove || due.Stop || due.Why != "its time was over 1m0s ago" {
			t.Errorf("a minute after its end: %+v", due)
		}
		if !s.Exists("web1") {
			t.Fatal("to find out has changed something")
		}
		if err := due.Settle(t.Context(), s, drv, mustLoad(t, s, "web1")); err != nil {
			t.Fatal(err)
		}
		if s.Exists("web1") {
			t.Error("it is still there")
		}
	})
}

// worker is an engine that has or has not something to run, on a clock of its own.
type worker struct {
	mu      sync.Mutex
	running int
	events  []time.Time // by its clock
	ahead   time.Duration
}

func (w *worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now().Add(w.ahead)
	rw.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	switch r.URL.Path {
	case "/containers/json":
		fmt.Fprint(rw, "["+strings.TrimSuffix(strings.Repeat(`{"Id":"x"},`, w.running), ",")+"]")
	case "/events":
		q := r.URL.Query()
		for _, e := range w.events {
			if at := fmt.Sprint(e.Unix()); at >= q.Get("since") && at <= q.Get("until") {
				fmt.Fprintf(rw, `{"Type":"container","Action":"die","time":%s}`+"\n", at)
			}
		}
	default:
		http.NotFound(rw, r)
	}
}

// idler is the driver of one machine that can be stopped.
type idler struct {
	stranger
	url   string
	stops int
}

func (d *idler) Locate(_ context.Context, i machine.Instance) (machine.Instance, machine.State, error) {
	i.URL = d.url
	return i, d.state, nil
}

func (d *idler) Start(_ context.Context, i machine.Instance) (machine.Instance, error) { return i, nil }

func (d *idler) Stop(context.Context, machine.Instance) error {
	d.stops++
	d.state = machine.StateStopped
	return nil
}

func (d *idler) Kill(ctx context.Context, i machine.Instance) error { return d.Stop(ctx, i) }

func (d *idler) Restart(_ context.Context, i machine.Instance) (machine.Instance, error) {
	return i, nil
}

func TestAnIdleMachineIsStopped(t *testing.T) {
	// The clock of this computer goes on by moving what was noted back.
	for name, ahead := range map[string]time.Duration{"clocks agree": 0, "the engine is ahead": 3 * time.Hour, "the engine is late": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := &worker{ahead: ahead}
			s, m, drv := idleMachine(t, w)
			look := func() machine.Due {
				t.Helper()
				m = mustLoad(t, s, "web1")
				due, err := machine.FindDue(t.Context(), s, drv, m)
				if err != nil {
					t.Fatal(err)
				}
				if err := due.Settle(t.Context(), s, drv, m); err != nil {
					t.Fatal(err)
				}
				return due
			}
			passed := func(d time.Duration) {
				t.Helper()
				m := mustLoad(t, s, "web1")
				m.Life.IdleSince = m.Life.IdleSince.Add(-d)
				if err := s.Save(m); err != nil {
					t.Fatal(err)
				}
			}
			w.running = 1
			if due := look(); due.Stop || !mustLoad(t, s, "web1").Life.IdleSince.IsZero() {
				t.Errorf("with a container: %+v", due)
			}
			w.running = 0
			if due := look(); due.Stop || mustLoad(t, s, "web1").Life.IdleSince.IsZero() {
				t.Errorf("the first look without: %+v, idle since %v", due, mustLoad(t, s, "web1").Life.IdleSince)
			}
			passed(29 * time.Minute)
			if due := look(); due.Stop {
				t.Errorf("after 29 minutes: %+v", due)
			}
			// One that came and went meanwhile.
			w.events = []time.Time{time.Now().Add(ahead - 20*time.Minute), time.Now().Add(ahead - 10*time.Minute)}
			passed(2 * time.Minute)
			if due := look(); due.Stop {
				t.Errorf("ten minutes after the last container: %+v", due)
			}
			passed(20 * time.Minute)
			w.events = nil
			if due := look(); !due.Stop || drv.stops != 1 || !strings.HasPrefix(due.Why, "it ran no container for 30m") {
				t.Errorf("half an hour after it: %+v, %d stops", due, drv.stops)
			}
			if since := mustLoad(t, s, "web1").Life.IdleSince; !since.IsZero() {
				t.Errorf("stopped, it is idle since %v", since)
			}
		})
	}
}

func TestWhatCannotBeAskedIsNotStopped(t *testing.T) {
	w := &worker{}
	s, m, drv := idleMachine(t, w)
	m.Life.IdleSince = time.Now().Add(-time.Hour)
	if err := s.Save(m); err != nil {
		t.Fatal(err)
	}
	drv.url = "unix://" + filepath.Join(t.TempDir(), "gone.sock")
	_, err := machine.FindDue(t.Context(), s, drv, m)
	wantError(t, err, `machine "web1": is it idle?`, "no such file")
	wantError(t, machine.Create(t.Context(), s, &stranger{}, func() machine.CreateOptions {
		o := options("web2")
		o.IdleStop = time.Hour
		return o
	}()), "create web2: driver fake cannot stop a host")
}

func TestALifetimeIsKeptInTheRecord(t *testing.T) {
	s, m, _ := idleMachine(t, &worker{})
	m.Life.Expires = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	m.Life.IdleSince = time.Date(2029, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := s.Save(m); err != nil {
		t.Fatal(err)
	}
	if got := mustLoad(t, s, "web1").Life; got != m.Life {
		t.Errorf("read %+v, wrote %+v", got, m.Life)
	}
	text := string(read(t, filepath.Join(s.MachineDir("web1"), "config.json")))
	for _, want := range []string{`"Expires": "2030-01-02T03:04:05Z"`, `"IdleStop": "30m0s"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the record lacks %s:\n%s", want, text)
		}
	}
}

func TestDeadMachines(t *testing.T) {
	s := open(t)
	m := mustCreateElsewhere(t, s, "web1")
	for state, want := range map[machine.State]bool{machine.StateNotFound: true, machine.StateStopped: false, machine.StateError: false} {
		if got, err := machine.IsDead(t.Context(), s, &stranger{state: state}, m); got != want || err != nil {
			t.Errorf("%s: dead is %v, %v, want %v", state, got, err, want)
		}
	}
}

// idleMachine is a machine that is to be stopped after half an hour, and runs w.
func idleMachine(t *testing.T, w *worker) (*machine.Store, *machine.Machine, *idler) {
	t.Helper()
	server := httptest.NewUnstartedServer(w)
	socket := filepath.Join(t.TempDir(), "engine.sock")
	server.Listener.Close() //nolint:errcheck // replaced by the next line
	var err error
	if server.Listener, err = net.Listen("unix", socket); err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	s := open(t)
	drv := &idler{url: "unix://" + socket}
	drv.state = machine.StateRunning
	o := options("web1")
	o.IdleStop = 30 * time.Minute
	if err := machine.Create(t.Context(), s, drv, o); err != nil {
		t.Fatal(err)
	}
	return s, mustLoad(t, s, "web1"), drv
}
