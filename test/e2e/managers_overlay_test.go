//go:build e2e

package e2e

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Two managers keep the networks across hosts of one fleet, one at a time: what one has made is the other's when it dies, and hosts that come
// and go meanwhile take part.
func TestManagersWithOverlay(t *testing.T) {
	w, err := newWorld("duo")
	if err != nil {
		t.Fatal(err)
	}
	w.removeAtEnd(t)
	hosts := []string{"duo1", "duo2", "duo3"}
	w.createHosts(t, hosts...)
	g := &team{w: w, dir: t.TempDir(), etcd: startEtcd(t), options: append(serverTLS(t, w), "--overlay", "--heartbeat", "2s")}
	for _, host := range hosts {
		background(t, w.command("berth", "join", "--advertise", must(t, w.command("berth", "ip", host))+":2376", "--heartbeat", "1s", "--ttl", "20s", g.url()))
	}
	for i := range 2 {
		m := &teamManager{name: "manager" + strconv.Itoa(i+1), addr: "127.0.0.1:" + freePort(t)}
		g.managers = append(g.managers, m)
		g.start(t, m)
	}
	t.Cleanup(g.end(t))
	at := func(m *teamManager, args ...string) *exec.Cmd {
		return w.command("docker", append(append([]string{"-H", "tcp://" + m.addr}, w.tlsArgs()...), args...)...)
	}
	is := func(m *teamManager, within time.Duration, role string) {
		t.Helper()
		eventually(t, within, m.name+" is "+role, func() bool { return strings.Contains(do(t, at(m, "info")).out, " Role: "+role+"\n") })
	}
	ready := func(m *teamManager) {
		t.Helper()
		eventually(t, time.Minute, "the overlay is ready, says "+m.name, func() bool {
			s := do(t, w.command("berth", append([]string{"overlay", "status", "-H", "tcp://" + m.addr}, w.tlsArgs()...)...)).out
			return strings.Contains(s, "Overlay networks: ready") && strings.Contains(s, "3 of 3 managers")
		})
	}
	reaches := func(m *teamManager, from, name string) {
		t.Helper()
		eventually(t, 30*time.Second, from+" reaches "+name, func() bool { return do(t, at(m, "exec", from, "ping", "-c1", "-W2", name)).code == 0 })
	}
	run := func(m *teamManager, name, node, network string) {
		t.Helper()
		must(t, at(m, "run", "-d", "--name", name, "--network", network, "-e", "constraint:node=="+node, "busybox", "sleep", "1000"))
	}

	var primary, replica *teamManager
	eventually(t, time.Minute, "there is a primary", func() bool {
		for i, m := range g.managers {
			if strings.Contains(do(t, at(m, "info")).out, "Role: primary\n") {
				primary, replica = m, g.managers[1-i]
			}
		}
		return primary != nil
	})
	whole := func(m *teamManager) {
		t.Helper()
		eventually(t, time.Minute, m.name+" knows the fleet", func() bool { return strings.Count(do(t, at(m, "info")).out, "Status: Healthy\n") == 3 })
	}
	whole(primary)
	whole(replica)
	is(replica, time.Minute, "replica")
	tree, err := busyboxTree()
	if err != nil {
		t.Fatal(err)
	}
	must(t, feed(at(primary, "import", "-", "busybox:latest"), strings.NewReader(string(tree))))
	ready(primary)
	ready(replica)
	must(t, at(replica, "network", "create", "-d", "overlay", "--subnet", "10.71.0.0/24", "net"))
	run(replica, "one", "duo1", "net")
	run(primary, "two", "duo2", "net")
	reaches(replica, "one", "two")
	reaches(primary, "two", "one")

	primary.kill()
	is(replica, inTime+slack, "primary")
	run(replica, "three", "duo3", "net")
	reaches(replica, "three", "one")
	reaches(replica, "two", "three")
	must(t, at(replica, "network", "create", "-d", "overlay", "other"))
	must(t, w.command("berth", "kill", "duo3")) // a manager of the swarm's
	must(t, w.command("berth", "start", "duo3"))
	ready(replica)

	g.start(t, primary)
	whole(primary)
	is(primary, time.Minute, "replica")
	ready(primary)
	run(primary, "four", "duo3", "other")
	must(t, at(primary, "network", "connect", "other", "one"))
	reaches(primary, "four", "one")
	same(t, "networks at the other", must(t, at(replica, "network", "ls", "--filter", "driver=overlay", "--filter", "type=custom", "--format", "{{.Name}}")), "net\nother")
	must(t, at(primary, "rm", "-f", "one", "two", "three", "four"))
	must(t, at(replica, "network", "rm", "net", "other"))
	same(t, "networks left", must(t, at(primary, "network", "ls", "-q", "--filter", "type=custom")), "")
}
