//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The oldest client that is tested: Debian's.
const oldClient = "/usr/bin/docker"

// old is Debian's docker 20.10 client at the endpoint.
func (w *world) old(args ...string) *exec.Cmd {
	return w.command(oldClient, append([]string{"-H", "unix://" + w.socket}, args...)...)
}

// sh is a script as a user would type it, with berth in the PATH and no endpoint chosen.
func (w *world) sh(script string) *exec.Cmd {
	return w.command("bash", "-e", "-o", "pipefail", "-c", script)
}

// at is a script whose docker and docker-compose talk to the endpoint.
func (w *world) at(script string) *exec.Cmd {
	return with(w.sh(script), "DOCKER_HOST=unix://"+w.socket)
}

// with adds to a command's environment.
func with(cmd *exec.Cmd, env ...string) *exec.Cmd {
	cmd.Env = append(slices.Clone(cmd.Env), env...)
	return cmd
}

// feed gives a command its standard input.
func feed(cmd *exec.Cmd, in io.Reader) *exec.Cmd {
	cmd.Stdin = in
	return cmd
}

// background starts a command that is ended with the test, if it did not end before.
func background(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", shown(cmd), err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd
}

// ends waits for a command that was started and returns its exit code.
func ends(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) {
			t.Fatalf("%s: %v", shown(cmd), err)
		}
		return cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill() // it is told next that it did not end
		<-ended
		t.Fatalf("%s does not end", shown(cmd))
		return -1
	}
}

// output collects what a running command prints.
type output struct{ file string }

// outputTo sends a command's output to a file, where it can be read while the command runs.
func outputTo(t *testing.T, cmd *exec.Cmd) output {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // only read by then
	cmd.Stdout, cmd.Stderr = f, f
	return output{f.Name()}
}

func (o output) String() string {
	b, err := os.ReadFile(o.file)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// http is a client that speaks to the endpoint whatever the URL's host is.
func (w *world) http(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// answer is what the endpoint said to a plain request.
type answer struct {
	status int
	body   string
	header http.Header
}

// api makes a plain request.
func (w *world) api(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://berth"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := w.http(t).Do(req)
	if err != nil {
		t.Fatalf("%s %.100s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %.100s: %v", method, path, err)
	}
	return answer{res.StatusCode, string(b), res.Header}
}

// message is the text of an error answer, which has to be one as Docker clients read it.
func (a answer) message(t *testing.T) string {
	t.Helper()
	var m struct{ Message string }
	if err := json.Unmarshal([]byte(a.body), &m); err != nil || m.Message == "" {
		t.Errorf("status %d with no message: %.300s", a.status, a.body)
	}
	return m.Message
}

// get reads JSON from the endpoint.
func (w *world) get(t *testing.T, path string, into any) {
	t.Helper()
	a := w.api(t, http.MethodGet, path, "")
	if a.status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), into); err != nil {
		t.Fatalf("GET %s: %v\n%s", path, err, a.body)
	}
}

// python runs a script with Debian's docker-py, the one docker-compose 1.29 uses. The variable host is the endpoint.
func (w *world) python(script string) *exec.Cmd {
	head := "import docker, sys, io, time, threading\nhost = 'unix://" + w.socket + "'\nclient = docker.DockerClient(base_url=host, timeout=60)\n"
	return w.command("/usr/bin/python3", "-c", head+script)
}

// on makes a container run on a node.
func on(node string) []string { return []string{"-e", "constraint:node==" + node} }

// args joins words and lists of words.
func args(parts ...any) []string {
	var out []string
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			out = append(out, strings.Fields(p)...)
		case []string:
			out = append(out, p...)
		default:
			panic(fmt.Sprintf("args: %T", p))
		}
	}
	return out
}

// lines are the lines of a text, without empty ones, sorted.
func lines(text string) []string {
	var out []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}

// same compares values by how they print.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s = %s, want %s", what, g, w)
	}
}

// lacks checks that none of the texts is there.
func lacks(t *testing.T, what, text string, unwanted ...string) {
	t.Helper()
	for _, u := range unwanted {
		if strings.Contains(text, u) {
			t.Errorf("%s has %q:\n%s", what, u, text)
		}
	}
}

// ownFleet is a fleet for one test, for what would disturb the others. Each has a range of addresses of its own.
func ownFleet(t *testing.T, name, subnet string, machines []string, create ...string) *world {
	t.Helper()
	w, err := newWorld(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("berth serve said:\n%s", w.logTail())
		}
		if err := w.down(); err != nil {
			t.Error(err)
		}
	})
	if len(machines) == 0 {
		return w
	}
	if err := w.up(machines, append([]string{"--local-subnet", subnet}, create...)...); err != nil {
		t.Fatal(err)
	}
	if err := w.loadImages("busybox:latest"); err != nil {
		t.Fatal(err)
	}
	return w
}

// secondServe starts another endpoint for the same user, with a socket and flags of its own, and ends it with the test.
func (w *world) secondServe(t *testing.T, args ...string) *world {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "second") // not one with the test's name, which may be too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	second := &world{dir: w.dir, env: slices.Clone(w.env), log: filepath.Join(dir, "serve.log"), socket: filepath.Join(dir, "d.sock")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the second berth serve said:\n%s", second.logTail())
		}
		if err := second.stopServe(); err != nil {
			t.Errorf("the second berth serve ended with: %v", err)
		}
	})
	if err := second.startServe(append([]string{"--no-context"}, args...)...); err != nil {
		t.Fatal(err)
	}
	return second
}

// serveHTTP serves on an address of this computer until the test ends.
func serveHTTP(t *testing.T, ip string, handler http.Handler) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// nodeFacts are what GET /info tells programs of a node.
type nodeFacts struct {
	Name, ID, Addr, IP, State, Error, ServerVersion string
	Labels                                          map[string]string
	CPUs                                            int
	Memory, ReservedNanoCPUs, ReservedMemory        int64
	Containers, Running, Paused, Stopped            int
}

// node reads a node's facts from the endpoint.
func (w *world) node(t *testing.T, name string) nodeFacts {
	t.Helper()
	for _, n := range w.nodeList(t) {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no node %s in GET /info", name)
	return nodeFacts{}
}

func (w *world) nodeList(t *testing.T) []nodeFacts {
	t.Helper()
	var info struct{ Nodes []nodeFacts }
	w.get(t, "/info", &info)
	return info.Nodes
}
