//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Networks across hosts, on one fleet from the first container to the last: what works, and what is left when hosts are lost.
func TestNetworksAcrossHosts(t *testing.T) {
	w, err := newWorld("over")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("berth serve said:\n%s", w.logTail())
		}
		if err := w.down(); err != nil {
			t.Error(err)
		}
	})
	hosts := []string{"over1", "over2", "over3"}
	w.createHosts(t, hosts...)
	if err := w.startServe("--overlay", "--reschedule-delay", "3s"); err != nil {
		t.Fatal(err)
	}
	if err := w.loadImages("busybox:latest"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"forms", overlayForms}, {"S18", overlayByName}, {"S9", overlayBirds}, {"lost host", overlayLostHost}, {"lost quorum", overlayLostQuorum}, {"down", overlayDown},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, w) }) {
			return // the next ones would wait for what is broken
		}
	}
}

// createHosts makes local machines whose engines are Debian's, or, at night, today's.
func (w *world) createHosts(t *testing.T, hosts ...string) {
	t.Helper()
	w.machine = append(w.machine, hosts...)
	create := []string{"create", "-d", "local"}
	if newest := program("BERTH_ENGINE29"); newest != "" {
		create = append(create, "--local-engine", newest)
	}
	must(t, w.command("berth", append(create, hosts...)...))
}

// overlay is a berth overlay command at the endpoint.
func (w *world) overlay(args ...string) []string {
	return append(append([]string{"overlay"}, args...), "-H", "unix://"+w.socket)
}

func (w *world) overlayState(t *testing.T) string {
	t.Helper()
	return must(t, w.command("berth", w.overlay("status")...))
}

// reaches tells whether a container gets an answer from a name, soon.
func (w *world) reaches(t *testing.T, from, name string) {
	t.Helper()
	eventually(t, 30*time.Second, from+" reaches "+name, func() bool {
		return do(t, w.docker("exec", from, "ping", "-c1", "-W2", name)).code == 0
	})
}

// info is docker info with its warnings, which are for people.
func (w *world) info(t *testing.T) string {
	t.Helper()
	r := do(t, w.docker("info"))
	return r.out + r.err
}

func overlayForms(t *testing.T, w *world) {
	must(t, w.command("berth", w.overlay("up")...))
	eventually(t, time.Minute, "three managers", func() bool { return strings.Contains(w.overlayState(t), "3 of 3 managers") })
	contains(t, "status", w.overlayState(t), "Overlay networks: ready", "that berth formed", "over1", "leader")
	contains(t, "docker info", must(t, w.docker("info")), "Swarm: inactive", "Overlay: ready, 3 of 3 managers")
	same(t, "networks that engines made for it", must(t, w.docker("network", "ls", "-q", "--filter", "type=custom")), "")
	log := w.logTail()
	if strings.Contains(log, "SWMTKN") {
		t.Errorf("a join token is in the log:\n%s", log)
	}
}

// S18: containers on two hosts in one network, by name.
func overlayByName(t *testing.T, w *world) {
	id := must(t, w.docker("network", "create", "-d", "overlay", "--subnet", "10.61.0.0/24", "--label", "kind=net", "net"))
	must(t, w.docker("network", "create", "other"))
	run := func(name, node string, more ...string) {
		t.Helper()
		must(t, w.docker(args("run -d --name", name, on(node), more, "busybox sleep 1000")...))
	}
	run("one", "over1", "--network", "net")
	run("two", "over2", "--network", "net", "--network-alias", "deux")
	run("three", "over3", "--network", "net", "--ip", "10.61.0.77")
	run("apart", "over3", "--network", "other")
	for _, pair := range [][2]string{{"one", "two"}, {"two", "three"}, {"three", "one"}, {"three", "deux"}, {"one", "10.61.0.77"}} {
		w.reaches(t, pair[0], pair[1])
	}
	same(t, "by a name of another network", do(t, w.docker("exec", "apart", "ping", "-c1", "-W1", "one")).code, 1)
	same(t, "by an address of another network", do(t, w.docker("exec", "apart", "ping", "-c1", "-W1", "10.61.0.77")).code, 1)

	same(t, "docker network ls", must(t, w.docker("network", "ls", "--no-trunc", "--filter", "label=kind=net", "--format", "{{.ID}} {{.Name}} {{.Driver}} {{.Scope}}")), id+" net overlay swarm")
	same(t, "the driver of one without", must(t, w.docker("network", "inspect", "-f", "{{.Driver}} {{.Attachable}}", "other")), "overlay true")
	var is struct {
		Containers map[string]struct{ Name, Node string }
	}
	w.get(t, "/networks/net", &is)
	at := map[string]string{}
	for _, c := range is.Containers {
		at[c.Name] = c.Node
	}
	same(t, "docker network inspect", fmt.Sprint(at), "map[one:over1 three:over3 two:over2]")
	contains(t, "rm while it is used", fails(t, w.docker("network", "rm", "net")), "over1/one", "over2/two", "over3/three")
	contains(t, "a subnet twice", fails(t, w.docker("network", "create", "-d", "overlay", "--subnet", "10.61.0.0/25", "net2")), "overlaps with network net")
	contains(t, "a host's subnet", fails(t, w.docker("network", "create", "-d", "overlay", "--subnet", must(t, w.command("berth", "ip", "over1"))+"/24", "net2")), "node over1")
	contains(t, "an address twice", fails(t, w.docker("run", "--rm", "--network", "net", "--ip", "10.61.0.77", "busybox", "true")), "is that of three on node over3")

	must(t, w.docker("network", "connect", "--alias", "friend", "net", "apart"))
	w.reaches(t, "one", "friend")
	must(t, w.docker("network", "disconnect", "net", "apart"))
	same(t, "after disconnect", do(t, w.docker("exec", "one", "ping", "-c1", "-W1", "friend")).code, 1)
	must(t, w.docker("restart", "-t", "0", "three"))
	w.reaches(t, "one", "three")
	same(t, "the address after a restart", must(t, w.docker("inspect", "-f", "{{.NetworkSettings.Networks.net.IPAddress}}", "three")), "10.61.0.77")
	must(t, w.docker("rm", "-f", "one", "two", "three", "apart"))
	must(t, w.docker("network", "rm", "net", "other")) // at once, although the swarm hears of it later
	same(t, "networks left", must(t, w.docker("network", "ls", "-q", "--filter", "type=custom")), "")
}

const overlayFlock = `version: '3.7'
services:
  bird:
    image: busybox
    command: sleep 1000
`

// S9: ten birds of a project, evenly, that find each other by the service's name, and no others.
func overlayBirds(t *testing.T, w *world) {
	for _, c := range w.composers(t) {
		t.Run("compose "+c.name, func(t *testing.T) { birdsOf(t, w, c) })
	}
}

func birdsOf(t *testing.T, w *world, c *composer) {
	dir := write(t, "docker-compose.yml", overlayFlock)
	must(t, c.run(dir, "-p", "flock", "up", "-d", "--scale", "bird=10"))
	must(t, c.run(dir, "-p", "swarm", "up", "-d"))
	nodes := w.nodes(t, "label=com.docker.compose.project=flock")
	for _, node := range []string{"over1", "over2", "over3"} {
		if n := nodes[node]; n < 3 || n > 4 {
			t.Errorf("ten birds by node: %v, want 3 or 4 on each", nodes)
		}
	}
	name := func(project string, n int) string {
		return strings.Join([]string{project, "bird", strconv.Itoa(n)}, c.sep)
	}
	for i := 1; i <= 4; i++ { // which are on all nodes
		bird := name("flock", i)
		eventually(t, 30*time.Second, bird+" finds ten birds", func() bool {
			found := do(t, w.docker("exec", bird, "nslookup", "bird")).out
			return strings.Count(found, "Name:") == 10
		})
		w.reaches(t, bird, name("flock", 11-i))
	}
	same(t, "a bird of another project", do(t, w.docker("exec", name("flock", 1), "ping", "-c1", "-W1", name("swarm", 1))).code, 1)
	birds := must(t, w.docker("ps", "-q", "--filter", "label=com.docker.compose.project=flock"))
	must(t, c.run(dir, "-p", "flock", "up", "-d", "--scale", "bird=10"))
	same(t, "the birds after another up", must(t, w.docker("ps", "-q", "--filter", "label=com.docker.compose.project=flock")), birds)
	must(t, c.run(dir, "-p", "flock", "down", "-t", "0"))
	must(t, c.run(dir, "-p", "swarm", "down", "-t", "0"))
	same(t, "docker ps after down", must(t, w.docker("ps", "-a", "--format", `{{.Names}} {{.Status}} {{.Label "berth.node"}} {{.Networks}} {{.CreatedAt}}`)), "")
	same(t, "docker network ls after down", must(t, w.docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")), "")
}

// The host of a database dies, which is a manager of the swarm too: the database comes back elsewhere, and who uses it finds it there.
func overlayLostHost(t *testing.T, w *world) {
	must(t, w.docker("network", "create", "-d", "overlay", "--subnet", "10.62.0.0/24", "app"))
	must(t, w.docker(args("run -d --name web --network app", on("over1"), "busybox sleep 1000")...))
	serve := []string{"mkdir /w; echo rows >/w/index.html; exec httpd -f -h /w"}
	must(t, w.docker(args("run -d --name db --network app --network-alias database -e reschedule:on-node-failure -e constraint:node==~over3 busybox sh -c", serve)...))
	same(t, "node of the database", w.nodeOf(t, "db"), "over3")
	rows := func(name string) {
		t.Helper()
		eventually(t, time.Minute, "rows of "+name, func() bool {
			return do(t, w.docker("exec", "web", "timeout", "3", "wget", "-qO-", "http://"+name+"/index.html")).out == "rows\n"
		})
	}
	rows("db")
	eventually(t, 10*time.Second, "the database is remembered as running", func() bool {
		files, _ := filepath.Glob(filepath.Join(w.dir, ".docker/machine/rescue-*/*.json")) // the pattern is constant
		return slices.ContainsFunc(files, func(f string) bool {
			b, _ := os.ReadFile(f) // it may be replaced just now
			return strings.Contains(string(b), `"Run":true`)
		})
	})
	must(t, w.command("berth", "kill", "over3"))
	began := time.Now()
	eventually(t, time.Minute, "docker info tells of the lost manager", func() bool {
		return strings.Contains(w.info(t), "overlay networks: 1 of 3 managers of the swarm do not answer")
	})
	eventually(t, 90*time.Second, "the database runs elsewhere", func() bool {
		return strings.TrimSpace(do(t, w.docker("ps", "-q", "--filter", "name=^/?db$", "--filter", "status=running", "--filter", "node=over3")).out) == "" &&
			do(t, w.docker("ps", "-q", "--filter", "name=^/?db$", "--filter", "status=running")).out != ""
	})
	rows("database")
	t.Logf("the database answered from elsewhere %s after its host was killed", time.Since(began).Round(time.Second))
	must(t, w.command("berth", "start", "over3"))
	eventually(t, 2*time.Minute, "all three take part again", func() bool {
		s := w.overlayState(t)
		return strings.Contains(s, "Overlay networks: ready") && strings.Contains(s, "3 of 3 managers")
	})
	rows("db")
	eventually(t, time.Minute, "what was lost is set aside", func() bool {
		return strings.Contains(must(t, w.command("berth", "ps", "--stale", "-H", "unix://"+w.socket)), "db-stale-")
	})
	for _, id := range strings.Fields(must(t, w.docker("ps", "-aq", "--filter", "label=berth.stale"))) {
		must(t, w.docker("rm", "-f", id))
	}
	must(t, w.docker("rm", "-f", "db"))
}

// Two of three hosts die: what runs goes on, what is wrong is said, and one command has the rest work again.
func overlayLostQuorum(t *testing.T, w *world) {
	must(t, w.docker(args("run -d --name fixed --network app --ip 10.62.0.50 -e reschedule:on-node-failure -e constraint:node==~over3 busybox sleep 1000")...))
	same(t, "node of what has an address of its own", w.nodeOf(t, "fixed"), "over3")
	must(t, w.command("berth", "kill", "over2", "over3"))
	eventually(t, time.Minute, "docker info tells of the lost quorum", func() bool {
		info := w.info(t)
		return strings.Contains(info, "lost its quorum") && strings.Contains(info, "berth overlay up --force-new-cluster")
	})
	same(t, "what ran still runs", must(t, w.docker("exec", "web", "echo", "here")), "here")
	contains(t, "a network now", fails(t, w.docker("network", "create", "-d", "overlay", "more")), "quorum")
	must(t, w.command("berth", w.overlay("up", "--force-new-cluster")...))
	must(t, w.docker(args("run -d --name late --network app", on("over1"), "busybox sleep 1000")...))
	w.reaches(t, "late", "web")
	eventually(t, time.Minute, "what had an address of its own runs elsewhere", func() bool {
		return strings.HasPrefix(do(t, w.docker("inspect", "-f", `{{.NetworkSettings.Networks.app.IPAddress}} {{.Node.Name}}`, "fixed")).out, "10.62.0.50 over1")
	})
	w.reaches(t, "web", "fixed")
	must(t, w.command("berth", "start", "over2", "over3"))
	eventually(t, 2*time.Minute, "all three take part again", func() bool {
		s := w.overlayState(t)
		return strings.Contains(s, "Overlay networks: ready") && strings.Contains(s, "3 of 3 managers")
	})
	must(t, w.docker(args("run -d --name last --network app", on("over3"), "busybox sleep 1000")...))
	w.reaches(t, "last", "web")
	w.reaches(t, "web", "last")
}

func overlayDown(t *testing.T, w *world) {
	contains(t, "down while containers are in networks", fails(t, w.command("berth", w.overlay("down")...)), "app by", "--force")
	eventually(t, time.Minute, "what was lost is set aside", func() bool {
		return strings.Contains(must(t, w.command("berth", "ps", "--stale", "-H", "unix://"+w.socket)), "fixed-stale-")
	})
	must(t, w.docker(append([]string{"rm", "-f"}, strings.Fields(must(t, w.docker("ps", "-aq")))...)...))
	must(t, w.docker("network", "rm", "app"))
	must(t, w.command("berth", w.overlay("down")...))
	contains(t, "status", w.overlayState(t), "Overlay networks: off")
	for _, host := range []string{"over1", "over2", "over3"} {
		same(t, "swarm of "+host, must(t, w.direct(t, host, "info", "--format", "{{.Swarm.LocalNodeState}}")), "inactive")
	}
	must(t, w.docker("network", "create", "plain"))
	same(t, "a network now", must(t, w.docker("network", "inspect", "-f", "{{.Driver}}", "plain")), "bridge")
	must(t, w.docker("network", "rm", "plain"))
}
