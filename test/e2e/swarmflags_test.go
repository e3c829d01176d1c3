//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// S2 to S4, with a list in place of a discovery service: the manager runs on the first machine.
func TestSwarmMasterOverAList(t *testing.T) {
	w, err := newWorld("swarmlist")
	if err != nil {
		t.Fatal(err)
	}
	w.removeAtEnd(t)
	at := func(last string) []string { // a network of its own: the list names addresses
		return []string{"--local-subnet", "10.213.80.0/24", "--local-address", "10.213.80." + last}
	}
	w.createLocal(t, "machine0-manager", append(at("2"), "--swarm-master", "--swarm-discovery", "nodes://10.213.80.[2:4]:2376")...)
	w.createLocal(t, "machine1", at("3")...)
	w.createLocal(t, "machine2", at("4")...)
	w.useSwarm(t, "machine0-manager")
	w.wantNodes(t, 3)
	same(t, "berth active", must(t, w.command("berth", "active")), "machine0-manager")
	contains(t, "ls", must(t, w.command("berth", "ls")), "* (swarm)", "machine0-manager (manager)")
	w.loadThere(t)
	same(t, "docker run", must(t, w.command("docker", "run", "--rm", "busybox", "echo", "from the Swarm")), "from the Swarm")

	// The manager goes with its machine, and comes back with it.
	must(t, w.command("berth", "stop", "machine0-manager"))
	contains(t, "env --swarm", fails(t, w.command("berth", "env", "--swarm", "machine0-manager")), "Host is not running")
	must(t, w.command("berth", "start", "machine0-manager"))
	w.wantNodes(t, 3)
	must(t, w.command("berth", "regenerate-certs", "-f", "machine0-manager"))
	w.wantNodes(t, 3)
}

// createLocal makes a local machine.
func (w *world) createLocal(t *testing.T, name string, flags ...string) string {
	t.Helper()
	out := must(t, w.command("berth", append(append([]string{"create", "-d", "local", "--no-context"}, flags...), name)...))
	w.machine = append(w.machine, name)
	return out
}

func (w *world) removeAtEnd(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("berth ls:\n%s", do(t, w.command("berth", "ls")).out)
		}
		if err := w.down(); err != nil {
			t.Error(err)
		}
	})
}

// wantNodes waits until docker's endpoint has so many healthy nodes, and no others.
func (w *world) wantNodes(t *testing.T, n int) {
	t.Helper()
	var said result
	defer func() {
		if t.Failed() {
			t.Logf("docker info:\n%s%s", said.out, said.err)
		}
	}()
	eventually(t, 30*time.Second, "the fleet is whole", func() bool {
		said = do(t, w.command("docker", "info"))
		return said.code == 0 && strings.Count(said.out, "Status: Healthy") == n && strings.Count(said.out, "└ Status:") == n
	})
}

// loadThere makes the image busybox by docker's own endpoint.
func (w *world) loadThere(t *testing.T) {
	t.Helper()
	tree, err := busyboxTree()
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.command("docker", "import", "-c", `CMD ["sh"]`, "-", "busybox:latest")
	cmd.Stdin = strings.NewReader(string(tree))
	must(t, cmd)
}
