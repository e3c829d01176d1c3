//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a command with a terminal of its own, as a person has one.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	pty  *os.File
	done chan struct{} // closed when all output is read

	mu   sync.Mutex
	seen bytes.Buffer
}

func inTerminal(t *testing.T, cmd *exec.Cmd, rows, cols uint16) *terminal {
	t.Helper()
	cmd.Env = append(cmd.Env, "TERM=xterm")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, pty: f, done: make(chan struct{})}
	go term.read()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		_ = f.Close()
		<-term.done
	})
	return term
}

func (term *terminal) read() {
	defer close(term.done)
	b := make([]byte, 4096)
	for {
		n, err := term.pty.Read(b) // EIO when the last process has left the terminal
		term.mu.Lock()
		term.seen.Write(b[:n])
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (term *terminal) typed(text string) {
	term.t.Helper()
	if _, err := term.pty.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.seen.String()
}

// sees waits for a text and forgets what came up to its end.
func (term *terminal) sees(want string) {
	term.t.Helper()
	eventually(term.t, 10*time.Second, fmt.Sprintf("the terminal shows %q (it shows %q)", want, term.text()), func() bool {
		term.mu.Lock()
		defer term.mu.Unlock()
		_, rest, ok := strings.Cut(term.seen.String(), want)
		if ok {
			term.seen.Reset()
			term.seen.WriteString(rest)
		}
		return ok
	})
}

// exits waits for the command and returns its exit code.
func (term *terminal) exits() int {
	term.t.Helper()
	return ends(term.t, term.cmd)
}

// docker exec -it in a real terminal: its size, a resize, Ctrl-C, and the exit code.
func TestExecInTerminal(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "shell", "busybox", "sleep", "1000"))
	term := inTerminal(t, w.docker("exec", "-it", "shell", "sh"), 33, 101)
	term.sees("# ")
	eventually(t, 3*time.Second, "the size arrives", func() bool {
		term.typed("stty size\n")
		return resized(term, "33 101")
	})
	if err := pty.Setsize(term.pty, &pty.Winsize{Rows: 44, Cols: 122}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Second, "the resize arrives", func() bool {
		term.typed("stty size\n")
		return resized(term, "44 122")
	})
	term.typed("sleep 500; echo code=$?\n")
	eventually(t, 3*time.Second, "sleep runs", func() bool { return strings.Contains(must(t, w.docker("top", "shell")), "sleep 500") })
	term.typed("\x03")
	eventually(t, 3*time.Second, "Ctrl-C ends it", func() bool { return !strings.Contains(must(t, w.docker("top", "shell")), "sleep 500") })
	term.typed("exit 9\n")
	same(t, "exit code", term.exits(), 9)
}

// resized tells whether the terminal shows a text within a moment.
func resized(term *terminal, want string) bool {
	for range 10 {
		if strings.Contains(term.text(), want) {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

// docker run -it, detached by the keys, attached again, and ended.
func TestAttachAndDetach(t *testing.T) {
	w := fleet(t)
	term := inTerminal(t, w.docker("run", "-it", "--name", "visit", "--detach-keys", "ctrl-x,q", "busybox", "sh"), 30, 90)
	term.sees("# ")
	term.typed("x=5; echo set\n")
	term.sees("\nset\r\n")
	term.typed("\x18q")
	same(t, "exit code of a detach", term.exits(), 0)
	same(t, "it still runs", must(t, w.docker("inspect", "--format", "{{.State.Running}}", "visit")), "true")
	again := inTerminal(t, w.docker("attach", "--detach-keys", "ctrl-x,q", "visit"), 30, 90)
	again.typed("\n")
	again.sees("# ")
	again.typed("echo x=$x\n")
	again.sees("x=5")
	again.typed("exit 6\n")
	same(t, "exit code", again.exits(), 6)
	// The default keys, and a container that has no terminal.
	must(t, w.docker("run", "-di", "--name", "pipe", "busybox", "cat"))
	cmd := w.docker("attach", "--sig-proxy=false", "pipe")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := outputTo(t, cmd)
	background(t, cmd)
	if _, err := io.WriteString(in, "through\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the echo", func() bool { return out.String() == "through\n" })
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	must(t, w.docker("kill", "pipe")) // cat's input is not closed with ours: others may attach
	same(t, "exit code of docker attach", ends(t, cmd), 137)
	same(t, "attach without standard input", do(t, w.docker("attach", "--no-stdin", "pipe")).code, 1) // it does not run
}

// exec: output, exit code, user, folder, environment, input, in the background.
func TestExec(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "worker", "busybox", "sleep", "1000"))
	r := do(t, w.docker("exec", "-u", "1:1", "-w", "/tmp", "-e", "K=v", "worker", "sh", "-c", "id -u; pwd; echo $K; echo bad >&2; exit 4"))
	same(t, "output", r.out, "1\n/tmp\nv\n")
	same(t, "errors", r.err, "bad\n")
	same(t, "exit code", r.code, 4)
	same(t, "input", must(t, feed(w.docker("exec", "-i", "worker", "sh", "-c", "cat; echo end"), strings.NewReader("a\nb\n"))), "a\nb\nend")
	must(t, w.docker("exec", "-d", "worker", "sh", "-c", "echo done >/flag"))
	eventually(t, 5*time.Second, "exec -d", func() bool { return do(t, w.docker("exec", "worker", "cat", "/flag")).out == "done\n" })
	same(t, "no such command", do(t, w.docker("exec", "worker", "nothing")).code, 126)
	must(t, w.docker("pause", "worker"))
	contains(t, "exec in a paused one", fails(t, w.docker("exec", "worker", "true")), "paused")
	must(t, w.docker("unpause", "worker"))
	must(t, w.docker("stop", "-t", "0", "worker"))
	contains(t, "exec in a stopped one", fails(t, w.docker("exec", "worker", "true")), "is not running")
	contains(t, "exec in none", fails(t, w.docker("exec", "nobody", "true")), "No such container: nobody")
	same(t, "status of an exec that is not", w.api(t, "GET", "/exec/"+strings.Repeat("0", 64)+"/json", "").status, 404)
}

// What goes in comes out, however often, on every node.
func TestInputIsNeverLost(t *testing.T) {
	w := fleet(t)
	for i := range 30 {
		r := do(t, feed(w.docker("run", "-i", "--rm", "busybox", "cat"), strings.NewReader("hi\n")))
		if r.code != 0 || r.out != "hi\n" {
			t.Fatalf("round %d: exit %d, output %q\n%s", i, r.code, r.out, r.err)
		}
	}
	r := do(t, feed(w.old("run", "-i", "--rm", "busybox", "cat"), strings.NewReader("hi\n")))
	same(t, "the old client's output", r.out+r.err, "hi\n")
}

// The exit code is the container's, also of one that is gone when it is asked for.
func TestExitCodeIsNeverLost(t *testing.T) {
	w := fleet(t)
	for i := range 30 {
		if r := do(t, w.docker("run", "--rm", "busybox", "sh", "-c", "exit 3")); r.code != 3 {
			t.Fatalf("round %d: exit %d, want 3\n%s", i, r.code, r.err)
		}
	}
	same(t, "the old client's exit code", do(t, w.old("run", "--rm", "busybox", "sh", "-c", "exit 3")).code, 3)
	same(t, "left of --rm", must(t, w.docker("ps", "-aq")), "")
}

// 64 MiB in one piece, and back.
func TestMuchInput(t *testing.T) {
	w := fleet(t)
	const size = 64 << 20
	got := must(t, feed(w.docker("run", "-i", "--rm", "busybox", "wc", "-c"), io.LimitReader(zeros{}, size)))
	same(t, "bytes that arrived", strings.TrimSpace(got), size)
	r := do(t, w.docker("run", "--rm", "busybox", "sh", "-c", "dd if=/dev/zero bs=1M count=16 2>/dev/null | tr '\\0' x"))
	same(t, "bytes that came back", len(r.out), 16<<20)
}

// zeros is as much of nothing as one wants.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A client reads what it wrote: each step shows in the next command, at once.
func TestReadsYourWrites(t *testing.T) {
	w := fleet(t)
	// One shell for all rounds: what is measured is the endpoint and not the start of shells.
	must(t, w.at(`for i in $(seq 50); do
	id=$(docker create --name loop$i busybox true)
	[ "$(docker inspect --format '{{.Id}}' loop$i)" = "$id" ] || { echo "round $i: inspect"; exit 1; }
	[ "$(docker ps -aq --no-trunc --filter name=loop$i)" = "$id" ] || { echo "round $i: list"; exit 1; }
	docker rm loop$i >/dev/null
	[ -z "$(docker ps -aq)" ] || { echo "round $i: it is still there"; exit 1; }
done`))
	must(t, w.python(`
for i in range(50):
    c = client.containers.create('busybox', 'true', name='loop%d' % i)
    assert client.containers.get('loop%d' % i).id == c.id, i
    assert [x.id for x in client.containers.list(all=True)] == [c.id], i
    if i % 5 == 0:
        c.start()
        assert c.wait()['StatusCode'] == 0
        c.reload()
        assert c.status == 'exited', c.status
    c.remove()
    assert client.containers.list(all=True) == [], i
for i in range(50):
    v = client.volumes.create('v%d' % i)
    assert [x.name for x in client.volumes.list()] == [v.name], i
    v.remove()
    if i % 4: # to make a bridge takes an engine long
        continue
    n = client.networks.create('n%d' % i)
    assert [x.id for x in client.networks.list(names=['n%d' % i])] == [n.id], i
    n.remove()
    assert client.networks.list(names=['n%d' % i]) == [], i
assert client.volumes.list() == []
`))
}
