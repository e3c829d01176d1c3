package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"berth/internal/fleet"
)

// testSockets are sockets that are there at once, or never.
type testSockets struct {
	arch string
	err  error

	mu    sync.Mutex
	asked []string
}

func (s *testSockets) Arch() string { return s.arch }

func (s *testSockets) Socket(_ context.Context, n *fleet.Node) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, n.Name)
	return "/volumes/" + n.Name + "/docker.sock", s.err
}

// withSockets is another endpoint of the same fleet.
func (f *testFleet) withSockets(s *testSockets) *testFleet {
	other := *f
	other.api = New(f.cluster, Options{Version: "test", APIMax: "1.51", ID: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Sockets: s})
	other.Server = httptest.NewServer(other.api)
	f.t.Cleanup(other.Close)
	return &other
}

// mounted is what a new container's engine was told to mount.
func (f *testFleet) mounted(body map[string]any) string {
	f.t.Helper()
	var made struct {
		ID string `json:"Id"`
	}
	f.must(201, "POST", "/containers/create", body).decode(f.t, &made)
	var seen struct {
		HostConfig struct {
			Binds  []string
			Mounts []struct{ Type, Source, Target string }
		}
	}
	f.must(200, "GET", "/containers/"+made.ID+"/json", nil).decode(f.t, &seen)
	out := seen.HostConfig.Binds
	for _, m := range seen.HostConfig.Mounts {
		out = append(out, m.Type+" "+m.Source+" "+m.Target)
	}
	return strings.Join(out, ", ")
}

func TestSocketMountsBecomeTheFleets(t *testing.T) {
	plain := newFleet(t, 1)
	sockets := &testSockets{arch: "amd64"}
	f := plain.withSockets(sockets)
	binds := func(b ...string) map[string]any {
		return map[string]any{"Image": "busybox", "HostConfig": map[string]any{"Binds": b}}
	}
	mount := func(kind, source string) map[string]any {
		return map[string]any{"Image": "busybox", "HostConfig": map[string]any{"Mounts": []map[string]string{{"Type": kind, "Source": source, "Target": "/s"}}}}
	}
	for name, tt := range map[string]struct {
		body  map[string]any
		want  string
		asked int
	}{
		"a bind":                     {binds("/var/run/docker.sock:/var/run/docker.sock"), "/volumes/n1/docker.sock:/var/run/docker.sock", 1},
		"with options, among others": {binds("/x:/x", "/run/docker.sock:/d.sock:ro"), "/x:/x, /volumes/n1/docker.sock:/d.sock:ro", 1},
		"as some shells need it":     {binds("//var/run/docker.sock:/d.sock"), "/volumes/n1/docker.sock:/d.sock", 1},
		"a mount":                    {mount("bind", "/var/run/docker.sock"), "bind /volumes/n1/docker.sock /s", 1},
		"one made from an inspection": {
			binds("/var/lib/docker/volumes/berth-relay/_data/docker.sock:/d.sock"), "/volumes/n1/docker.sock:/d.sock", 1,
		},
		"another socket":   {binds("/var/run/docker.sock.old:/d.sock"), "/var/run/docker.sock.old:/d.sock", 0},
		"its folder":       {binds("/var/run:/host/run"), "/var/run:/host/run", 0},
		"a target only":    {binds("/x.sock:/var/run/docker.sock"), "/x.sock:/var/run/docker.sock", 0},
		"a relative path":  {mount("bind", "/run/../run/docker.sock"), "bind /volumes/n1/docker.sock /s", 1},
		"a mount of a dir": {mount("bind", "/run"), "bind /run /s", 0},
	} {
		t.Run(name, func(t *testing.T) {
			sockets.asked = nil
			if got := f.mounted(tt.body); got != tt.want {
				t.Errorf("mounts are %s, want %s", got, tt.want)
			}
			if len(sockets.asked) != tt.asked {
				t.Errorf("sockets were asked for on %v, want %d", sockets.asked, tt.asked)
			}
		})
	}
	if got, want := plain.mounted(binds("/var/run/docker.sock:/s")), "/var/run/docker.sock:/s"; got != want {
		t.Errorf("without sockets of the fleet mounts are %s, want %s", got, want)
	}
}

func TestSocketMountsNeedANodeThatCanHaveThem(t *testing.T) {
	sockets := &testSockets{arch: "riscv64"}
	f := newFleet(t, 2).withSockets(sockets)
	body := map[string]any{"Image": "busybox", "HostConfig": map[string]any{"Binds": []string{"/var/run/docker.sock:/s"}}}
	a := f.do("POST", "/containers/create", body)
	if a.status/100 != 5 || !strings.Contains(string(a.body), "2 of 2 are not linux/riscv64") {
		t.Errorf("create = %d %s, want that no node is of the architecture", a.status, a.body)
	}
	if len(sockets.asked) != 0 {
		t.Errorf("sockets were asked for on %v", sockets.asked)
	}
}

func TestSocketsThatCannotBeMade(t *testing.T) {
	f := newFleet(t, 1).withSockets(&testSockets{arch: "amd64", err: errors.New("node n1: relay: disk full")})
	body := map[string]any{"Image": "busybox", "HostConfig": map[string]any{"Binds": []string{"/var/run/docker.sock:/s"}}}
	f.fails("POST", "/containers/create?name=web", body, 500, "node n1: relay: disk full")
	f.must(201, "POST", "/containers/create?name=web", map[string]any{"Image": "busybox"}) // the name is free again
}
