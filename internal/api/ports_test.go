package api

import (
	"fmt"
	"sync"
	"testing"

	"berth/internal/cluster"
	"berth/internal/dockertest"
)

// newPortFleet is newFleet with host ports that are unique.
func newPortFleet(t *testing.T, n int, r string, edit ...func(*dockertest.Options)) *testFleet {
	t.Helper()
	ports, err := cluster.ParsePortRange(r)
	if err != nil {
		t.Fatal(err)
	}
	f := &testFleet{t: t, ports: ports}
	f.start(n, edit...)
	return f
}

// hostPorts are a container's, by its own.
func (f *testFleet) hostPorts(name string) map[string]string {
	f.t.Helper()
	var seen struct {
		HostConfig struct {
			PortBindings map[string][]struct{ HostIP, HostPort string }
		}
	}
	f.must(200, "GET", "/containers/"+name+"/json", nil).decode(f.t, &seen)
	ports := map[string]string{}
	for spec, bindings := range seen.HostConfig.PortBindings {
		for _, b := range bindings {
			ports[spec] += b.HostIP + ":" + b.HostPort + " "
		}
	}
	return ports
}

func TestUniquePorts(t *testing.T) {
	f := newPortFleet(t, 3, "20000-20099")
	bindings := func(ports map[string]any, more ...string) map[string]any {
		host, exposed := map[string]any{"PortBindings": ports}, map[string]any{}
		for _, m := range more {
			if m == "all" {
				host["PublishAllPorts"] = true
				continue
			}
			exposed[m] = struct{}{}
		}
		return map[string]any{"Image": "busybox", "HostConfig": host, "ExposedPorts": exposed}
	}
	type binding = map[string]string
	for i, tt := range []struct {
		body map[string]any
		want string
	}{
		{bindings(map[string]any{"80/tcp": []binding{{"HostPort": ""}}}), "map[80/tcp::20000 ]"},
		{bindings(map[string]any{"80/tcp": []binding{{"HostPort": "0", "HostIp": "127.0.0.1"}}}), "map[80/tcp:127.0.0.1:20001 ]"},
		{bindings(map[string]any{"80/tcp": []binding{{"HostPort": "20002"}}}), "map[80/tcp::20002 ]"},
		{bindings(map[string]any{"80/tcp": []binding{{}, {"HostPort": "9000"}, {}}}), "map[80/tcp::20003 :9000 :20004 ]"},
		{bindings(map[string]any{"80/tcp": []binding{{}}, "53/udp": []binding{{}}}, "80/tcp", "53/udp"), "map[53/udp::20005  80/tcp::20006 ]"},
		{bindings(nil, "all", "81/tcp", "82/tcp"), "map[81/tcp::20007  82/tcp::20008 ]"},
		{bindings(map[string]any{"81/tcp": []binding{{"HostPort": "7"}}}, "all", "81/tcp", "82/tcp"), "map[81/tcp::7  82/tcp::20009 ]"},
		{bindings(nil, "81/tcp"), "map[]"},
	} {
		name := fmt.Sprintf("c%d", i)
		f.must(201, "POST", "/containers/create?name="+name, tt.body)
		if got := fmt.Sprint(f.hostPorts(name)); got != tt.want {
			t.Errorf("%v has %s, want %s", tt.body, got, tt.want)
		}
	}
}

func TestUniquePortsOfWhatTheImageExposes(t *testing.T) {
	f := newPortFleet(t, 1, "20000-20099")
	if a := f.build("t=web", "FROM busybox\nEXPOSE 8080\n"); a.status != 200 {
		t.Fatalf("build: %d %s", a.status, a.body)
	}
	f.must(201, "POST", "/containers/create?name=web", map[string]any{"Image": "web", "HostConfig": map[string]any{"PublishAllPorts": true}})
	if got := fmt.Sprint(f.hostPorts("web")); got != "map[8080/tcp::20000 ]" {
		t.Errorf("got %s", got)
	}
}

func TestParallelCreatesNeverShareAPort(t *testing.T) {
	f := newPortFleet(t, 4, "20000-20039")
	body := map[string]any{"Image": "busybox", "HostConfig": map[string]any{"PortBindings": map[string]any{"80/tcp": []map[string]string{{}}}}}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if a := f.do("POST", fmt.Sprintf("/containers/create?name=p%d", i), body); a.status != 201 {
				t.Errorf("create %d: %d %s", i, a.status, a.body)
			}
		})
	}
	wg.Wait()
	seen := map[string]string{}
	for i := range 40 {
		name := fmt.Sprintf("p%d", i)
		port := f.hostPorts(name)["80/tcp"]
		if seen[port] != "" {
			t.Errorf("%s and %s both have %s", name, seen[port], port)
		}
		seen[port] = name
	}
	f.fails("POST", "/containers/create", body, 503, "no host port of 20000-20039 is free over the fleet")
	f.must(204, "DELETE", "/containers/p7", nil)
	f.must(201, "POST", "/containers/create?name=again", body)
}
