//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	binary  string // berth
	scratch string
	shared  *world
)

// world is a computer with a user on it: a home with a machine store, a docker configuration, and an endpoint.
type world struct {
	dir     string
	env     []string
	serve   *exec.Cmd
	log     string
	socket  string
	machine []string
}

// newWorld is a world without machines.
func newWorld(name string) (*world, error) {
	dir := filepath.Join(scratch, name)
	w := &world{dir: dir, log: filepath.Join(dir, "serve.log"), socket: filepath.Join(dir, "docker.sock")}
	for _, kv := range os.Environ() {
		if k, _, _ := strings.Cut(kv, "="); !foreign(k) {
			w.env = append(w.env, kv)
		}
	}
	w.env = append(w.env, "HOME="+dir, "SHELL=/bin/bash", "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	return w, os.MkdirAll(dir, 0o700)
}

// foreign tells whether a variable is of the computer that the suite runs on and not of its users. With a CA bundle in the
// environment Python's requests, so docker-py too, forgets the authority it was told to trust.
func foreign(name string) bool {
	for _, prefix := range []string{"DOCKER_", "MACHINE_", "SWARM_", "COMPOSE_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"HOME", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "XDG_RUNTIME_DIR", "NO_PROXY", "no_proxy"}, name) ||
		strings.HasSuffix(strings.ToLower(name), "_proxy")
}

// fleet returns the fleet of three that most tests share, with the images they use.
func fleet(t *testing.T) *world {
	t.Helper()
	if shared == nil {
		w, err := newWorld("shared")
		if err == nil {
			shared = w
			err = w.upShared()
		}
		if err == nil {
			err = w.loadImages(sharedImages...)
		}
		if err != nil {
			t.Fatalf("the shared fleet: %v", err)
		}
	}
	t.Cleanup(func() { shared.sweep(t); shared.sweepImages(t) })
	if t.Failed() {
		t.FailNow()
	}
	return shared
}

// sharedImages are what the shared machines have.
var sharedImages = []string{"busybox:latest", "web:1"}

// sharedLabels are what the shared machines' engines say of themselves.
var sharedLabels = map[string][]string{
	"host1": {"size=small", "zone=a"},
	"host2": {"size=small", "zone=b", "disk=ssd"},
	"host3": {"size=xxl", "zone=b"},
}

// upShared creates the shared machines at once, by a command for each since each has labels of its own.
func (w *world) upShared() error {
	var g errgroup.Group
	for name, labels := range sharedLabels {
		w.machine = append(w.machine, name)
		g.Go(func() error {
			create := []string{"create", "-d", "local", "--engine-insecure-registry", "10.0.0.0/8"}
			for _, l := range labels {
				create = append(create, "--engine-label", l)
			}
			if out, err := w.command("berth", append(create, name)...).CombinedOutput(); err != nil {
				return fmt.Errorf("berth create %s: %w\n%s", name, err, out)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return w.startServe()
}

// up creates machines and serves them.
func (w *world) up(names []string, create ...string) error {
	if out, err := w.command("berth", append(append([]string{"create", "-d", "local"}, create...), names...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("berth create: %w\n%s", err, out)
	}
	w.machine = append(w.machine, names...)
	return w.startServe()
}

// startServe starts the endpoint and waits until it answers.
func (w *world) startServe(args ...string) error {
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := w.command("berth", append([]string{"serve", "-H", "unix://" + w.socket}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	w.serve = cmd
	for range 200 {
		if out, err := w.docker("version", "--format", "{{.Server.Version}}").CombinedOutput(); err == nil && len(out) > 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("berth serve does not answer:\n%s", w.logTail())
}

// stopServe ends the endpoint and returns an error if it does not end well.
func (w *world) stopServe() error {
	if w.serve == nil {
		return nil
	}
	cmd := w.serve
	w.serve = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return cmd.Wait()
}

// stopServeHard waits for an endpoint that was killed.
func (w *world) stopServeHard() error {
	cmd := w.serve
	w.serve = nil
	return cmd.Wait()
}

// down takes everything away.
func (w *world) down() error {
	err := w.stopServe()
	if len(w.machine) > 0 {
		if out, e := w.command("berth", append([]string{"rm", "-y"}, w.machine...)...).CombinedOutput(); e != nil {
			err = errors.Join(err, fmt.Errorf("berth rm: %w\n%s", e, out))
		}
	}
	return err
}

func (w *world) logTail() string {
	b, err := os.ReadFile(w.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > 6000 {
		b = b[len(b)-6000:]
	}
	return string(b)
}

func (w *world) command(name string, args ...string) *exec.Cmd {
	if name == "berth" {
		name = binary
	}
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Env, cmd.Dir = w.env, w.dir
	return cmd
}

// docker is the stock client at the endpoint.
func (w *world) docker(args ...string) *exec.Cmd {
	return w.command("docker", append([]string{"-H", "unix://" + w.socket}, args...)...)
}

// compose is Debian's docker-compose at the endpoint.
func (w *world) compose(dir string, args ...string) *exec.Cmd {
	cmd := w.command("docker-compose", args...)
	cmd.Env = append(cmd.Env, "DOCKER_HOST=unix://"+w.socket)
	cmd.Dir = dir
	return cmd
}

// loadImages makes images of the static busybox and loads them through the endpoint.
func (w *world) loadImages(refs ...string) error {
	tree, err := busyboxTree()
	if err != nil {
		return err
	}
	for _, ref := range refs {
		cmd := w.docker("import", "-c", `CMD ["sh"]`, "-", ref)
		cmd.Stdin = bytes.NewReader(tree)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("docker import %s: %w\n%s\n%s", ref, err, out, w.logTail())
		}
	}
	return nil
}

// busyboxTree is a file system with busybox and links for its commands.
func busyboxTree() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(context.Background(), path, "--list").Output()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	add := func(h *tar.Header, body []byte) {
		h.Size = int64(len(body))
		err = errors.Join(err, t.WriteHeader(h))
		_, e := t.Write(body)
		err = errors.Join(err, e)
	}
	for _, d := range []string{"bin/", "etc/", "tmp/", "var/"} {
		add(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(&tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	add(&tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/:/bin/sh\n"))
	add(&tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\n"))
	for _, name := range strings.Fields(string(list)) {
		if name != "busybox" {
			add(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
		}
	}
	return b.Bytes(), errors.Join(err, t.Close())
}

// sweep removes what a test left at the endpoint, so that the next one finds an empty fleet.
func (w *world) sweep(t *testing.T) {
	t.Helper()
	if t.Failed() {
		t.Logf("berth serve said:\n%s", w.logTail())
	}
	for _, what := range [][2]string{{"ps -aq", "rm -fv"}, {"volume ls -q", "volume rm -f"}, {"network ls -q --filter type=custom", "network rm"}} {
		out, err := w.docker(strings.Fields(what[0])...).Output()
		if err != nil {
			t.Errorf("sweep: docker %s: %v", what[0], err)
			continue
		}
		if ids := strings.Fields(string(out)); len(ids) > 0 {
			if out, err := w.docker(append(strings.Fields(what[1]), ids...)...).CombinedOutput(); err != nil {
				t.Errorf("sweep: docker %s: %v\n%s", what[1], err, out)
			}
		}
	}
}

// sweepImages removes all images but the shared ones. It asks without a client, since it does so after every test.
func (w *world) sweepImages(t *testing.T) {
	t.Helper()
	res, err := w.http(t).Get("http://berth/images/json")
	if err != nil {
		t.Errorf("sweep: list images: %v", err)
		return
	}
	defer res.Body.Close()
	var images []struct {
		ID       string `json:"Id"`
		RepoTags []string
	}
	if err := json.NewDecoder(res.Body).Decode(&images); err != nil {
		t.Errorf("sweep: list images: %v", err)
		return
	}
	for _, image := range images {
		tagged := len(image.RepoTags) > 0 && image.RepoTags[0] != "<none>:<none>"
		left := slices.DeleteFunc(image.RepoTags, func(tag string) bool { return slices.Contains(sharedImages, tag) })
		if !tagged {
			left = []string{image.ID}
		}
		if len(left) == 0 {
			continue
		}
		if out, err := w.docker(append([]string{"rmi", "-f"}, left...)...).CombinedOutput(); err != nil {
			t.Errorf("sweep: docker rmi %v: %v\n%s", left, err, out)
		}
	}
}

// result is what a command did.
type result struct {
	out, err string
	code     int
	took     time.Duration
}

// do runs a command to its end, for at most a minute.
func do(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() }) // the failure shows in the code
	err := cmd.Wait()
	timer.Stop()
	r := result{out.String(), errs.String(), 0, time.Since(began)}
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		r.code = failed.ExitCode()
	case err != nil:
		t.Fatalf("%s: %v", cmd, err)
	}
	return r
}

// must runs a command that has to succeed and returns its output without the last newline.
func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	r := do(t, cmd)
	if r.code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", shown(cmd), r.code, r.out, r.err)
	}
	return strings.TrimSuffix(r.out, "\n")
}

// fails runs a command that has to fail and returns all it printed.
func fails(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	r := do(t, cmd)
	if r.code == 0 {
		t.Fatalf("%s: succeeded\n%s%s", shown(cmd), r.out, r.err)
	}
	return r.out + r.err
}

func shown(cmd *exec.Cmd) string {
	return filepath.Base(cmd.Path) + " " + strings.Join(cmd.Args[1:], " ")
}

// contains checks for each of the wanted texts.
func contains(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, text)
		}
	}
}

// nodeOf tells which node a container is on.
func (w *world) nodeOf(t *testing.T, container string) string {
	t.Helper()
	return must(t, w.docker("inspect", "--format", "{{.Node.Name}}", container))
}

// nodes counts the containers that match a filter by node.
func (w *world) nodes(t *testing.T, filter string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, n := range strings.Fields(must(t, w.docker("ps", "-a", "--filter", filter, "--format", `{{.Label "berth.node"}}`))) {
		count[n]++
	}
	return count
}

// eventually waits for a condition. To ask takes a program, and others are at work: the longer it takes the more rarely it asks.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	began := time.Now()
	for !ok() {
		waited := time.Since(began)
		if waited > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(min(max(waited/10, 50*time.Millisecond), 500*time.Millisecond))
	}
}

// write puts a file into a new folder and returns the folder.
func write(t *testing.T, name, body string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
