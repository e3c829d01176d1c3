//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// The manager is killed and comes back: containers run on, names are taken, an exec made before can be asked for.
func TestManagerIsKilled(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "lives", "--restart", "no", "busybox", "sleep", "1000"))
	must(t, w.docker("create", "--name", "waits", "-e", "constraint:node==host2", "-m", "100m", "busybox"))
	must(t, w.docker("network", "create", "stays"))
	must(t, w.docker("volume", "create", "stays"))
	node, network, volume := w.nodeOf(t, "lives"), w.networkNode(t, "stays"), w.volumeNode(t, "stays")
	a := w.api(t, "POST", "/v1.41/containers/lives/exec", `{"Cmd":["sh","-c","exit 8"],"AttachStdout":true}`)
	same(t, "status of exec", a.status, 201)
	var exec struct{ ID string }
	if err := json.Unmarshal([]byte(a.body), &exec); err != nil {
		t.Fatal(err)
	}
	same(t, "status of exec start", w.api(t, "POST", "/v1.41/exec/"+exec.ID+"/start", `{"Detach":true}`).status, 200)
	pid := must(t, w.docker("inspect", "--format", "{{.State.Pid}}", "lives"))

	if err := w.serve.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.stopServeHard(); err == nil {
		t.Fatal("berth serve ended well although it was killed")
	}
	contains(t, "docker without a manager", fails(t, w.docker("ps")), "Cannot connect to the Docker daemon")
	if err := w.startServe(); err != nil {
		t.Fatal(err)
	}
	same(t, "process of the container", must(t, w.docker("inspect", "--format", "{{.State.Pid}}", "lives")), pid)
	same(t, "node of the container", w.nodeOf(t, "lives"), node)
	same(t, "homes", w.networkNode(t, "stays")+w.volumeNode(t, "stays"), network+volume)
	contains(t, "the name is still taken", fails(t, w.docker("create", "--name", "waits", "-e", "constraint:node==host1", "busybox")), "already in use")
	same(t, "reserved memory", w.node(t, "host2").ReservedMemory, 100<<20)
	var after struct {
		ExitCode int
		Running  bool
	}
	w.get(t, "/exec/"+exec.ID+"/json", &after)
	same(t, "the exec", after, struct {
		ExitCode int
		Running  bool
	}{8, false})
	must(t, w.docker("start", "waits"))

	// A second one on the same socket refuses, and the first lives on.
	r := do(t, w.command("berth", "serve", "--no-context", "-H", "unix://"+w.socket))
	if r.code == 0 || !strings.Contains(r.err, "somebody serves there already") {
		t.Errorf("a second berth serve on the socket: exit %d\n%s", r.code, r.err)
	}
	if _, err := os.Stat(w.socket); err != nil {
		t.Error(err)
	}
	must(t, w.docker("ps"))
}

// A manager that is asked to stop lets the containers be, ends at once, and its socket is gone.
func TestManagerStops(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "on", "busybox", "sleep", "1000"))
	second := w.secondServe(t)
	follow := background(t, second.docker("logs", "-f", "on")) // a stream that would last for ever
	if err := second.stopServe(); err != nil {
		t.Errorf("berth serve ended with: %v", err)
	}
	ends(t, follow)
	if _, err := os.Stat(second.socket); !os.IsNotExist(err) {
		t.Errorf("its socket: %v", err)
	}
	same(t, "the container", must(t, w.docker("inspect", "--format", "{{.State.Running}}", "on")), "true")
}
