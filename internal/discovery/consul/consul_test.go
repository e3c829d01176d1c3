package consul

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/discovery"
	"berth/internal/discovery/discoverytest"
	"berth/internal/election"
	"berth/internal/election/electiontest"
	"berth/internal/intents"
	"berth/internal/intents/intentstest"
)

func TestMain(m *testing.M) {
	minSession = time.Second // what would be 10 s: the fake grants it
	goleak.VerifyTestMain(m)
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

func token(t *testing.T, word string) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(word+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"kv.token-file": path}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	discoverytest.Run(t, discoverytest.Server{
		New: New, URL: func(prefix string) string { return "consul://" + f.addr + "/" + prefix },
		TTL: 2 * time.Second, Slack: 2 * time.Second, StoppedSays: "does not answer", BadSays: "refuses",
		Stop:  f.stop,
		Start: f.start,
		Lose: func(t *testing.T) {
			f.stop(t)
			f.forget()
			f.start(t)
		},
		Wipe: func(t *testing.T, prefix string) {
			r, err := http.NewRequest(http.MethodDelete, "http://"+f.addr+"/v1/kv/"+prefix+"?recurse", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		},
		Half: func(prefix string) string { return "consul://" + free(t) + "," + f.addr + "/" + prefix },
		Locked: func(*testing.T) string {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.locked, f.tokens = "locked/", map[string]bool{"t0k3n": true, "weak": false}
			return "consul://" + f.addr + "/locked"
		},
		Good: func(t *testing.T) map[string]string { return token(t, "t0k3n") },
		Bad:  func(t *testing.T) map[string]string { return token(t, "unknown") },
	})
}

func TestLeaser(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	const ttl = 2 * time.Second
	electiontest.Run(t, electiontest.Server{
		New: func(t *testing.T, place, addr string) election.Leaser {
			l, err := NewLeaser("consul://"+free(t)+","+f.addr+"/"+place, discovery.Options{}, addr, ttl)
			if err != nil {
				t.Fatal(err)
			}
			return l
		},
		TTL: ttl, Slack: 2 * time.Second, Stop: f.stop, Start: f.start,
		Steal: func(_ *testing.T, place string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.kill(place + "/docker/swarm/leader")
		},
	})
}

func TestShelf(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	intentstest.Run(t, intentstest.Server{
		New: func(t *testing.T, place string) intents.Shelf {
			shelf, err := NewShelf("consul://"+free(t)+","+f.addr+"/"+place, discovery.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return shelf
		},
		Wipe: func(_ *testing.T, place string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.kill(place + "/docker/swarm/berth/intents")
		},
		Stop: f.stop, Start: f.start,
	})
}

// An agent of Consul that lost the others answers with 500; the next one is asked.
func TestFailover(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	alone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
	}))
	defer alone.Close()
	m, err := New("consul://"+strings.TrimPrefix(alone.URL, "http://")+","+f.addr+"/fleet", discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Register(t.Context(), "10.0.0.1:2376", time.Minute); err != nil {
		t.Fatal(err)
	}
	// The agent that dies leaves its key locked; the next one takes it over, and nobody sees it missing.
	next, err := New("consul://"+f.addr+"/fleet", discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	ctx, stop := context.WithCancel(t.Context())
	sets, done := make(chan string, 100), make(chan error, 1)
	go func() { done <- next.Follow(ctx, func(addrs []string) { sets <- strings.Join(addrs, " ") }) }()
	if got := <-sets; got != "10.0.0.1:2376" {
		t.Errorf("members %q", got)
	}
	if err := next.Register(t.Context(), "10.0.0.1:2376", time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := <-sets; got != "10.0.0.1:2376" { // locked by another session
		t.Errorf("members %q", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	alone.Close()
	f.stop(t)
	err = m.Register(t.Context(), "10.0.0.1:2376", time.Minute)
	if err == nil || !strings.Contains(err.Error(), "does not answer") || strings.Contains(err.Error(), "/v1/") {
		t.Errorf("without any agent: %v", err)
	}
}
