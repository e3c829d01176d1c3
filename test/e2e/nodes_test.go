//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"
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
