//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Nodes are objects to the stock clients, old and new.
func TestNodesWithTheStockClient(t *testing.T) {
	w := fleet(t)
	programs := []string{"docker"}
	if _, err := os.Stat("/usr/bin/docker"); err == nil {
		programs = append(programs, "/usr/bin/docker")
	}
	for _, program := range programs {
		docker := func(args ...string) string {
			t.Helper()
			return must(t, w.command(program, append([]string{"-H", "unix://" + w.socket}, args...)...))
		}
		t.Logf("%s", docker("version", "--format", "{{.Client.Version}}"))
		contains(t, "node ls", docker("node", "ls"), "host1", "host2", "host3", "Ready", "Active")
		same(t, "an ID", len(docker("node", "ls", "-q", "--filter", "name=host1")), 25)
		docker("node", "update", "--availability", "pause", "--label-add", "rack=7", "host2")
		contains(t, "node ls with a paused node", docker("node", "ls"), "Pause")
		same(t, "inspect", docker("node", "inspect", "--format", "{{.Spec.Availability}} {{.Spec.Labels.rack}} {{.Description.Hostname}}", "host2"), "pause 7 host2")
		contains(t, "inspect --pretty", docker("node", "inspect", "--pretty", "host2"), "rack=7", "Hostname:", "Pause", "Ready")
		contains(t, "a create for a paused node", fails(t, w.docker("create", "-e", "constraint:rack==7", "busybox")), "1 paused")
		contains(t, "info", docker("info"), "Swarm: inactive")
		docker("node", "update", "--availability", "active", "host2")
		docker("run", "-d", "--name", "racked", "-e", "constraint:rack==7", "busybox", "sleep", "1000")
		contains(t, "node ps", docker("node", "ps", "host2"), "racked", "busybox", "host2", "Running")
		docker("rm", "-f", "racked")
		docker("node", "update", "--label-rm", "rack", "host2")
		contains(t, "rm of a node that answers", fails(t, w.command(program, "-H", "unix://"+w.socket, "node", "rm", "host2")), "its source still names it")
		contains(t, "promote", fails(t, w.command(program, "-H", "unix://"+w.socket, "node", "promote", "host2")), "all workers")
		contains(t, "service ls", fails(t, w.command(program, "-H", "unix://"+w.socket, "service", "ls")), "This node is not a swarm manager")
	}
	// The same without a docker client, and over a restart of the manager.
	berth := func(args ...string) string {
		t.Helper()
		return must(t, w.command("berth", append([]string{"node"}, append(args, "-H", "unix://"+w.socket)...)...))
	}
	berth("update", "--availability", "pause", "--label-add", "rack=8", "host3")
	if err := w.serve.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.stopServeHard(); err == nil {
		t.Fatal("berth serve ended well although it was killed")
	}
	if err := w.startServe(); err != nil {
		t.Fatal(err)
	}
	var row string
	for line := range strings.Lines(berth("ls")) {
		if strings.HasPrefix(line, "host3") {
			row = line
		}
	}
	contains(t, "berth node ls after a restart", row, "ready", "pause", "rack=8")
	contains(t, "berth node inspect", berth("inspect", "host3"), `"Availability": "pause"`, `"rack": "8"`)
	berth("update", "--availability", "active", "--label-rm", "rack", "host3")
}

// A drain by the stock client moves what can move, under the same name, and says what cannot.
func TestDrainWithTheStockClient(t *testing.T) {
	w := fleet(t)
	active := func() { must(t, w.docker("node", "update", "--availability", "active", "host2")) }
	t.Cleanup(active)
	for i := range 4 {
		must(t, w.docker("run", "-d", "--name", fmt.Sprintf("web%d", i), "--restart", "always", "-e", "constraint:node==~host2", "-e", "GREETING=hello", "-m", "50m", "busybox", "sleep", "1000"))
	}
	must(t, w.docker("create", "--name", "idle", "-e", "constraint:node==~host2", "busybox", "sleep", "1000"))
	must(t, w.docker("run", "-d", "--name", "kept", "-v", "kept:/data", "-e", "constraint:node==host2", "busybox", "sleep", "1000"))
	must(t, w.docker("run", "-d", "--name", "bound", "-v", "/etc:/host", "-e", "constraint:node==~host2", "busybox", "sleep", "1000"))
	same(t, "containers on host2", w.nodes(t, "name=web")["host2"], 4)
	id := must(t, w.docker("inspect", "--format", `{{index .Config.Labels "com.docker.swarm.id"}}`, "web0"))
	began := time.Now()
	must(t, w.docker("node", "update", "--availability", "drain", "host2"))
	eventually(t, time.Minute, "host2 is drained", func() bool {
		return w.nodes(t, "name=web")["host2"] == 0 && w.nodes(t, "name=idle")["host2"] == 0
	})
	for i := range 4 {
		same(t, "state", must(t, w.docker("inspect", "--format", "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}}", fmt.Sprintf("web%d", i))), "running always 52428800")
	}
	same(t, "Swarm ID", must(t, w.docker("inspect", "--format", `{{index .Config.Labels "com.docker.swarm.id"}}`, "web0")), id)
	contains(t, "environment", must(t, w.docker("exec", "web0", "env")), "GREETING=hello")
	same(t, "idle", must(t, w.docker("inspect", "--format", "{{.State.Status}}", "idle")), "created")
	contains(t, "node ps", must(t, w.docker("node", "ps", "--no-trunc", "host2")), "not moved: it keeps data in local volume kept", "not moved: it mounts /etc of its node")
	contains(t, "node inspect", must(t, w.docker("node", "inspect", "host2")), "bound: it mounts /etc of its node")
	contains(t, "berth node inspect", must(t, w.command("berth", "node", "inspect", "-H", "unix://"+w.socket, "host2")), `"Draining": {`, `"it mounts /etc of its node"`)
	contains(t, "a create for the node", fails(t, w.docker("create", "-e", "constraint:node==host2", "busybox")), "1 draining")
	contains(t, "berth node update", fails(t, w.command("berth", "node", "update", "-H", "unix://"+w.socket, "--availability", "drain", "host2")), "host2 cannot be emptied: 2 left", "bound: it mounts /etc of its node")
	told := must(t, w.docker("events", "--since", fmt.Sprint(began.Unix()), "--until", fmt.Sprint(time.Now().Add(time.Second).Unix()), "--filter", "event=move", "--filter", "container=web0", "--format", "{{json .}}"))
	contains(t, "events", told, `"from":"host2"`, `"reason":"node host2 is drained"`)
	active()
	// Now that it is back, some would be better off there.
	berth := func(args ...string) string {
		t.Helper()
		return must(t, w.command("berth", append(args, "-H", "unix://"+w.socket)...))
	}
	contains(t, "plan", berth("rebalance", "--plan", "--limit", "2"), "CONTAINER", "host2 grants 1 more of its soft expressions")
	same(t, "moved by a plan", w.nodes(t, "name=web")["host2"], 0)
	contains(t, "apply", berth("rebalance", "--apply", "--limit", "2"), "to host2")
	same(t, "moved", w.nodes(t, "name=web")["host2"]+w.nodes(t, "name=idle")["host2"], 2)
}

// The manager is killed while volumes are copied: nothing is lost, and the next one finishes the drain.
func TestDrainWithVolumesAndAKilledManager(t *testing.T) {
	w := fleet(t)
	t.Cleanup(func() { must(t, w.docker("node", "update", "--availability", "active", "host2")) })
	must(t, w.docker("run", "-d", "--name", "db", "--restart", "always", "-v", "data:/data", "-v", "/cache", "-e", "constraint:node==~host2", "busybox", "sleep", "1000"))
	same(t, "node", w.nodeOf(t, "db"), "host2")
	must(t, w.docker("exec", "db", "sh", "-c", `cd /data && mkdir -p a/b && dd if=/dev/urandom of=a/big bs=1M count=200 2>/dev/null &&
		echo secret >a/b/s && chmod 4711 a/b/s && chown 1234:4321 a/b/s && ln -s ../big a/b/link && ln a/b/s hard && mkfifo pipe &&
		chown 70:70 . && chmod 2770 . && echo warm >/cache/w`))
	const sums = `cd /data && find . /cache | sort | xargs stat -c '%n %a %u:%g %F %h' | sed 's/ regular empty/ regular/' && find . /cache -type f | sort | xargs sha256sum && readlink a/b/link`
	before := must(t, w.docker("exec", "db", "sh", "-c", sums))
	must(t, w.command("berth", "node", "update", "-H", "unix://"+w.socket, "--availability", "drain", "--with-volumes", "--detach", "host2"))
	for _, step := range []string{"moves: stop", "moves: copy volumes"} {
		eventually(t, time.Minute, step, func() bool {
			return strings.Contains(must(t, w.docker("node", "ps", "--no-trunc", "host2")), step)
		})
		if err := w.serve.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := w.stopServeHard(); err == nil {
			t.Fatal("berth serve ended well although it was killed")
		}
		if err := w.startServe(); err != nil {
			t.Fatal(err)
		}
	}
	must(t, w.command("berth", "node", "update", "-H", "unix://"+w.socket, "--availability", "drain", "--with-volumes", "host2"))
	node := w.nodeOf(t, "db")
	if node == "host2" {
		t.Fatalf("db is still on host2:\n%s", must(t, w.docker("node", "ps", "--no-trunc", "host2")))
	}
	same(t, "contents", must(t, w.docker("exec", "db", "sh", "-c", sums)), before)
	same(t, "volumes", must(t, w.docker("volume", "ls", "-q", "--filter", "name=data")), "data")
	same(t, "node of the volume", w.volumeNode(t, "data"), node)
	same(t, "containers", must(t, w.docker("ps", "-aq", "--filter", "name=db")), must(t, w.docker("ps", "-q", "--filter", "name=db")))
	same(t, "state", must(t, w.docker("inspect", "--format", "{{.State.Status}}", "db")), "running")
	same(t, "restart policy", must(t, w.docker("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", "db")), "always")
}
