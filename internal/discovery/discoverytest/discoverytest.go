// Package discoverytest is the suite that every store of members must pass.
package discoverytest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/discovery"
)

// Server is a store that runs for the suite. What it has no notion of is nil, and left out.
type Server struct {
	New discovery.NewStore
	// URL names the store, and a place in it.
	URL func(prefix string) string
	// Opts are added to all.
	Opts map[string]string
	// TTL is the shortest that the store grants, and Slack how long after it a member may still be listed.
	TTL, Slack time.Duration
	// Stop and Start end the server and bring it back with what it knew.
	Stop, Start func(t *testing.T)
	// Lose ends the server and brings it back without what it knew.
	Lose func(t *testing.T)
	// Wipe deletes everything while the server runs.
	Wipe func(t *testing.T, prefix string)
	// Half is a URL whose first endpoint is dead.
	Half func(prefix string) string
	// Locked is a URL of a place that wants a user, with the options of one who may and of one who may not.
	Locked       func(t *testing.T) string
	Good, Bad    func(t *testing.T) map[string]string
	BadSays      string // what the error must tell
	StoppedSays  string // what the state must tell when the server is down
	NoticeWithin time.Duration
}

const (
	a = "10.0.0.1:2376"
	b = "10.0.0.2:2376"
	c = "[fd00::3]:2376"
)

// heartbeat is the watchers'; a member that is missing after the store was away is kept for three of them.
const heartbeat = time.Second

// Run runs the suite.
func Run(t *testing.T, s Server) {
	if s.NoticeWithin == 0 {
		s.NoticeWithin = 15 * time.Second
	}
	for _, tt := range []struct {
		name string
		has  bool
		run  func(*testing.T, Server)
	}{
		{"members come and leave", true, comeAndLeave},
		{"a membership that is not renewed ends", true, expiry},
		{"fleets are apart", true, apart},
		{"a first endpoint that is dead", s.Half != nil, half},
		{"a place that wants a user", s.Locked != nil, locked},
		{"all deleted at once", s.Wipe != nil, wiped},
		{"the store stops and starts", s.Stop != nil, stopped},
		{"the store comes back empty", s.Lose != nil, lost},
	} {
		if tt.has {
			t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
		}
	}
}

func (s Server) options(more map[string]string) discovery.Options {
	opts := map[string]string{}
	for _, m := range []map[string]string{s.Opts, more} {
		for k, v := range m {
			opts[k] = v
		}
	}
	return discovery.Options{Heartbeat: heartbeat, Opts: opts, Stores: map[string]discovery.NewStore{"etcd": s.New, "consul": s.New, "zk": s.New, "gossip": s.New}}
}

// Agent opens a registrar and closes it with the test.
func (s Server) Agent(t *testing.T, url string, opts map[string]string) discovery.Registrar {
	t.Helper()
	r, err := discovery.ParseRegistrar(url, s.options(opts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

// Watcher is a Source that is followed.
type Watcher struct {
	t    *testing.T
	sets chan string

	mu    sync.Mutex
	state string
	last  string
}

// Watch follows until the test ends.
func (s Server) Watch(t *testing.T, url string, opts map[string]string) *Watcher {
	t.Helper()
	w := &Watcher{t: t, sets: make(chan string, 64)}
	o := s.options(opts)
	o.Warn = func(err error) { t.Logf("warning: %v", err) }
	o.State = func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.state = ""
		if err != nil {
			w.state = err.Error()
		}
	}
	source, err := discovery.Parse(url, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- source.Watch(ctx, func(addrs []string) { w.sets <- strings.Join(addrs, " ") }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Watch: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Watch did not end with its context")
		}
	})
	return w
}

// Want waits for a set and says how long it took.
func (w *Watcher) Want(within time.Duration, addrs ...string) time.Duration {
	w.t.Helper()
	slices.Sort(addrs)
	want := strings.Join(addrs, " ")
	began := time.Now()
	limit := time.After(within)
	for {
		select {
		case w.last = <-w.sets:
			if w.last == want {
				return time.Since(began)
			}
			w.t.Logf("%6.2fs: members %q", time.Since(began).Seconds(), w.last)
		case <-limit:
			w.t.Fatalf("members %q after %v, want %q; state: %s", w.last, within, want, w.State())
		}
	}
}

// Quiet fails if the set changes.
func (w *Watcher) Quiet(during time.Duration) {
	w.t.Helper()
	select {
	case got := <-w.sets:
		w.t.Fatalf("the members changed to %q", got)
	case <-time.After(during):
	}
}

// State is what is wrong now.
func (w *Watcher) State() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Says waits until the state holds text, or until it is empty for text "".
func (w *Watcher) Says(within time.Duration, text string) {
	w.t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got := w.State(); got != "" && text != "" && strings.Contains(got, text) || got == text {
			return
		}
	}
	w.t.Fatalf("state %q after %v, want %q", w.State(), within, text)
}

// keep registers again and again until the returned function is called, or the test ends.
func keep(t *testing.T, r discovery.Registrar, addr string, ttl time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := r.Register(ctx, addr, ttl); err != nil && ctx.Err() == nil {
				t.Logf("register %s: %v", addr, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(ttl / 6):
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

func register(t *testing.T, r discovery.Registrar, addr string, ttl time.Duration) {
	t.Helper()
	if err := r.Register(t.Context(), addr, ttl); err != nil {
		t.Fatalf("register %s: %v", addr, err)
	}
}

func leave(t *testing.T, r discovery.Registrar, addr string) {
	t.Helper()
	if err := r.Leave(t.Context(), addr); err != nil {
		t.Fatalf("leave %s: %v", addr, err)
	}
}

func comeAndLeave(t *testing.T, s Server) {
	url := s.URL("come")
	first, second, third := s.Agent(t, url, nil), s.Agent(t, url, nil), s.Agent(t, url, nil)
	w := s.Watch(t, url, nil)
	w.Want(10 * time.Second)
	register(t, first, a, time.Minute)
	w.Want(5*time.Second, a)
	register(t, second, b, time.Minute)
	w.Want(5*time.Second, a, b)
	register(t, third, c, time.Minute)
	w.Want(5*time.Second, a, b, c)
	register(t, second, b, time.Minute)
	register(t, second, b, time.Minute)
	leave(t, first, a)
	w.Want(5*time.Second, b, c)
	leave(t, first, a) // once more is no error
	late := s.Watch(t, url, nil)
	late.Want(10*time.Second, b, c)
	leave(t, third, c)
	w.Want(5*time.Second, b)
	leave(t, second, b) // the last one
	took := w.Want(5*time.Second, []string{}...)
	if took > 3*time.Second {
		t.Errorf("the last one's leave was seen after %v", took)
	}
	register(t, first, a, time.Minute) // and back
	w.Want(5*time.Second, a)
	w.Says(time.Second, "")
	leave(t, first, a)
}

func expiry(t *testing.T, s Server) {
	url := s.URL("expiry")
	kept, silent := s.Agent(t, url, nil), s.Agent(t, url, nil)
	w := s.Watch(t, url, nil)
	w.Want(10 * time.Second)
	stop := keep(t, kept, a, s.TTL)
	w.Want(5*time.Second, a)
	began := time.Now() // the store's time begins later
	register(t, silent, b, s.TTL)
	w.Want(5*time.Second, a, b)
	w.Want(s.TTL+s.Slack, a)
	if took := time.Since(began); took < s.TTL {
		t.Errorf("a membership of %v ended after %v", s.TTL, took)
	}
	w.Quiet(s.TTL) // the one that is renewed stays
	register(t, silent, b, s.TTL)
	w.Want(5*time.Second, a, b)
	leave(t, silent, b)
	stop()
	leave(t, kept, a)
}

func apart(t *testing.T, s Server) {
	one, other := s.Agent(t, s.URL("apart"), nil), s.Agent(t, s.URL("apart/more"), map[string]string{"kv.path": "docker/nodes"})
	register(t, one, a, time.Minute)
	register(t, other, b, time.Minute)
	s.Watch(t, s.URL("apart"), nil).Want(10*time.Second, a)
	s.Watch(t, s.URL("apart/more"), map[string]string{"kv.path": "docker/nodes"}).Want(10*time.Second, b)
	leave(t, one, a)
	leave(t, other, b)
}

func half(t *testing.T, s Server) {
	agent := s.Agent(t, s.Half("half"), nil)
	w := s.Watch(t, s.Half("half"), nil)
	for end := time.Now().Add(20 * time.Second); ; {
		err := agent.Register(t.Context(), a, time.Minute)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("with the first of two endpoints dead: %v", err)
		}
	}
	w.Want(20*time.Second, a)
	leave(t, agent, a)
	w.Want(5*time.Second, []string{}...)
}

func locked(t *testing.T, s Server) {
	url := s.Locked(t)
	agent := s.Agent(t, url, s.Good(t))
	register(t, agent, a, time.Minute)
	s.Watch(t, url, s.Good(t)).Want(10*time.Second, a)
	for name, opts := range map[string]map[string]string{"nobody": nil, "another": s.Bad(t)} {
		refused := s.Watch(t, url, opts)
		refused.Says(10*time.Second, s.BadSays)
		if err := s.Agent(t, url, opts).Register(t.Context(), b, time.Minute); err == nil || !strings.Contains(err.Error(), s.BadSays) {
			t.Errorf("%s may register: %v", name, err)
		}
	}
	leave(t, agent, a)
}

func wiped(t *testing.T, s Server) {
	url := s.URL("wiped")
	first, second := s.Agent(t, url, nil), s.Agent(t, url, nil)
	register(t, first, a, time.Minute)
	register(t, second, b, time.Minute)
	w := s.Watch(t, url, nil)
	w.Want(10*time.Second, a, b)
	s.Wipe(t, "wiped")
	w.Says(5*time.Second, "does not list")
	w.Quiet(heartbeat)
	register(t, second, b, time.Minute) // says again that it is there
	w.Want(3*heartbeat+s.Slack+2*time.Second, b)
	w.Says(time.Second, "")
	leave(t, second, b)
}

func stopped(t *testing.T, s Server) {
	url := s.URL("stopped")
	first, second := s.Agent(t, url, nil), s.Agent(t, url, nil)
	stop := keep(t, first, a, 30*time.Second)
	defer stop()
	register(t, second, b, 30*time.Second)
	w := s.Watch(t, url, nil)
	w.Want(10*time.Second, a, b)
	s.Stop(t)
	w.Says(s.NoticeWithin, s.StoppedSays)
	w.Quiet(heartbeat)
	if err := second.Register(t.Context(), b, 30*time.Second); err == nil {
		t.Error("a store that is down took a member")
	}
	fresh := s.Watch(t, url, nil) // a manager that starts now
	fresh.Want(15*time.Second, []string{}...)
	s.Start(t)
	fresh.Want(20*time.Second, a, b)
	w.Says(20*time.Second, "")
	again(t, second, b)
	w.Quiet(heartbeat)
	leave(t, second, b) // and followed as before
	w.Want(5*time.Second, a)
	stop()
	leave(t, first, a)
}

// again registers until the connection has found the store again.
func again(t *testing.T, r discovery.Registrar, addr string) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err = r.Register(ctx, addr, 30*time.Second)
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("register %s: %v", addr, err)
}

// keptFor is longer than it takes to register again, on a busy computer too.
const keptFor = 8 * time.Second

func lost(t *testing.T, s Server) {
	url := s.URL("lost")
	var agents []discovery.Registrar
	for _, addr := range []string{a, b, c} {
		r := s.Agent(t, url, nil)
		register(t, r, addr, time.Minute)
		agents = append(agents, r)
	}
	w := s.Watch(t, url, map[string]string{"kv.ttl": keptFor.String()})
	w.Want(10*time.Second, a, b, c)
	s.Lose(t)
	w.Says(20*time.Second, "does not list")
	again(t, agents[0], a)
	again(t, agents[1], b)
	w.Quiet(keptFor / 4)
	w.Want(20*time.Second, a, b)
	leave(t, agents[1], b)
	w.Want(5*time.Second, a)
	leave(t, agents[0], a)
}
