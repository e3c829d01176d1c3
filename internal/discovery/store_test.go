package discovery

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script is a Store whose sessions are the test's: each value is a list; "!" loses the store.
type script chan string

func (s script) Follow(ctx context.Context, see func([]string)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case list := <-s:
			if list == "!" {
				return errors.New("lost")
			}
			see(strings.Fields(list))
		}
	}
}

func (script) Register(context.Context, string, time.Duration) error { return nil }
func (script) Leave(context.Context, string) error                   { return nil }
func (script) Close() error                                          { return nil }

// follow watches a script with a heartbeat of 10 s, so members that are doubted are kept for 30 s.
func follow(t *testing.T, test func(say func(list string), members func() string, state func() string)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := make(script)
		var reported, state atomic.Value
		reported.Store("-")
		state.Store("")
		o := Options{
			Heartbeat: 10 * time.Second, Stores: map[string]NewStore{"script": func(string, Options) (Store, error) { return s, nil }},
			State: func(err error) {
				text := ""
				if err != nil {
					text = err.Error()
				}
				state.Store(text)
			},
		}
		source, err := Parse("script://", o)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- source.Watch(ctx, func(addrs []string) { reported.Store(strings.Join(addrs, " ")) }) }()
		test(func(list string) {
			s <- list
			synctest.Wait()
		}, func() string {
			synctest.Wait()
			return reported.Load().(string)
		}, func() string {
			synctest.Wait()
			return state.Load().(string)
		})
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
}

func TestMembersOfAStore(t *testing.T) {
	follow(t, func(say func(string), members, state func() string) {
		want := func(set string) {
			t.Helper()
			if got := members(); got != set {
				t.Fatalf("members %q, want %q", got, set)
			}
		}
		say("b:1 a:1")
		want("a:1 b:1")
		say("a:1") // b left
		want("a:1")
		say("") // the last one, too
		want("")
		say("a:1 b:1 c:1 bad")
		want("a:1 b:1 c:1")
		say("!")
		if got := state(); !strings.Contains(got, "lost; the last known members are kept") {
			t.Errorf("state %q", got)
		}
		time.Sleep(time.Hour) // without the store
		want("a:1 b:1 c:1")
		say("d:1")
		want("a:1 b:1 c:1 d:1")
		if got := state(); !strings.Contains(got, "does not list a:1, b:1, c:1") {
			t.Errorf("state %q", got)
		}
		time.Sleep(29 * time.Second)
		say("b:1 d:1") // b is back
		say("b:1")     // d leaves, and the store was heard all the time
		want("a:1 b:1 c:1")
		time.Sleep(2 * time.Second)
		want("b:1")
		if got := state(); got != "" {
			t.Errorf("state %q", got)
		}
		say("a:1 b:1")
		say("") // all at once
		want("a:1 b:1")
		time.Sleep(20 * time.Second)
		say("!") // time begins anew when the store is back
		time.Sleep(time.Minute)
		say("a:1")
		time.Sleep(29 * time.Second)
		want("a:1 b:1")
		time.Sleep(2 * time.Second)
		want("a:1")
	})
}

func TestStoreThatIsDownAtTheStart(t *testing.T) {
	follow(t, func(say func(string), members, _ func() string) {
		say("!")
		if got := members(); got != "" {
			t.Errorf("members %q, want none and to be told so", got)
		}
		say("a:1")
		if got := members(); got != "a:1" {
			t.Errorf("members %q", got)
		}
	})
}

func TestParsePlace(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"password": "hunter2\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	password := filepath.Join(dir, "password")
	type place struct {
		endpoints     []string
		nodes, leader string
		secret        string
	}
	for url, tt := range map[string]struct {
		opts map[string]string
		want place
	}{
		"kv://a":                 {nil, place{[]string{"a:77"}, "docker/swarm/nodes", "docker/swarm/leader", ""}},
		"kv://a:1,[::1],::2/p/q": {nil, place{[]string{"a:1", "[::1]:77", "[::2]:77"}, "p/q/docker/swarm/nodes", "p/q/docker/swarm/leader", ""}},
		"KV://a,/p/":             {map[string]string{"kv.path": "docker/nodes"}, place{[]string{"a:77"}, "p/docker/nodes", "p/docker/swarm/leader", ""}},
		"kv://b":                 {map[string]string{"kv.user": "u", "kv.password-file": password}, place{[]string{"b:77"}, "docker/swarm/nodes", "docker/swarm/leader", "hunter2"}},
	} {
		p, err := ParsePlace(url, "77", Options{Opts: tt.opts})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if diff := cmp.Diff(tt.want, place{p.Endpoints, p.Nodes, p.Leader, p.Password}, cmp.AllowUnexported(place{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
	for want, tt := range map[string]struct {
		url  string
		opts map[string]string
	}{
		"names no server":        {"kv:///p", nil},
		"kv.password-file":       {"kv://u:hunter2@a", nil},
		"port":                   {"kv://a:x", nil},
		"prefix":                 {"kv://a/../b", nil},
		"go together":            {"kv://a", map[string]string{"kv.user": "u"}},
		"is empty":               {"kv://a", map[string]string{"kv.token-file": filepath.Join(dir, "empty")}},
		"no such file":           {"kv://a", map[string]string{"kv.token-file": filepath.Join(dir, "none")}},
		"holds no certificate":   {"kv://a", map[string]string{"kv.cacertfile": password}},
		"kv.certfile and kv.key": {"kv://a", map[string]string{"kv.certfile": password}},
	} {
		if _, err := ParsePlace(tt.url, "77", Options{Opts: tt.opts}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s %v: %v, want an error with %q and without the secret", tt.url, tt.opts, err, want)
		}
	}
}
