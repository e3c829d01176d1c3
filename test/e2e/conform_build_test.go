//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildDir is a folder to build from, with something in it that no build had before.
func buildDir(t *testing.T, dockerfile string) string {
	t.Helper()
	dir := write(t, "Dockerfile", dockerfile)
	if err := os.WriteFile(filepath.Join(dir, "stamp"), []byte(t.Name()), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func buildKit(t *testing.T, w *world) {
	fleets := map[*world][]string{w: {"host1", "host2", "host3"}}
	if program("BERTH_ENGINE29") != "" {
		fleets[mixed(t)] = []string{"new", "old"}
	}
	for f, nodes := range fleets {
		f.plugins(t)
		f.forget(t, "kit:1")
		must(t, f.docker("build", "-q", "-t", "kit:1", buildDir(t, "FROM busybox\nCOPY stamp /stamp\nRUN cat /stamp >/built\n")))
		for _, node := range nodes {
			same(t, "what was built, on "+node, must(t, f.docker(args("run --rm", on(node), "kit:1 cat /built")...)), t.Name())
		}
	}
}

func manyBuilds(t *testing.T, w *world) {
	w.plugins(t)
	tcp := net.JoinHostPort("127.0.0.1", freePort(t))
	second := w.secondServe(t, "-H", "tcp://"+tcp) // its unix socket and its TCP port have clients of two identities
	dir := buildDir(t, "FROM busybox\nARG N\nRUN sleep 1; echo $N >/n\n")
	clients := []func(words ...string) *exec.Cmd{
		second.docker,
		func(words ...string) *exec.Cmd {
			return w.command("docker", append([]string{"-H", "tcp://" + tcp}, words...)...)
		},
	}
	const each = 5
	var refs []string
	for i := range each * len(clients) {
		refs = append(refs, fmt.Sprintf("many:%d", i))
	}
	w.forget(t, refs...)
	err := all(len(refs), func(i int) error {
		out, err := clients[i%len(clients)]("build", "-q", "--build-arg", fmt.Sprintf("N=%d", i), "-t", refs[i], dir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("build %d: %w\n%s", i, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	builders := map[int]map[string]bool{0: {}, 1: {}}
	for i, ref := range refs {
		builders[i%2][w.holders(t, ref)] = true
	}
	if len(builders[0]) != 1 || len(builders[1]) != 1 || fmt.Sprint(builders[0]) == fmt.Sprint(builders[1]) {
		t.Errorf("one client's builds were on %v, the other's on %v; want one node for each", builders[0], builders[1])
	}
	for i, ref := range refs {
		same(t, ref, must(t, w.docker("run", "--rm", ref, "cat", "/n")), i)
	}
}

func buildxDrivers(t *testing.T, w *world) {
	w.plugins(t)
	out := filepath.Join(t.TempDir(), "out")
	remote := func(f *world, dockerfile string, to ...string) {
		t.Helper()
		must(t, f.docker("buildx", "create", "--name", "far", "--driver", "remote", "unix://"+f.socket))
		defer must(t, f.docker("buildx", "rm", "far"))
		must(t, f.docker(append(append([]string{"buildx", "build", "--builder", "far"}, to...), buildDir(t, dockerfile))...))
	}
	remote(w, "FROM busybox AS made\nCOPY stamp /stamp\nRUN cat /stamp >/built\nFROM scratch\nCOPY --from=made /built /\n", "-o", "type=local,dest="+out) // BuildKit of these engines cannot make an archive of an image
	built, err := os.ReadFile(filepath.Join(out, "built"))
	if err != nil || string(built) != t.Name() {
		t.Errorf("built over the driver remote: %q, %v", built, err)
	}
	if program("BERTH_ENGINE29") == "" {
		return
	}
	m := mixed(t)
	m.plugins(t)
	m.forget(t, "far:1", "boxed:1", "moby/buildkit:buildx-stable-1")
	const onlyStamp = "FROM scratch\nCOPY stamp /\n" // BuildKit would ask a registry for busybox, as on one engine
	remote(m, onlyStamp, "--load", "-t", "far:1")
	same(t, "files in what was built", strings.Contains(must(t, m.sh("docker -H unix://"+m.socket+" save far:1 | tar t")), "manifest.json"), true)
	image := program("BERTH_BUILDKIT") // an archive of a file system with buildkitd
	if image == "" {
		return
	}
	must(t, m.at("docker import -c 'ENTRYPOINT [\"buildkitd\"]' - moby/buildkit:buildx-stable-1 <"+image))
	must(t, m.docker("buildx", "create", "--name", "boxed", "--driver", "docker-container", "--driver-opt", "env.constraint:node==new", "unix://"+m.socket))
	defer must(t, m.docker("buildx", "rm", "boxed"))
	must(t, m.docker("buildx", "build", "--builder", "boxed", "--load", "-t", "boxed:1", buildDir(t, onlyStamp)))
	must(t, m.docker("image", "inspect", "boxed:1"))
}
