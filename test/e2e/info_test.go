//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// S4: the context that serve made leads to the fleet, and nothing was switched unasked.
func TestContext(t *testing.T) {
	w := fleet(t)
	same(t, "the context in use before", must(t, w.sh("docker context inspect --format '{{.Name}}'")), "default")
	must(t, w.sh("docker context use berth"))
	t.Cleanup(func() { must(t, w.sh("docker context use default")) })
	contains(t, "docker info", must(t, w.sh("docker info")), "Nodes: 3")
	same(t, "where it leads", must(t, w.sh("docker context inspect berth --format '{{.Endpoints.docker.Host}}'")), "unix://"+w.socket)
	must(t, w.sh("docker run --rm busybox true"))
}

// S5: every row of docker info.
func TestInfo(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "paused", "busybox", "sleep", "1000"))
	must(t, w.docker("pause", "paused"))
	must(t, w.docker("run", "-d", "--name", "runs", "-m", "256m", "--cpus", "0.25", "-e", "constraint:node==host1", "busybox", "sleep", "1000"))
	must(t, w.docker("create", "busybox"))
	info := must(t, w.docker("info"))
	var cpus int
	var memory int64
	for _, n := range w.nodeList(t) {
		cpus += n.CPUs
		memory += n.Memory
		contains(t, "docker info", info, " "+n.Name+": "+n.Addr+"\n", "  └ ID: "+n.ID+"\n", "  └ ServerVersion: "+n.ServerVersion)
	}
	contains(t, "docker info", info, "Containers: 3\n", " Running: 1\n", " Paused: 1\n", " Stopped: 1\n", "Images: 2\n", "Role: primary", "Strategy: spread",
		"Filters: health, port, containerslots, dependency, affinity, constraint, whitelist", "Nodes: 3", "Swarm: inactive", fmt.Sprintf("CPUs: %d\n", cpus))
	same(t, "nodes that are healthy", strings.Count(info, "  └ Status: Healthy\n"), 3)
	for row, pattern := range map[string]string{
		"containers":      `  └ Containers: \d+ \(\d+ Running, \d+ Paused, \d+ Stopped\)`,
		"reserved CPUs":   `  └ Reserved CPUs: 0\.25 / [\d.]+\n`,
		"reserved memory": `  └ Reserved Memory: 256MiB / [\d.]+GiB\n`,
		"labels":          `  └ Labels: .*kernelversion=.*operatingsystem=.*size=xxl.*storagedriver=`,
		"updated":         `  └ UpdatedAt: \d{4}-\d\d-\d\dT`,
	} {
		if !regexp.MustCompile(pattern).MatchString(info) {
			t.Errorf("docker info has no row of %s (%s):\n%s", row, pattern, info)
		}
	}
	same(t, "memory", must(t, w.docker("info", "--format", "{{.MemTotal}}")), memory)
	contains(t, "docker info of the old client", must(t, w.old("info")), "Nodes: 3", "host3: ")
}

// version and _ping, with GET and HEAD, by the stock clients and by curl.
func TestVersionAndPing(t *testing.T) {
	w := fleet(t)
	contains(t, "docker version", must(t, w.docker("version")), "Server: berth", "API version:      1.41 (minimum version 1.24)", "+berth")
	contains(t, "docker version of the old client", must(t, w.old("version")), "20.10.24", "1.41 (minimum version 1.24)")
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		a := w.api(t, method, "/_ping", "")
		same(t, method+" /_ping", a.status, 200)
		same(t, "its headers", a.header.Get("Api-Version")+" "+a.header.Get("Ostype")+" "+a.header.Get("Swarm"), "1.41 linux inactive")
		if want := map[string]string{"GET": "OK", "HEAD": ""}[method]; a.body != want {
			t.Errorf("%s /_ping = %q, want %q", method, a.body, want)
		}
	}
	for path, want := range map[string]int{"/v1.24/info": 200, "/v1.41/info": 200, "/info": 200, "/v1.99/info": 400, "/v1.20/info": 400, "/nope": 404} {
		same(t, "GET "+path, w.api(t, "GET", path, "").status, want)
	}
	contains(t, "a client that is too new", w.api(t, "GET", "/v1.99/info", "").message(t), "client version 1.99 is too new. Maximum supported API version is 1.41")
	same(t, "an old version that is asked for", must(t, with(w.docker("ps", "-aq"), "DOCKER_API_VERSION=1.30")), "")
	for _, words := range []string{"service ls", "stack ls", "swarm init"} {
		r := do(t, w.docker(args(words)...))
		if r.code != 1 || r.took > 5*time.Second || !strings.Contains(r.err, "swarm") {
			t.Errorf("docker %s: exit %d after %s: %s", words, r.code, r.took, r.err)
		}
	}
}

// Events of all nodes in one stream: each once and in order, with the node; filters, since and until.
func TestEvents(t *testing.T) {
	w := fleet(t)
	begin := time.Now()
	live := w.docker("events", "--format", "{{json .}}", "--filter", "type=container")
	out := outputTo(t, live)
	background(t, live)
	// The stream is open once it shows what happened after it.
	eventually(t, 10*time.Second, "the stream is open", func() bool {
		must(t, w.docker("run", "--rm", "busybox", "true"))
		return strings.Contains(out.String(), `"destroy"`)
	})
	for i := range 12 {
		node := fmt.Sprintf("host%d", 1+i%3)
		must(t, w.docker("run", "--rm", "--name", fmt.Sprintf("ev%02d", i), "--label", "n="+fmt.Sprint(i), "-e", "constraint:node=="+node, "busybox", "true"))
	}
	check := func(what, text string) {
		t.Helper()
		seen := map[string][]string{}
		nodes := map[string]bool{}
		for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
			var e struct {
				Action string
				Actor  struct{ Attributes map[string]string }
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %v in %q", what, err, line)
			}
			if name := e.Actor.Attributes["name"]; strings.HasPrefix(name, "ev") {
				seen[name] = append(seen[name], e.Action)
				nodes[e.Actor.Attributes["node.name"]] = true
			}
		}
		same(t, what+": containers", len(seen), 12)
		for name, actions := range seen {
			var some []string
			for _, a := range actions {
				if a == "create" || a == "start" || a == "die" || a == "destroy" {
					some = append(some, a)
				}
			}
			same(t, what+": "+name, some, "[create start die destroy]")
		}
		same(t, what+": nodes", len(nodes), 3)
	}
	eventually(t, 5*time.Second, "the last event", func() bool { return strings.Count(out.String(), `"destroy"`) >= 13 })
	check("live", out.String())
	since := fmt.Sprintf("%d.%09d", begin.Unix(), begin.Nanosecond())
	until := fmt.Sprint(time.Now().Add(time.Second).Unix())
	check("since and until", must(t, w.docker("events", "--since", since, "--until", until, "--filter", "type=container", "--format", "{{json .}}")))
	count := func(filters ...string) int {
		cmd := []string{"events", "--since", since, "--until", until, "--format", "{{.Action}}"}
		for _, f := range filters {
			cmd = append(cmd, "--filter", f)
		}
		return len(strings.Fields(must(t, w.docker(cmd...))))
	}
	same(t, "by name and event", count("container=ev03", "event=start"), 1)
	same(t, "by label", count("label=n=5", "event=die"), 1)
	same(t, "by image", count("image=busybox", "event=create", "container=ev01", "container=ev02"), 2)
	sum := 0
	for _, node := range []string{"host1", "host2", "host3"} {
		n := count("node="+node, "label=n", "event=create")
		if n == 0 {
			t.Errorf("no event of %s", node)
		}
		sum += n
	}
	same(t, "by node, in all", sum, 12)
	if text := must(t, w.docker("events", "--since", "3h", "--until", fmt.Sprint(begin.Add(-time.Hour).Unix()))); text != "" {
		t.Errorf("events of a time in which there were none: %s", text)
	}
	contains(t, "the old client", must(t, w.old("events", "--since", since, "--until", until, "--filter", "container=ev07")), "container start", "node.name=host")
}

// S16: a node that dies gets no new container, docker info and the events say so, and it comes back.
func TestNodeDies(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "lost", "-e", "constraint:node==host3", "busybox", "sleep", "1000"))
	events := w.docker("events", "--filter", "type=daemon", "--format", "{{.Action}} {{index .Actor.Attributes \"node.name\"}}")
	out := outputTo(t, events)
	background(t, events)
	must(t, w.command("berth", "kill", "host3"))
	t.Cleanup(func() {
		if do(t, w.command("berth", "status", "host3")).out != "Running\n" {
			must(t, w.command("berth", "start", "host3"))
		}
	})
	eventually(t, 10*time.Second, "docker info says so", func() bool { return strings.Contains(do(t, w.docker("info")).out, "Status: Unhealthy") })
	contains(t, "docker info", must(t, w.docker("info")), "Nodes: 3", "└ Error: ")
	for range 6 {
		must(t, w.docker("create", "--label", "test=after", "busybox"))
	}
	if got := w.nodes(t, "label=test=after"); got["host3"] != 0 || got["host1"] != 3 || got["host2"] != 3 {
		t.Errorf("containers made while host3 is dead are on %v", got)
	}
	contains(t, "a constraint to the dead node", fails(t, w.docker("create", "-e", "constraint:node==host3", "busybox")), "no node fits", "unhealthy")
	contains(t, "docker ps -a", must(t, w.docker("ps", "-a", "--filter", "name=lost")), "Host Down")
	lacks(t, "docker ps", must(t, w.docker("ps", "--format", "{{.Names}}")), "lost")
	contains(t, "docker logs", fails(t, w.docker("logs", "lost")), "host3")
	contains(t, "the name is still taken", fails(t, w.docker("create", "--name", "lost", "busybox")), "already in use")
	contains(t, "docker images", must(t, w.docker("images")), "busybox")
	must(t, w.command("berth", "start", "host3"))
	eventually(t, 10*time.Second, "host3 is healthy again", func() bool { return w.node(t, "host3").State == "Healthy" })
	same(t, "the lost one", must(t, w.docker("inspect", "--format", "{{.State.Status}}", "lost")), "exited")
	eventually(t, 5*time.Second, "both events", func() bool {
		return strings.Contains(out.String(), "engine_disconnect host3") && strings.Contains(out.String(), "engine_reconnect host3")
	})
}
