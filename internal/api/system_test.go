package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/system"

	"berth/internal/dockertest"
	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// picture is a fleet that can only be looked at.
type picture struct {
	Fleet
	snap *fleet.Snapshot
}

func (p picture) Snapshot() *fleet.Snapshot { return p.snap }

func (p picture) Settle(context.Context, ...fleet.Kind) {}
func (p picture) Policy() schedule.Policy               { return schedule.DefaultPolicy() }

// showOnly serves a picture.
func showOnly(t *testing.T, snap *fleet.Snapshot) *testFleet {
	f := &testFleet{t: t}
	f.api = New(picture{snap: snap}, Options{Log: quietLog(), APIMax: "1.51", Version: "v0.1", ID: "test"})
	f.Server = quietServer(f.api)
	t.Cleanup(f.Close)
	return f
}

func TestPingNeedsNoNode(t *testing.T) {
	f := showOnly(t, new(fleet.Snapshot))
	ready := make(chan struct{}) // the fleet was never looked at, and a ping does not wait for that
	f.api.o.Ready = ready
	for method, body := range map[string]string{"GET": "OK", "HEAD": ""} {
		for _, path := range []string{"/_ping", "/v1.24/_ping"} {
			a := f.must(200, method, path, nil)
			if string(a.body) != body || a.header.Get("Content-Length") != fmt.Sprint(len(body)) {
				t.Errorf("%s %s = %q of %s bytes, want %q", method, path, a.body, a.header.Get("Content-Length"), body)
			}
			for k, want := range map[string]string{
				"Api-Version": "1.51", "Builder-Version": "2", "Docker-Experimental": "false", "Ostype": "linux", "Swarm": "inactive",
				"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Content-Type": "text/plain; charset=utf-8",
				"Server": "Docker/20.10.0+berth.v0.1 (linux)",
			} {
				if got := a.header.Get(k); got != want {
					t.Errorf("%s %s: %s = %q, want %q", method, path, k, got, want)
				}
			}
		}
	}
}

func TestVersionShowsTheFleetAsOneEngine(t *testing.T) {
	f := newFleet(t, 2, func(o *dockertest.Options) {
		if o.Name == "n2" {
			o.APIVersion, o.ServerVersion = "1.47", "27.5.1"
		}
	})
	var v system.VersionResponse
	f.must(200, "GET", "/version", nil).decode(t, &v)
	if v.Version != "20.10.24+berth.test" || v.APIVersion != "1.47" || v.MinAPIVersion != "1.24" || v.Os != "linux" || v.Arch != "amd64" || v.Platform.Name != "berth" {
		t.Errorf("version = %+v", v)
	}
	if len(v.Components) != 2 || v.Components[0].Name != "Engine" || v.Components[0].Details["ApiVersion"] != "1.47" {
		t.Fatalf("components = %+v", v.Components)
	}
	if got, want := v.Components[1].Details, map[string]string{"Nodes": "2", "Engines": "20.10.24 to 27.5.1"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("berth = %v, want %v", got, want)
	}
	showOnly(t, new(fleet.Snapshot)).must(200, "GET", "/version", nil).decode(t, &v)
	if v.Version != "20.10.0+berth.0.1" || v.APIVersion != "1.51" || v.Os != "linux" || v.Components[1].Details["Engines"] != "none" {
		t.Errorf("version of nothing = %+v", v)
	}
}

// infoAnswer is GET /info as moby's client reads it, and what only we put in.
type infoAnswer struct {
	system.Info
	SystemStatus [][2]string
	Nodes        []struct {
		Name, Addr, State, Error string
		Labels                   map[string]string
		Containers               int
	}
}

func (f *testFleet) info() infoAnswer {
	f.t.Helper()
	var i infoAnswer
	f.must(200, "GET", "/info", nil).decode(f.t, &i)
	return i
}

// rowsOf is the part of the table that belongs to one node.
func (i infoAnswer) rowsOf(node string) map[string]string {
	rows := map[string]string{}
	in := false
	for _, row := range i.SystemStatus {
		if !strings.HasPrefix(row[0], "  └ ") {
			in = row[0] == " "+node
			continue
		}
		if in {
			rows[strings.TrimPrefix(row[0], "  └ ")] = row[1]
		}
	}
	return rows
}

func TestInfoAddsUpAndShowsTheNodes(t *testing.T) {
	f := newFleet(t, 3, func(o *dockertest.Options) { o.Labels = []string{"zone=" + o.Name, "disk=ssd"} })
	for i, state := range []string{"start", "", "start"} {
		var c struct{ Id string } //nolint:revive,staticcheck // the API's name
		f.must(201, "POST", fmt.Sprintf("/containers/create?name=n%d/c%d", i+1, i), map[string]any{
			"Image": "busybox", "Cmd": []string{"sleep", "100"}, "HostConfig": map[string]any{"Memory": 1 << 30, "NanoCpus": 5e8},
		}).decode(t, &c)
		if state != "" {
			f.must(204, "POST", "/containers/"+c.Id+"/start", nil)
		}
	}
	f.must(204, "POST", "/containers/c2/pause", nil)
	i := f.info()
	if i.Containers != 3 || i.ContainersRunning != 1 || i.ContainersPaused != 1 || i.ContainersStopped != 1 || i.Images != 1 || i.NCPU != 6 || i.MemTotal != 3*4<<30 {
		t.Errorf("sums = %d (%d %d %d) containers, %d images, %d CPUs, %d bytes", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images, i.NCPU, i.MemTotal)
	}
	if i.ID != "test" || i.Name != "berth" || i.ServerVersion != "20.10.24+berth.test" || i.Swarm.LocalNodeState != "inactive" || i.Swarm.ControlAvailable || len(i.Warnings) != 0 {
		t.Errorf("names = %s %s %s, swarm %+v, warnings %v", i.ID, i.Name, i.ServerVersion, i.Swarm, i.Warnings)
	}
	want := [][2]string{{"Role", "primary"}, {"Strategy", "spread"}, {"Filters", "health, port, containerslots, dependency, affinity, constraint, whitelist"}, {"Nodes", "3"}}
	if got := i.SystemStatus[:4]; !slices.Equal(got, want) {
		t.Errorf("table begins with %v, want %v", got, want)
	}
	for n, containers := range map[string]string{"n1": "1 (1 Running, 0 Paused, 0 Stopped)", "n2": "1 (0 Running, 0 Paused, 1 Stopped)", "n3": "1 (0 Running, 1 Paused, 0 Stopped)"} {
		rows := i.rowsOf(n)
		if rows["Containers"] != containers || rows["Status"] != "Healthy" || rows["ServerVersion"] != "20.10.24" || rows["Reserved CPUs"] != "0.5 / 2.1" || rows["Reserved Memory"] != "1GiB / 4.2GiB" {
			t.Errorf("%s = %v", n, rows)
		}
		if want := "disk=ssd, kernelversion=6.1.0-dockertest, operatingsystem=Debian GNU/Linux 12 (bookworm), ostype=linux, storagedriver=overlay2, zone=" + n; rows["Labels"] != want {
			t.Errorf("%s: labels = %s, want %s", n, rows["Labels"], want)
		}
		if _, err := time.Parse(time.RFC3339, rows["UpdatedAt"]); err != nil {
			t.Errorf("%s: %v", n, err)
		}
		if _, has := rows["Error"]; has {
			t.Errorf("%s has an error: %s", n, rows["Error"])
		}
	}
	if len(i.Nodes) != 3 || i.Nodes[1].Name != "n2" || i.Nodes[1].State != "Healthy" || i.Nodes[1].Labels["zone"] != "n2" {
		t.Errorf("nodes = %+v", i.Nodes)
	}
}

func TestInfoOfABrokenFleet(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/containers/create?name=n1/web", map[string]any{"Image": "busybox"})
	f.daemons[0].Refuse()
	f.await("n1 is lost", func(s *fleet.Snapshot) bool { n, _ := s.NodeByName("n1"); return n.State == fleet.Unhealthy })
	i := f.info()
	if i.NCPU != 2 || i.Containers != 0 {
		t.Errorf("%d CPUs and %d containers are left, want n2's 2 and 0", i.NCPU, i.Containers)
	}
	rows := i.rowsOf("n1")
	if rows["Status"] != "Unhealthy" || rows["Containers"] != "1" || !strings.Contains(rows["Error"], "refused") {
		t.Errorf("n1 = %v", rows)
	}
	if len(i.Warnings) != 1 || !strings.HasPrefix(i.Warnings[0], "WARNING: node n1 ("+f.daemons[0].HostPort()+") is unhealthy: ") || !strings.Contains(i.Warnings[0], "refused") {
		t.Errorf("warnings = %q", i.Warnings)
	}
	f.daemons[1].Refuse()
	f.await("n2 is lost", func(s *fleet.Snapshot) bool { n, _ := s.NodeByName("n2"); return n.State == fleet.Unhealthy })
	if i := f.info(); i.NCPU != 0 || i.OSType != "linux" || len(i.Warnings) != 2 || i.Name != "berth" {
		t.Errorf("with all nodes lost: %d CPUs, %q, warnings %q", i.NCPU, i.OSType, i.Warnings)
	}
	if a := f.do("GET", "/system/df", nil); a.status != 503 {
		t.Errorf("disk usage with all nodes lost = %d %s", a.status, a.body)
	}
	if i := showOnly(t, new(fleet.Snapshot)).info(); i.NCPU != 0 || len(i.Warnings) != 1 || !strings.Contains(i.Warnings[0], "no nodes") || !i.MemoryLimit {
		t.Errorf("without nodes: %d CPUs, warnings %q", i.NCPU, i.Warnings)
	}
}

// TestInfoOfUnlikeNodes edits one node's answer and looks what becomes of it among two others.
func TestInfoOfUnlikeNodes(t *testing.T) {
	base := `{"Driver":"overlay2","DriverStatus":[["a","b"]],"MemoryLimit":true,"SwapLimit":true,"KernelVersion":"6.1","OperatingSystem":"Debian",` +
		`"Architecture":"x86_64","OSType":"linux","CgroupVersion":"2","CgroupDriver":"systemd","Runtimes":{"runc":{"path":"runc"}},` +
		`"Plugins":{"Volume":["local"],"Network":["bridge"],"Authorization":null,"Log":["json-file"]},"SecurityOptions":["name=seccomp","name=apparmor"],` +
		`"FutureField":{"big":12345678901234567890},"Warnings":null,"Name":"x","Swarm":{"LocalNodeState":"active","ControlAvailable":true}}`
	for field, tt := range map[string]struct{ value, want string }{
		"SwapLimit":       {`false`, `SwapLimit false`},
		"KernelVersion":   {`"5.4"`, `KernelVersion "mixed (3 nodes)"`},
		"OperatingSystem": {`"Docker Desktop"`, `OperatingSystem "mixed (3 nodes)"`},
		"Architecture":    {`"aarch64"`, `Architecture "x86_64"`},
		"Driver":          {`"btrfs"`, `Driver "mixed" DriverStatus []`},
		"CgroupVersion":   {`"1"`, `CgroupVersion "1"`},
		"CgroupDriver":    {`"cgroupfs"`, `CgroupDriver "systemd"`},
		"Runtimes":        {`{"nvidia":{"path":"n"}}`, `Runtimes {"runc":{"path":"runc"},"nvidia":{"path":"n"}}`},
		"Plugins":         {`{"Volume":["nfs","local"]}`, `Plugins {"Authorization":null,"Log":["json-file"],"Network":["bridge"],"Volume":["local","nfs"]}`},
		"SecurityOptions": {`["name=seccomp","name=rootless"]`, `SecurityOptions ["name=seccomp","name=rootless"]`},
		"Warnings":        {`["WARNING: no x"]`, `Warnings ["WARNING: no x (1 of 3 nodes)"]`},
		"FutureField":     {`1`, `FutureField {"big":12345678901234567890}`},
		"Swarm":           {`{"LocalNodeState":"active"}`, `Swarm {"NodeID":"","NodeAddr":"","LocalNodeState":"inactive","ControlAvailable":false,"Error":"","RemoteManagers":null}`},
		"Name":            {`"y"`, `Name "berth"`},
	} {
		o, err := rawjson.Parse([]byte(base))
		if err != nil {
			t.Fatal(err)
		}
		o.SetRaw(field, []byte(tt.value))
		s := new(fleet.Snapshot)
		for i, info := range []string{base, base, string(o.Bytes())} {
			s = s.Replace(&fleet.Node{ID: fmt.Sprint(i), Name: fmt.Sprint("n", i), State: fleet.Healthy, Info: json.RawMessage(info)})
		}
		got, err := rawjson.Parse(showOnly(t, s).must(200, "GET", "/info", nil).body)
		if err != nil {
			t.Fatal(err)
		}
		text := field + " " + string(got.Get(field))
		if field == "Driver" {
			text += " DriverStatus " + string(got.Get("DriverStatus"))
		}
		if text != tt.want {
			t.Errorf("one node of three with %s %s: %s, want %s", field, tt.value, text, tt.want)
		}
	}
}

func TestDiskUsageAddsUp(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/containers/create?name=n1/one", map[string]any{"Image": "busybox"})
	f.must(201, "POST", "/containers/create?name=n2/two", map[string]any{"Image": "busybox"})
	type usage struct {
		LayersSize int64
		Images     []struct{ Size int64 }
		Containers []struct{ Names []string }
		Volumes    []any
	}
	var u usage
	f.must(200, "GET", "/system/df", nil).decode(t, &u)
	if len(u.Images) != 2 || len(u.Containers) != 2 || u.Volumes == nil || u.LayersSize != u.Images[0].Size+u.Images[1].Size || u.LayersSize == 0 {
		t.Errorf("usage = %+v", u)
	}
	u = usage{}
	f.must(200, "GET", "/system/df?type=container", nil).decode(t, &u)
	if len(u.Containers) != 2 || u.Images != nil || u.LayersSize != 0 || u.Volumes != nil {
		t.Errorf("usage of containers = %+v", u)
	}
	f.fails("GET", "/system/df?type=magic", nil, 400, "unknown object type: magic")
	f.daemons[0].FailNext("GET", "/system/df", 500, "disk on fire")
	if a := f.must(200, "GET", "/system/df", nil); a.header.Get("X-Berth-Partial") != "n1" {
		t.Errorf("X-Berth-Partial = %q, want n1", a.header.Get("X-Berth-Partial"))
	}
}

func TestDiskUsageIsAskedOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u usage
		var asked []string // by one at a time, which the race detector would tell
		release := make(chan struct{})
		share := func(ctx context.Context, question string) error {
			b, err := u.share(ctx, "n", question, func(context.Context) ([]byte, error) {
				asked = append(asked, question)
				<-release
				return []byte(question), nil
			})
			if err == nil && string(b) != question {
				t.Errorf("%s is answered by %s", question, b)
			}
			return err
		}
		impatient, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- share(impatient, "x") }()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("an asker that left got %v", err)
		}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if err := share(t.Context(), []string{"x", "y"}[i%2]); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all wait now: some for what the first one asked, the others for their turn
		if fmt.Sprint(asked) != "[x]" {
			t.Errorf("asked %v while the first question is open, want x alone", asked)
		}
		close(release)
		wg.Wait()
		if fmt.Sprint(asked) != "[x y]" {
			t.Errorf("asked %v, want x and y once each", asked)
		}
	})
}

func TestAddUsage(t *testing.T) {
	// The shape of API 1.52, of which no code here knows.
	sum := new(rawjson.Object)
	for _, part := range []string{
		`{"ImageUsage":{"ActiveCount":1,"TotalCount":2,"TotalSize":9007199254740993,"Items":[{"a":1}]},"LayersSize":1,"Volumes":null,"Note":"x"}`,
		`{"ImageUsage":{"ActiveCount":0,"TotalCount":3,"TotalSize":1,"Items":[{"b":1},{"c":1}]},"LayersSize":2,"Volumes":[1],"Note":"y"}`,
		`{"ImageUsage":null,"LayersSize":3,"Volumes":[],"New":[7]}`,
	} {
		o, err := rawjson.Parse([]byte(part))
		if err != nil {
			t.Fatal(err)
		}
		if err := addUsage(sum, o); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"ImageUsage":{"ActiveCount":1,"TotalCount":5,"TotalSize":9007199254740994,"Items":[{"a":1},{"b":1},{"c":1}]},"LayersSize":6,"Volumes":[1],"Note":"x","New":[7]}`
	if got := string(sum.Bytes()); got != want {
		t.Errorf("sum = %s, want %s", got, want)
	}
}

func TestPluginsAreJoinedByName(t *testing.T) {
	f := showOnly(t, new(fleet.Snapshot).
		Replace(&fleet.Node{ID: "a", Name: "a", State: fleet.Healthy}).Replace(&fleet.Node{ID: "b", Name: "b", State: fleet.Healthy}))
	answers := answering{picture: picture{snap: f.api.fleet.Snapshot()}, body: map[string]string{
		"a": `[{"Name":"nfs","Enabled":true,"X":1},{"Name":"log","Enabled":true}]`, "b": `[{"Name":"nfs","Enabled":false},{"Name":"net","Enabled":false}]`,
	}}
	f.api.fleet = answers
	want := `[{"Name":"nfs","Enabled":false,"X":1},{"Name":"log","Enabled":true},{"Name":"net","Enabled":false}]`
	if a := f.must(200, "GET", "/plugins", nil); strings.TrimSpace(string(a.body)) != want {
		t.Errorf("plugins = %s, want %s", a.body, want)
	}
	if a := f.must(200, "GET", "/plugins/net/json", nil); strings.TrimSpace(string(a.body)) != `{"Name":"net","Enabled":false}` {
		t.Errorf("plugin net = %s", a.body)
	}
	f.fails("GET", "/plugins/web/json", nil, 404, `plugin "web" not found`)
	if a := showOnly(t, new(fleet.Snapshot)).must(200, "GET", "/plugins", nil); strings.TrimSpace(string(a.body)) != "[]" {
		t.Errorf("plugins of nothing = %s", a.body)
	}
}

// answering is a picture whose nodes answer everything in one way.
type answering struct {
	picture
	body map[string]string
}

func (a answering) Do(_ context.Context, nodeID string, _ *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(a.body[nodeID]))}, nil
}

func TestSwarmModeIsRefusedInTheEnginesWords(t *testing.T) {
	f := newFleet(t, 1)
	for _, l := range [][2]string{
		{"GET", "/tasks"}, {"GET", "/services"}, {"GET", "/services/web/logs"}, {"POST", "/services/create"}, {"DELETE", "/secrets/x"}, {"GET", "/swarm"}, {"PUT", "/volumes/v"},
	} {
		a := f.do(l[0], l[1], nil)
		if a.status != 503 || !strings.HasPrefix(string(a.body), `{"message":"This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.`) {
			t.Errorf("%s %s = %d %s", l[0], l[1], a.status, a.body)
		}
	}
	f.fails("POST", "/swarm/leave", nil, 503, "This node is not part of a swarm")
	f.fails("POST", "/swarm/init", map[string]any{"ListenAddr": "0.0.0.0"}, 501, noJoin)
	f.fails("POST", "/swarm/join", nil, 501, noJoin)
	f.fails("POST", "/plugins/pull?remote=x", nil, 501, noPlugins)
	f.fails("GET", "/debug/pprof/", nil, 404, "page not found")
	for _, r := range f.daemons[0].Requests() {
		if strings.HasPrefix(r.Path, "/swarm") || strings.HasPrefix(r.Path, "/plugins/") {
			t.Errorf("the engine was asked %s %s", r.Method, r.Path)
		}
	}
}
