//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// S6: run somewhere, read its logs, see where it runs.
func TestRunLogsAndPs(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-t", "-d", "--name", "hello-swarm", "busybox", "echo", "Hello Swarm"))
	must(t, w.docker("wait", "hello-swarm"))
	if got := strings.TrimSpace(must(t, w.docker("logs", "hello-swarm"))); got != "Hello Swarm" {
		t.Errorf("docker logs = %q", got)
	}
	row := must(t, w.docker("ps", "-a", "-f", "name=hello-swarm", "--format", `{{.Names}} {{.Status}} {{.Label "berth.node"}}`))
	contains(t, "docker ps", row, "hello-swarm Exited (0)", "host")
	contains(t, "docker inspect", must(t, w.docker("inspect", "hello-swarm")), `"Node": {`)
}

// S10: spread evens out.
func TestSpread(t *testing.T) {
	w := fleet(t)
	for i := range 9 {
		must(t, w.docker("run", "-d", "--label", "test=spread", "--name", fmt.Sprintf("s%d", i), "busybox", "sleep", "1000"))
	}
	if got := w.nodes(t, "label=test=spread"); got["host1"] != 3 || got["host2"] != 3 || got["host3"] != 3 {
		t.Errorf("9 containers by node: %v, want 3 each", got)
	}
}

// S14: one port once per node, then a refusal that says why.
func TestPortFilter(t *testing.T) {
	w := fleet(t)
	seen := map[string]bool{}
	for i := range 3 {
		name := fmt.Sprintf("web%d", i)
		must(t, w.docker("run", "-d", "--name", name, "-p", "80:80", "busybox", "sleep", "1000"))
		seen[w.nodeOf(t, name)] = true
	}
	if len(seen) != 3 {
		t.Errorf("three containers with one host port are on %v", seen)
	}
	r := do(t, w.docker("run", "-d", "--name", "web3", "-p", "80:80", "busybox", "sleep", "1000"))
	if r.code != 125 {
		t.Errorf("the fourth exits with %d, want 125", r.code)
	}
	contains(t, "the refusal", r.err, "no node fits web3", "80/tcp", "Unable to find a node that satisfies")
	must(t, w.docker("run", "-d", "--name", "dns", "-p", "80:80/udp", "busybox", "sleep", "1000"))
}
