package gossip

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/discovery"
	"berth/internal/discovery/discoverytest"
)

// A probe that memberlist has under way at its Shutdown ends by itself, within its interval; nobody else can end it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newKey(t *testing.T) string {
	t.Helper()
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(b)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, url string, opts map[string]string) *Members {
	t.Helper()
	m, err := New(url, discovery.Options{Opts: opts, Heartbeat: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m.(*Members) //nolint:errcheck // it is what New makes
}

// seed is a manager at a known address, until the test ends or it is ended.
func seed(t *testing.T, url, addr string, opts map[string]string) (end func()) {
	t.Helper()
	all := map[string]string{"gossip.bind": addr}
	for k, v := range opts {
		all[k] = v
	}
	all["gossip.bind"] = addr
	m := open(t, url, all)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		once := sync.OnceFunc(func() { close(ready) })
		for ctx.Err() == nil {
			if err := m.Follow(ctx, func([]string) { once() }); err != nil {
				t.Logf("seed: %v", err) // its agents died
			}
		}
	}()
	<-ready
	end = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(end)
	return end
}

func TestMembers(t *testing.T) {
	t.Parallel()
	opts := map[string]string{optKey: newKey(t), optBind: "127.0.0.1:0"}
	urls := map[string]string{}
	fleet := func(prefix string) string {
		if urls[prefix] == "" {
			one, other := free(t), free(t)
			urls[prefix] = "gossip://" + one + "," + other + "/" + prefix
			seed(t, urls[prefix], one, opts)
			with := map[string]string{optKey: opts[optKey], "kv.path": "docker/nodes"}
			seed(t, "gossip://"+other+"/"+prefix, other, with)
		}
		return urls[prefix]
	}
	discoverytest.Run(t, discoverytest.Server{
		New: New, URL: fleet, Opts: opts, TTL: 2 * time.Second, Slack: 2 * time.Second,
		Half: func(prefix string) string {
			return strings.Replace(fleet(prefix), "gossip://", "gossip://"+free(t)+",", 1)
		},
	})
}

// Who has another key hears nothing, and is told that it may be the key.
func TestAnotherKey(t *testing.T) {
	t.Parallel()
	at := free(t)
	url := "gossip://" + at
	opts := map[string]string{optKey: newKey(t), optBind: "127.0.0.1:0"}
	seed(t, url, at, opts)
	agent := open(t, url, opts)
	if err := agent.Register(t.Context(), "10.0.0.1:2376", time.Minute); err != nil {
		t.Fatal(err)
	}
	other := map[string]string{optKey: newKey(t), optBind: "127.0.0.1:0"}
	w := discoverytest.Server{New: New, Opts: other}.Watch(t, url, nil)
	w.Says(10*time.Second, optKey)
	w.Want(time.Second, []string{}...)
	if err := open(t, url, other).Register(t.Context(), "10.0.0.2:2376", time.Minute); err == nil || !strings.Contains(err.Error(), optKey) {
		t.Errorf("another key may register: %v", err)
	}
	discoverytest.Server{New: New, Opts: opts}.Watch(t, url, nil).Want(5*time.Second, "10.0.0.1:2376")
}

// An agent that dies is a member for its ttl; one that comes back in time was never missing.
func TestDeadAgents(t *testing.T) {
	t.Parallel()
	opts := map[string]string{optKey: newKey(t), optBind: "127.0.0.1:0"}
	at := free(t)
	url := "gossip://" + at + "/dead"
	seed(t, url, at, opts)
	dead, back := open(t, url, opts), open(t, url, opts)
	for m, addr := range map[*Members]string{dead: "10.0.0.1:2376", back: "10.0.0.2:2376"} {
		if err := m.Register(t.Context(), addr, 9*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	s := discoverytest.Server{New: New, Opts: opts}
	w := s.Watch(t, url, nil)
	w.Want(10*time.Second, "10.0.0.1:2376", "10.0.0.2:2376")
	began := time.Now()
	for _, m := range []*Members{dead, back} {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, url, opts)
	if err := again.Register(t.Context(), "10.0.0.2:2376", time.Minute); err != nil {
		t.Fatal(err)
	}
	w.Want(30*time.Second, "10.0.0.2:2376")
	if took := time.Since(began); took < 9*time.Second {
		t.Errorf("it was dropped %v after it died", took)
	}
	if err := again.Leave(t.Context(), "10.0.0.2:2376"); err != nil {
		t.Fatal(err)
	}
	w.Want(5*time.Second, []string{}...)
}

// A manager that hears nobody keeps what it knew, and finds the others again when they are back.
func TestAlone(t *testing.T) {
	t.Parallel()
	opts := map[string]string{optKey: newKey(t), optBind: "127.0.0.1:0"}
	at := free(t)
	url := "gossip://" + at + "/alone"
	as := map[string]string{optKey: opts[optKey], optBind: at}
	only := open(t, url, as) // agent and seed
	if err := only.Register(t.Context(), "10.0.0.1:2376", 2*time.Second); err != nil {
		t.Fatal(err)
	}
	s := discoverytest.Server{New: New, Opts: opts}
	w := s.Watch(t, url, nil)
	w.Want(10*time.Second, "10.0.0.1:2376")
	if err := only.Close(); err != nil {
		t.Fatal(err)
	}
	w.Says(20*time.Second, "gossip: ")
	w.Quiet(3 * time.Second)
	back := open(t, url, as)
	if err := back.Register(t.Context(), "10.0.0.1:2376", time.Minute); err != nil {
		t.Fatal(err)
	}
	w.Says(15*time.Second, "")
	w.Quiet(time.Second)
	if err := back.Leave(t.Context(), "10.0.0.1:2376"); err != nil {
		t.Fatal(err)
	}
	w.Want(5*time.Second, []string{}...)
}

func TestRefuses(t *testing.T) {
	short := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(short, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, opts := range map[string]map[string]string{
		"openssl rand":              {},
		"is no key":                 {optKey: short},
		"no such file":              {optKey: short + "2"},
		"gossip.bind=here: want IP": {optKey: newKey(t), optBind: "here"},
	} {
		if _, err := New("gossip://127.0.0.1", discovery.Options{Opts: opts}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v", opts, err)
		}
	}
}
