//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// staticBerth makes the rest of the test use a berth that needs no libraries, as relays are made of.
func staticBerth(t *testing.T) {
	t.Helper()
	was := binary
	t.Cleanup(func() { binary = was })
	static := filepath.Join(scratch, "static", "berth")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", static, "berth/cmd/berth")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build berth without libraries: %v\n%s", err, out)
	}
	binary = static
}

// withSocket are the flags of a container that has a docker client, at work on the socket that it mounts.
func withSocket(t *testing.T) []string {
	t.Helper()
	client, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal(err)
	}
	// A client that needs libraries takes this computer's, as do the local machines themselves.
	return args("-v /var/run/docker.sock:/var/run/docker.sock -v /lib:/lib:ro -v /lib64:/lib64:ro -v /usr/lib:/usr/lib:ro -v", client+":/bin/docker:ro")
}

// removeRelays takes away what --socket=fleet leaves on the nodes for the next manager.
func (w *world) removeRelays(t *testing.T) {
	t.Helper()
	if ids := strings.Fields(must(t, w.docker("ps", "-aq", "--filter", "label=berth.relay"))); len(ids) > 0 {
		must(t, w.docker(args("rm -f", ids)...))
	}
	if refs := strings.Fields(must(t, w.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "berth-relay"))); len(refs) > 0 {
		must(t, w.docker(args("rmi", refs)...))
	}
}

// relays are the containers that bring the fleet's socket to others, by node.
func (w *world) relays(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, line := range lines(must(t, w.docker("ps", "-a", "--no-trunc", "--filter", "label=berth.relay", "--format", `{{.Label "berth.node"}} {{.ID}}`))) {
		node, id, _ := strings.Cut(line, " ")
		if found[node] != "" {
			t.Errorf("%s has two relays", node)
		}
		found[node] = id
	}
	return found
}

// sleepers runs a container on each node.
func (w *world) sleepers(t *testing.T) {
	t.Helper()
	for i := range 3 {
		must(t, w.docker(args("run -d --name", fmt.Sprintf("on%d", i+1), on(fmt.Sprintf("host%d", i+1)), "busybox sleep 1000")...))
	}
}

// looking lists containers until the one that looks is among them: its engine counts it as running once its start has been
// answered, which it may be quicker than.
const looking = "for i in 1 2 3 4 5 6 7 8 9 10; do docker ps --format '{{.Names}}' >/names; grep -q looks /names && break; sleep 0.3; done; cat /names"

// A container that mounts the docker socket sees its node, unless the fleet is asked for.
func TestSocketOfTheNode(t *testing.T) {
	w := fleet(t)
	w.sleepers(t)
	out := must(t, w.docker(append(args("run --rm --name looks", on("host2"), withSocket(t), "busybox sh -c"), looking)...))
	same(t, "what a container of host2 sees", lines(out), []string{"looks", "on2"})
	same(t, "relays", w.relays(t), map[string]string{})
}

// With --socket=fleet it sees the fleet, and everything works there that works elsewhere.
func TestSocketOfTheFleet(t *testing.T) {
	w := fleet(t)
	t.Cleanup(func() { w.removeRelays(t) })
	staticBerth(t)
	s := w.secondServe(t, "--socket=fleet")
	w.sleepers(t)
	out := must(t, s.docker(append(args("run --rm --name looks", on("host2"), withSocket(t), "busybox sh -c"), looking)...))
	for _, want := range []string{"looks", "on1", "on2", "on3"} {
		if !slices.Contains(lines(out), want) {
			t.Errorf("a container of host2 does not see %s:\n%s", want, out)
		}
	}
	if relays := s.relays(t); len(relays) != 1 || relays["host2"] == "" {
		t.Errorf("relays are %v, want one on host2", relays)
	}

	must(t, s.docker(args("run -d --name inside", on("host2"), withSocket(t), "busybox sleep 1000")...))
	inside := func(script string) string { return must(t, s.docker("exec", "inside", "sh", "-c", script)) }
	same(t, "a container made from inside", inside("docker run -d --name made -e constraint:node==host3 busybox sleep 1000 >/dev/null; docker inspect -f {{.Node.Name}} made"), "host3")
	same(t, "an input that ends", inside("echo hello | docker run -i --rm -e constraint:node==host3 busybox wc -c"), "6")
	same(t, "an exec on another node", inside("docker exec on1 hostname"), must(t, w.docker("exec", "on1", "hostname")))
	same(t, "20 MB of output", inside("docker exec on3 head -c 20000000 /dev/zero | wc -c"), "20000000")
	same(t, "20 MB of input", inside("head -c 20000000 /dev/zero | docker exec -i on3 wc -c"), "20000000")
	same(t, "an exit code", inside("docker exec on1 sh -c 'exit 7'; echo $?"), "7")
	same(t, "a copy", inside("echo text >/f && docker cp -q /f on1:/f && docker exec on1 cat /f"), "text")
	w.forget(t, "inside:1")
	inside("printf 'FROM busybox\\nCMD echo built' | DOCKER_BUILDKIT=0 docker build -t inside:1 - && docker run --rm -e constraint:node==host1 inside:1 | grep built")
	same(t, "a mount by --mount", must(t, s.docker(args("run --rm", on("host2"), withSocket(t)[2:],
		"--mount type=bind,source=/run/docker.sock,target=/d.sock,readonly busybox docker -H unix:///d.sock inspect -f {{.Node.Name}} on1")...)), "host1")
	// A client that dies takes its stream, and what ran for it, with it.
	must(t, s.docker("exec", "-d", "inside", "sh", "-c", "sleep 1000 | docker exec -i on1 cat"))
	runsCat := func() bool { return strings.Contains(must(t, w.docker("top", "on1")), "cat") }
	eventually(t, 10*time.Second, "the client's command runs", runsCat)
	inside("killall -9 docker")
	eventually(t, 10*time.Second, "the killed client's command ends", func() bool { return !runsCat() })
	// Relays are no load: they do not count where containers are spread.
	must(t, s.docker("rm", "-f", "made", "inside"))
	for range 3 {
		must(t, s.docker("run", "-d", "--label", "spread", "busybox", "sleep", "1000"))
	}
	same(t, "containers over the nodes", s.nodes(t, "label=spread"), map[string]int{"host1": 1, "host2": 1, "host3": 1})
}

// The socket in a container outlives managers: who connects meanwhile waits for the next one.
func TestSocketOutlivesManagers(t *testing.T) {
	w := fleet(t)
	t.Cleanup(func() { w.removeRelays(t) })
	staticBerth(t)
	s := w.secondServe(t, "--socket=fleet")
	w.sleepers(t)
	must(t, s.docker(args("run -d --name inside", on("host1"), withSocket(t), "busybox sleep 1000")...))
	before := s.relays(t)
	look := args("exec inside docker inspect -f {{.Node.Name}} on3")
	same(t, "what is seen", must(t, s.docker(look...)), "host3")

	// One manager ends, and another begins.
	if err := s.stopServe(); err != nil {
		t.Fatalf("berth serve ended with: %v", err)
	}
	waits := w.docker(look...)
	said := outputTo(t, waits)
	background(t, waits)
	if err := s.startServe("--no-context", "--socket=fleet"); err != nil {
		t.Fatal(err)
	}
	same(t, "exit code of who waited", ends(t, waits), 0)
	same(t, "what it saw", strings.TrimSpace(said.String()), "host3")

	// One is killed, and two begin.
	if err := s.serve.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.stopServeHard(); err == nil {
		t.Fatal("berth serve ended well although it was killed")
	}
	if err := s.startServe("--no-context", "--socket=fleet"); err != nil {
		t.Fatal(err)
	}
	w.secondServe(t, "--socket=fleet")
	for range 5 {
		same(t, "what is seen", must(t, s.docker(look...)), "host3")
	}
	same(t, "relays", s.relays(t), before)

	// The relay is removed: the next container has a new one made.
	must(t, s.docker("rm", "-f", before["host1"]))
	same(t, "what a new container sees", must(t, s.docker(args("run --rm", on("host1"), withSocket(t), "busybox docker inspect -f {{.Node.Name}} on3")...)), "host3")
	// It is killed: its engine starts it again, and it is joined again.
	must(t, s.docker(args("run -d --name later", on("host1"), withSocket(t), "busybox sleep 1000")...))
	must(t, s.docker("exec", s.relays(t)["host1"], "/berth", "version"))
	must(t, s.docker("restart", "-t", "1", s.relays(t)["host1"]))
	must(t, s.docker("restart", "-t", "1", "later")) // what was mounted is gone
	same(t, "what is seen", must(t, s.docker("exec", "later", "docker", "inspect", "-f", "{{.Node.Name}}", "on3")), "host3")
}
