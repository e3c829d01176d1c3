//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// into reads an answer's JSON.
func (a answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("status %d: %v in %.300s", a.status, err, a.body)
	}
}

// goClient is moby's own client at the endpoint.
func (w *world) goClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost("unix://" + w.socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func pingWithoutNodes(t *testing.T, w *world) {
	alone := w.secondServe(t, append(w.tlsArgs(), "nodes://10.213.77.250:2376")...) // nobody is there
	fastest := time.Hour
	for range 5 {
		began := time.Now()
		a := alone.api(t, http.MethodHead, "/_ping", "")
		fastest = min(fastest, time.Since(began))
		same(t, "HEAD /_ping", a.status, 200)
		for name, want := range map[string]string{"Ostype": "linux", "Swarm": "inactive", "Builder-Version": "2"} {
			same(t, name, a.header.Get(name), want)
		}
		if a.header.Get("Api-Version") == "" {
			t.Error("no Api-Version")
		}
	}
	if fastest > 50*time.Millisecond {
		t.Errorf("the fastest of five took %s", fastest)
	}
}

func apiVersions(t *testing.T, w *world) {
	for _, path := range []string{"/v1.24/info", "/v1.41/info", "/v1.44/info", "/info"} {
		same(t, path, w.api(t, "GET", path, "").status, 200)
	}
	newer := w.api(t, "GET", "/v9.9/info", "")
	same(t, "status of what is too new", newer.status, 400)
	contains(t, "its text", newer.message(t), "client version 9.9 is too new. Maximum supported API version is 1.41")
	older := w.api(t, "GET", "/v1.20/info", "")
	same(t, "status of what is too old", older.status, 400)
	contains(t, "its type", older.header.Get("Content-Type"), "text/plain")
	contains(t, "its text", older.body, "client version 1.20 is too old. Minimum supported API version is 1.24")
}

func clientVersions(t *testing.T, w *world) {
	fleets := []*world{w}
	nodes := map[*world][]string{w: {"host1", "host3"}}
	if program("BERTH_ENGINE29") != "" {
		m := mixed(t)
		fleets = append(fleets, m)
		nodes[m] = []string{"new", "old"}
	}
	for _, f := range fleets {
		for _, version := range []string{"1.30", "1.41", "1.44", "1.50"} {
			for _, node := range nodes[f] {
				out := must(t, with(f.docker(args("run --rm", on(node), "busybox echo hi")...), "DOCKER_API_VERSION="+version))
				same(t, "API "+version+" on "+node, out, "hi")
			}
		}
	}
}

func unknownPaths(t *testing.T, w *world) {
	for _, what := range [][2]string{{"GET", "/nope"}, {"PATCH", "/info"}, {"GET", "/v1.41/containers"}} {
		a := w.api(t, what[0], what[1], "")
		same(t, what[0]+" "+what[1], a.status, 404)
		same(t, "its text", a.message(t), "page not found")
	}
	same(t, "OPTIONS", w.api(t, http.MethodOptions, "/x", "").status, 200)
}

func psWithDeadNode(t *testing.T, w *world) {
	for _, node := range []string{"host1", "host2", "host3"} {
		must(t, w.docker(args("run -d --name on"+node, on(node), "busybox sleep 1000")...))
	}
	w.dead(t, "host2")
	r := do(t, w.docker("ps", "--format", "{{.Names}}"))
	quickly(t, "docker ps", r, 0, 3*time.Second)
	same(t, "docker ps", lines(r.out), "[onhost1 onhost3]")
	same(t, "X-Berth-Partial", w.api(t, "GET", "/containers/json", "").header.Get("X-Berth-Partial"), "host2")
}

func inspectOnDeadNode(t *testing.T, w *world) {
	must(t, w.docker(args("run -d --name lost", on("host2"), "busybox sleep 1000")...))
	w.dead(t, "host2")
	a := w.api(t, "GET", "/containers/lost/json", "")
	same(t, "status of inspect", a.status, 503)
	contains(t, "its text", a.message(t), "host2")
	same(t, "docker ps -a", must(t, w.docker("ps", "-a", "--format", "{{.Names}}")), "lost")
	quickly(t, "docker inspect", do(t, w.docker("inspect", "lost")), 1, 3*time.Second)
}

func infoAddsUp(t *testing.T, w *world) {
	must(t, w.docker("run", "-d", "busybox", "sleep", "1000"))
	must(t, w.docker("create", "busybox"))
	info, err := w.goClient(t).Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cpus, memory, containers := 0, int64(0), 0
	for _, n := range w.nodeList(t) {
		cpus, memory, containers = cpus+n.CPUs, memory+n.Memory, containers+n.Containers
	}
	same(t, "nodes", len(w.nodeList(t)), 3)
	same(t, "CPUs", info.Info.NCPU, cpus)
	same(t, "memory", info.Info.MemTotal, memory)
	same(t, "containers", []int{info.Info.Containers, containers, info.Info.ContainersRunning, info.Info.ContainersStopped}, "[2 2 1 1]")
	same(t, "Swarm mode", info.Info.Swarm.LocalNodeState, "inactive")
	contains(t, "docker info", must(t, w.docker("info")), "Nodes: 3", "host1: ", "host2: ", "host3: ")
}

func versionParses(t *testing.T, w *world) {
	version := must(t, w.docker("version", "--format", "{{.Server.Version}}"))
	// What docker-java and the dev containers' command line read out of it.
	m := regexp.MustCompile(`^(\d+)\.(\d+)\.(\d+)([+~-].*)?$`).FindStringSubmatch(version)
	if m == nil || m[1] != "20" {
		t.Errorf("version %q", version)
	}
	contains(t, "docker version", must(t, w.docker("version")), "Server: berth", "Engine:", "OS/Arch:          linux/")
	var v struct{ ApiVersion, MinAPIVersion, Os string }
	w.get(t, "/version", &v)
	same(t, "API", v.MinAPIVersion+" "+v.ApiVersion+" "+v.Os, "1.24 1.41 linux")
}

func strictLists(t *testing.T, w *world) {
	must(t, w.docker("network", "create", "strict"))
	must(t, w.docker("run", "-d", "--name", "strict", "--network", "strict", "-p", "8093:80", "-p", "53/udp", "-v", "strict:/v", "--health-cmd", "true", "busybox", "sleep", "1000"))
	c := w.goClient(t)
	list, err := c.ContainerList(t.Context(), client.ContainerListOptions{All: true})
	if err != nil || len(list.Items) != 1 || len(list.Items[0].Ports) < 2 {
		t.Fatalf("list: %v, %v", list.Items, err)
	}
	seen, err := c.ContainerInspect(t.Context(), "strict", client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "name", seen.Container.Name, "/strict")
	for what, ask := range map[string]func() error{
		"images":   func() error { _, err := c.ImageList(t.Context(), client.ImageListOptions{}); return err },
		"image":    func() error { _, err := c.ImageInspect(t.Context(), "busybox"); return err },
		"networks": func() error { _, err := c.NetworkList(t.Context(), client.NetworkListOptions{}); return err },
		"network": func() error {
			_, err := c.NetworkInspect(t.Context(), "strict", client.NetworkInspectOptions{})
			return err
		},
		"volumes": func() error { _, err := c.VolumeList(t.Context(), client.VolumeListOptions{}); return err },
		"volume": func() error {
			_, err := c.VolumeInspect(t.Context(), "strict", client.VolumeInspectOptions{})
			return err
		},
		"usage": func() error { _, err := c.DiskUsage(t.Context(), client.DiskUsageOptions{}); return err },
	} {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func swarmRefused(t *testing.T, w *world) {
	for _, words := range []string{"service ls", "stack ls", "secret ls", "config ls", "swarm init", "swarm leave"} {
		r := do(t, w.docker(args(words)...))
		quickly(t, "docker "+words, r, 1, 5*time.Second)
		contains(t, "docker "+words, r.err, "swarm")
	}
	// What tells Portainer and Compose that this is Docker alone.
	var info struct {
		Swarm struct {
			LocalNodeState   string
			ControlAvailable bool
		}
	}
	w.get(t, "/info", &info)
	same(t, "Swarm in info", info.Swarm, "{inactive false}")
}

// http2Client speaks HTTP/2 without TLS, and from the first byte.
func (w *world) http2Client(t *testing.T) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func http2Lists(t *testing.T, w *world) {
	must(t, w.docker("run", "-d", "--name", "two", "busybox", "cat"))
	c := w.http2Client(t)
	for _, path := range []string{"/containers/json", "/images/json", "/networks", "/volumes", "/info", "/containers/two/json"} {
		res, err := c.Get("http://berth" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || res.ProtoMajor != 2 || !json.Valid(body) {
			t.Errorf("%s over HTTP/2: %s, HTTP/%d, %v", path, res.Status, res.ProtoMajor, err)
		}
	}
	res, err := c.Post("http://berth/containers/two/attach?stream=1&stdin=1&stdout=1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	same(t, "attach with input over HTTP/2", res.StatusCode, 400)
	body, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(body), `"message"`) {
		t.Errorf("its answer: %s, %v", body, err)
	}
}
