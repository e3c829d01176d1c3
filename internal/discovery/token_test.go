package discovery

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/membership"
)

func tokenService(t *testing.T) (*httptest.Server, string) {
	t.Helper()
	s, err := membership.Open(filepath.Join(t.TempDir(), "tokens.db"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	url, err := NewToken(t.Context(), server.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return server, url
}

func TestTokenFollowsItsMembers(t *testing.T) {
	_, url := tokenService(t)
	o := Options{Heartbeat: time.Second, Warn: func(err error) { t.Log(err) }}
	source, err := Parse(url, o)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := ParseRegistrar(url, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sets := make(chan string, 16)
	done := make(chan error, 1)
	go func() { done <- source.Watch(ctx, func(addrs []string) { sets <- strings.Join(addrs, " ") }) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	want := func(set string) {
		t.Helper()
		select {
		case got := <-sets:
			if got != set {
				t.Fatalf("members %q, want %q", got, set)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("members %q were not told", set)
		}
	}
	want("")
	for _, step := range []struct{ addr, set string }{{"10.0.0.2:2376", "10.0.0.2:2376"}, {"10.0.0.1:2376", "10.0.0.1:2376 10.0.0.2:2376"}} {
		if err := agent.Register(t.Context(), step.addr, time.Minute); err != nil {
			t.Fatal(err)
		}
		want(step.set)
	}
	if err := agent.Leave(t.Context(), "10.0.0.1:2376"); err != nil {
		t.Fatal(err)
	}
	want("10.0.0.2:2376")
	if err := agent.Register(t.Context(), "10.0.0.2:2376", 2*time.Second); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	want("") // its time is over, and stays over for three heartbeats
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("the fleet was emptied after %s", took)
	}
}

func TestTokenServiceDownKeepsTheMembers(t *testing.T) {
	answers := make(chan int, 8)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-answers:
			_, _ = w.Write([]byte(`["10.0.0.1:2376","bad entry"]`)) // the test reads it or ends
		default:
			http.Error(w, "down", http.StatusBadGateway)
		}
	}))
	defer server.Close()
	warned := make(chan string, 16)
	source, err := Parse(strings.Replace(server.URL, "http://", "token+http://", 1)+"/s3cret", Options{Heartbeat: time.Second, Warn: func(err error) { warned <- err.Error() }})
	if err != nil {
		t.Fatal(err)
	}
	answers <- 1
	ctx, cancel := context.WithCancel(t.Context())
	sets := make(chan []string, 16)
	done := make(chan error, 1)
	go func() { done <- source.Watch(ctx, func(addrs []string) { sets <- addrs }) }()
	if got := <-sets; len(got) != 1 || got[0] != "10.0.0.1:2376" {
		t.Errorf("members %q", got)
	}
	var said []string
	for len(said) < 2 { // the bad entry, and that the service is down
		said = append(said, <-warned)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(sets) > 0 {
		t.Errorf("a service that is down changed the members to %q", <-sets)
	}
	if all := strings.Join(said, "\n"); !strings.Contains(all, "502") || strings.Contains(all, "s3cret") {
		t.Errorf("warnings:\n%s", all)
	}
}

func TestTokenURLs(t *testing.T) {
	for url, ok := range map[string]bool{
		"token://h:1/T": true, "token+http://h:1/path/T": true, "token://T": false, "token://h:1/": false, "token://": false,
		"token://h:1/T?x": false, "token://u@h:1/T": false,
	} {
		if _, err := Parse(url, Options{}); (err == nil) != ok {
			t.Errorf("Parse(%q): %v", url, err)
		}
	}
	if _, err := ParseRegistrar("nodes://a:1", Options{}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a registrar for nodes://: %v", err)
	}
}
