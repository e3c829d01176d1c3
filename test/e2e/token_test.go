//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// S1 to S4 as they stand: a token, a manager and agents on machines, and docker at the manager.
func TestSwarmByToken(t *testing.T) {
	w, err := newWorld("swarmtoken")
	if err != nil {
		t.Fatal(err)
	}
	w.removeAtEnd(t)
	service := w.startTokens(t)
	url := must(t, w.command("berth", "swarm", "create"))
	token := url[strings.LastIndex(url, "/")+1:]
	if !strings.HasPrefix(url, "token+http://127.0.0.1:2380/") || len(token) != 32 {
		t.Fatalf("berth swarm create printed %q", url)
	}
	// The machines reach the service on their own network.
	url = "token+http://10.213.77.1:2380/" + token
	agent := []string{"--swarm", "--swarm-discovery", url, "--swarm-join-opt", "heartbeat=1s", "--swarm-join-opt", "ttl=4s"}
	w.createLocal(t, "machine0-manager", append([]string{"--swarm-master"}, agent...)...)
	w.createLocal(t, "machine1", agent...)
	w.createLocal(t, "machine2", agent...)
	table := must(t, w.command("berth", "ls"))
	contains(t, "ls", table, "machine0-manager (manager)")
	if strings.Count(table, " machine0-manager ") < 3 {
		t.Errorf("ls does not say whose members machine1 and machine2 are:\n%s", table)
	}
	w.useSwarm(t, "machine0-manager")
	w.wantNodes(t, 3)
	w.loadThere(t)
	for range 3 {
		must(t, w.command("docker", "run", "-d", "busybox", "sleep", "1000"))
	}
	if got := len(strings.Fields(must(t, w.command("docker", "ps", "-q")))); got != 3 {
		t.Errorf("%d containers run, want 3", got)
	}
	list := must(t, w.command("berth", "swarm", "list", url))
	if got := len(strings.Fields(list)); got != 3 {
		t.Errorf("berth swarm list:\n%s", list)
	}

	// The token is for nobody who looks at processes.
	if out, err := exec.CommandContext(t.Context(), "pgrep", "-af", token).CombinedOutput(); err == nil {
		t.Errorf("the token stands in a command line: %s", out)
	}

	// A service that is down changes nothing; started again it has kept everything.
	stopProcess(t, service)
	w.wantNodes(t, 3)
	w.startTokens(t)

	// One machine leaves by itself, one dies and is out when its time is over.
	must(t, w.command("berth", "stop", "machine1"))
	w.wantNodes(t, 2)
	must(t, w.command("berth", "kill", "machine2"))
	w.wantNodes(t, 1)
	must(t, w.command("berth", "start", "machine1", "machine2"))
	w.wantNodes(t, 3)
}

// A manager keeps the tokens itself: agents join by one, and the manager serves them, also after it was killed.
func TestManagerKeepsTokens(t *testing.T) {
	w := fleet(t)
	engines := map[string]string{"host1": forward(t, w.engineSocket(t, "host1")), "host2": forward(t, w.engineSocket(t, "host2"))}
	service := "127.0.0.1:" + freePort(t)
	keeper := &world{dir: t.TempDir()}
	keeper.log, keeper.socket = filepath.Join(keeper.dir, "serve.log"), filepath.Join(keeper.dir, "docker.sock")
	keeper.env = append(slices.Clone(w.env), "DOCKER_HOST=unix://"+keeper.socket)
	start := func(args ...string) {
		t.Helper()
		args = append([]string{"-s", filepath.Join(keeper.dir, "store"), "--no-context", "--heartbeat", "1s", "--token-service=" + service}, args...)
		if err := keeper.startServe(args...); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() {
		if err := keeper.stopServe(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the manager said:\n%s", keeper.logTail())
		}
	})
	url := must(t, w.command("berth", "swarm", "create", "--discovery-url", "http://"+service))
	for _, addr := range engines {
		background(t, w.command("berth", "join", "--advertise", addr, "--heartbeat", "1s", "--ttl", "20s", url))
	}
	eventually(t, 10*time.Second, "both have joined", func() bool {
		return len(strings.Fields(must(t, w.command("berth", "swarm", "list", url)))) == 2
	})
	for _, end := range []func(){
		func() {
			if err := keeper.stopServe(); err != nil {
				t.Errorf("berth serve: %v", err)
			}
		},
		func() { _ = keeper.serve.Process.Kill(); _ = keeper.stopServeHard() },
	} {
		end()
		start(url)
		keeper.wantNodes(t, 2)
		must(t, keeper.docker("run", "-d", "busybox", "sleep", "1000"))
		contains(t, "node ls", must(t, keeper.docker("node", "ls")), "host1", "host2", "Ready")
	}
	same(t, "containers", len(strings.Fields(must(t, keeper.docker("ps", "-q")))), 2)
	must(t, w.command("berth", "leave", "--advertise", engines["host2"], url))
	if strings.Contains(keeper.logTail(), strings.TrimPrefix(url, "token+http://"+service+"/")) {
		t.Error("the token stands in the log")
	}
}

// startTokens runs the discovery service of the world.
func (w *world) startTokens(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := w.command("berth", "discovery", "serve", "-H", "0.0.0.0:2380", "--insecure", "--data", filepath.Join(w.dir, "discovery.db"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopProcess(t, cmd) })
	eventually(t, 10*time.Second, "the discovery service answers", func() bool {
		return do(t, w.command("berth", "swarm", "create")).code == 0
	})
	return cmd
}

// stopProcess ends a process in the ordinary way, once.
func stopProcess(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if cmd.ProcessState != nil {
		return
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // that it ended is what counts
}

func TestJoinRefuses(t *testing.T) {
	w := fleet(t)
	for flags, want := range map[string]string{
		"token://h:1/T":                                         "missing mandatory --advertise flag",
		"--advertise here token://h:1/T":                        "--advertise should be of the form ip:port or hostname:port",
		"--advertise a:1 --heartbeat 1ms token://h:1/T":         "--heartbeat should be at least one second",
		"--advertise a:1 --heartbeat 9s --ttl 9s token://h:1/T": "--ttl must be strictly superior to the heartbeat value",
		"--advertise a:1 nodes://b:1":                           "not implemented in this discovery service",
		"--advertise a:1":                                       "discovery required",
		"--advertise a:1 --delay -1s token://h:1/T":             "--delay should not be a negative number",
	} {
		contains(t, "berth join "+flags, fails(t, w.command("berth", append([]string{"join"}, strings.Fields(flags)...)...)), want)
	}
	contains(t, "discovery serve", fails(t, w.command("berth", "discovery", "serve", "-H", "0.0.0.0:2380")), "--insecure")
}
