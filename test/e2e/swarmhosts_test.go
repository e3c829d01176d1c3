//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// swarmState is what the services of a Swarm are on a host, and since when.
const swarmState = `cd / && find usr/local/bin etc/berth etc/systemd/system -type f -exec stat -c '%n %a %u %Y' {} + | sort
systemctl show berth-manager -p MainPID -p NRestarts -p ActiveState`

// S2 to S4 on a rented server: the manager is a service there, from this very binary, and goes on through whatever happens to the host.
func TestGenericSwarmMaster(t *testing.T) {
	w, err := newWorld("swarmhost")
	if err != nil {
		t.Fatal(err)
	}
	h := startHost(t, 3)
	const discovery = "nodes://10.98.0.13:2376"
	create := append(h.flags("--engine-install-url", "distro", "--no-context", "--swarm-master", "--swarm-discovery", discovery, "--swarm-strategy", "binpack"), "rented")
	contains(t, "create", must(t, w.command("berth", create...)),
		"Copying berth to the remote machine", "Starting berth-manager...", "To connect it to all machines of the Swarm, run: berth env --swarm rented")
	contains(t, "ls", must(t, w.command("berth", "ls")), "rented (manager)")
	w.useSwarm(t, "rented")
	w.wantNodes(t, 1)
	contains(t, "docker info", must(t, w.command("docker", "info")), "Strategy: binpack", "Nodes: 1", "rented: 10.98.0.13:2376")
	contains(t, "ls", must(t, w.command("berth", "ls")), "* (swarm)")
	same(t, "berth active", must(t, w.command("berth", "active")), "rented")
	w.loadThere(t)
	same(t, "docker run", must(t, w.command("docker", "run", "--rm", "busybox", "echo", "from the Swarm")), "from the Swarm")
	h.do(t, "! grep -q nodes:[/]/ /proc/[0-9]*/cmdline /etc/systemd/system/berth-manager.service")

	// Again changes nothing; a manager that was killed comes back; a host that was restarted brings it along.
	before := h.do(t, swarmState)
	must(t, w.command("berth", "provision", "rented"))
	same(t, "the host after provisioning again", h.do(t, swarmState), before)
	h.do(t, "systemctl kill -s KILL berth-manager")
	eventually(t, 20*time.Second, "the manager is back", func() bool { return do(t, w.command("docker", "ps")).code == 0 })
	must(t, w.command("berth", "restart", "rented"))
	eventually(t, 20*time.Second, "the manager is back after a restart", func() bool { return do(t, w.command("docker", "ps")).code == 0 })

	// New certificates; then what is wrong, and said to be.
	must(t, w.command("berth", "regenerate-certs", "-f", "rented"))
	w.wantNodes(t, 1)
	h.do(t, "systemctl stop berth-manager")
	contains(t, "env --swarm", fails(t, w.command("berth", "env", "--swarm", "rented")),
		"Maybe swarm is not started", "connection refused", "berth ssh rented systemctl status berth-manager", "berth provision rented")
	h.do(t, "perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1); bind(S, sockaddr_in(3376, INADDR_ANY)) or die; listen(S, 1); close(STDOUT); close(STDERR); exit if fork; sleep 1000'")
	contains(t, "provision with the port taken", fails(t, w.command("berth", "provision", "rented")),
		"start the Swarm's services: systemctl restart berth-manager.service", "address already in use", "does not go on running")
	h.do(t, "pkill -x perl")
	must(t, w.command("berth", "provision", "rented"))
	must(t, w.command("berth", "env", "--swarm", "rented"))
}

// useSwarm points docker at the Swarm that a machine manages, as eval "$(berth env --swarm NAME)" does.
func (w *world) useSwarm(t *testing.T, name string) {
	t.Helper()
	for line := range strings.Lines(must(t, w.command("berth", "env", "--swarm", name))) {
		if key, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "="); ok && strings.HasPrefix(key, "DOCKER_") {
			w.env = append(w.env, key+"="+strings.Trim(value, `"`))
		}
	}
}
