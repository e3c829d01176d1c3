//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/net/websocket"
)

func inputOverAll(t *testing.T, w *world) {
	tcp := net.JoinHostPort("127.0.0.1", freePort(t))
	w.secondServe(t, "-H", "tcp://"+tcp)
	secure := net.JoinHostPort("127.0.0.1", freePort(t))
	w.secondServe(t, append(serverTLS(t, w), "-H", "tcp://"+secure, "--engine-plain", "unix://"+w.engineSocket(t, "host1"))...)
	certs := filepath.Join(w.dir, ".docker", "machine", "certs")
	for over, host := range map[string][]string{
		"unix": {"-H", "unix://" + w.socket}, "tcp": {"-H", "tcp://" + tcp},
		"TLS": {"-H", "tcp://" + secure, "--tlsverify", "--tlscacert", certs + "/ca.pem", "--tlscert", certs + "/cert.pem", "--tlskey", certs + "/key.pem"},
	} {
		for range rounds(2, 50) {
			err := all(3, func(i int) error {
				words := args(host, "run -i --rm")
				if over != "TLS" {
					words = append(words, on(fmt.Sprintf("host%d", i+1))...)
				}
				return outcome(feed(w.command("docker", append(words, "busybox", "cat")...), strings.NewReader("hi\n")), "hi\n")
			})
			if err != nil {
				t.Fatalf("over %s: %v", over, err)
			}
		}
	}
}

func execHalfClose(t *testing.T, w *world) {
	must(t, w.docker("run", "-d", "--name", "half", "busybox", "sleep", "1000"))
	same(t, "what comes after the input's end", must(t, w.at(`(echo a; sleep 1; echo b) | docker exec -i half sh -c 'cat; sleep 1; echo end'`)), "a\nb\nend")
}

func muchInput(t *testing.T, w *world) {
	const size = 64 << 20
	same(t, "bytes that arrived", must(t, feed(w.docker("run", "-i", "--rm", "busybox", "wc", "-c"), io.LimitReader(zeros{}, size))), size)
}

func pyExec(t *testing.T, w *world) {
	must(t, w.python(fmt.Sprintf(`
c = client.containers.run('busybox', 'sleep 1000', detach=True)
for i in range(%d):
    code, out = c.exec_run(['echo', str(i)])
    assert (code, out) == (0, b'%%d\n' %% i), (i, code, out)
code, (out, err) = c.exec_run(['sh', '-c', 'echo o; echo e >&2; exit 3'], demux=True)
assert (code, out, err) == (3, b'o\n', b'e\n'), (code, out, err)
`, rounds(50, 200))))
}

// raw is a connection to the endpoint that sends what it is told.
func (w *world) raw(t *testing.T, request string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // some checks close it
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// frame is what an engine puts before output that is not a terminal's.
func frame(stream byte, text string) string {
	n := len(text)
	return string([]byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + text
}

// reads checks that exactly this comes next.
func reads(t *testing.T, what string, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v, want %q", what, got[:n], err, want)
	}
}

const withInput = `{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"StdinOnce":true,"AttachStdin":true,"AttachStdout":true}`

func attachPlain(t *testing.T, w *world) {
	id := w.create(t, "plain", withInput)
	conn, in := w.raw(t, "POST /v1.41/containers/"+id+"/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 200 || len(res.TransferEncoding) > 0 || res.ContentLength > 0 {
		t.Fatalf("attach: %v, %v", res, err)
	}
	must(t, w.docker("start", "plain"))
	for _, line := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(conn, line); err != nil {
			t.Fatal(err)
		}
		reads(t, "the echo", in, frame(1, line))
	}
}

func attachEarlyInput(t *testing.T, w *world) {
	id := w.create(t, "early", withInput)
	conn, in := w.raw(t, "POST /v1.41/containers/"+id+"/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nwith the request\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("attach: %v, %v", res, err)
	}
	must(t, w.docker("start", "early"))
	reads(t, "the echo", in, frame(1, "with the request\n"))
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func runInTerminal(t *testing.T, w *world) {
	term := inTerminal(t, w.docker("run", "-it", "--rm", "busybox", "sh"), 37, 111)
	term.sees("# ")
	began := time.Now()
	eventually(t, 3*time.Second, "the size arrives", func() bool {
		term.typed("stty size\n")
		return resized(term, "37 111")
	})
	if took := time.Since(began); took > time.Second {
		t.Errorf("the size took %s to arrive", took)
	}
	if err := pty.Setsize(term.pty, &pty.Winsize{Rows: 41, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Second, "another size arrives", func() bool {
		term.typed("stty size\n")
		return resized(term, "41 99")
	})
	term.typed("exit 7\n")
	same(t, "exit code", term.exits(), 7)
}

func attachWebsocket(t *testing.T, w *world) {
	id := w.create(t, "ws", `{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"AttachStdin":true,"AttachStdout":true,"Tty":true}`)
	must(t, w.docker("start", "ws"))
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	config, err := websocket.NewConfig("ws://berth/v1.41/containers/"+id+"/attach/ws?stream=1&stdin=1&stdout=1", "http://berth")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(ws, "through\n"); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for !bytes.Contains(got, []byte("through\r\nthrough\r\n")) { // the terminal's echo, and cat's
		reader, err := ws.NewFrameReader()
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		if kind := reader.PayloadType(); kind != websocket.BinaryFrame {
			t.Fatalf("frame of type %d, want binary", kind)
		}
		b, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b...)
	}
}

func detachAndAttach(t *testing.T, w *world) {
	term := inTerminal(t, w.docker("run", "-it", "--name", "again", "busybox", "sh"), 30, 90)
	term.sees("# ")
	term.typed("x=5; echo set\n")
	term.sees("\nset\r\n")
	term.typed("\x10\x11") // the default keys
	same(t, "exit code of a detach", term.exits(), 0)
	back := inTerminal(t, w.docker("attach", "again"), 30, 90)
	back.typed("\n")
	back.sees("# ")
	back.typed("echo x=$x\n")
	back.sees("x=5")
	back.typed("exit 6\n")
	same(t, "exit code", back.exits(), 6)
}

// open counts the manager's open files.
func (w *world) open(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/" + strconv.Itoa(w.serve.Process.Pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func killedClients(t *testing.T, w *world) {
	must(t, w.docker("run", "-di", "--name", "held", "busybox", "cat"))
	must(t, w.docker("ps")) // connections that stay are there
	before := w.open(t)
	var clients []*exec.Cmd
	for _, words := range []string{"attach held", "exec -i held cat", "logs -f held", "events", "wait held"} {
		cmd := w.docker(args(words)...)
		if words == "attach held" || words == "exec -i held cat" {
			if _, err := cmd.StdinPipe(); err != nil {
				t.Fatal(err)
			}
		}
		clients = append(clients, background(t, cmd))
	}
	// Each holds its own connection, and all but events one to the node.
	eventually(t, 10*time.Second, "all five are connected", func() bool { return w.open(t) >= before+9 })
	for _, cmd := range clients {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	// A few idle connections to engines may be kept for the next request.
	eventually(t, 15*time.Second, "what they held is closed", func() bool { return w.open(t) <= before+3 })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	eventually(t, 5*time.Second, "the exec whose client died has ended", func() bool {
		return len(lines(must(t, w.docker("top", "held")))) == 2 // a head and the container's own cat
	})
}

func logsAsWritten(t *testing.T, w *world) {
	must(t, w.docker("run", "-di", "--name", "speaks", "busybox", "sh", "-c", "echo one; echo bad >&2; sleep 1.1; echo two; while read x; do echo $x; done"))
	eventually(t, 5*time.Second, "two lines", func() bool { return strings.Contains(do(t, w.docker("logs", "speaks")).out, "two") })
	res, err := w.http(t).Get("http://berth/v1.41/containers/speaks/logs?follow=1&stdout=1&tail=0")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in, _ := w.raw(t, "POST /v1.41/containers/speaks/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
	fastest := time.Hour
	for i := range 5 {
		line := fmt.Sprintf("line %d\n", i)
		began := time.Now()
		if _, err := io.WriteString(in, line); err != nil {
			t.Fatal(err)
		}
		reads(t, "docker logs -f", res.Body, frame(1, line))
		fastest = min(fastest, time.Since(began))
	}
	if fastest > 200*time.Millisecond {
		t.Errorf("the fastest of five lines took %s", fastest)
	}
	stamp, _, _ := strings.Cut(must(t, w.docker("logs", "-t", "--tail", "6", "speaks")), " ") // that of the line two
	node := w.nodeOf(t, "speaks")
	for _, words := range []string{"logs speaks", "logs --tail 2 speaks", "logs --tail 0 speaks", "logs -t --since " + stamp + " speaks", "logs --until " + stamp + " speaks", "logs --details speaks"} {
		r, d := do(t, w.docker(args(words)...)), do(t, w.direct(t, node, args(words)...))
		same(t, "docker "+words, r.out+"|"+r.err, d.out+"|"+d.err)
	}
}

func archiveGzip(t *testing.T, w *world) {
	must(t, w.docker("create", "--name", "zip", "busybox"))
	get := func(encoding string) ([]byte, string) {
		t.Helper()
		c := w.http(t)
		c.Transport.(*http.Transport).DisableCompression = encoding == ""
		res, err := c.Get("http://berth/v1.41/containers/zip/archive?path=/bin") // net/http decodes what it asked for itself
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("archive: %s, %v", res.Status, err)
		}
		return b, fmt.Sprint(res.Uncompressed)
	}
	plain, wasPlain := get("")
	zipped, wasZipped := get("gzip")
	if !bytes.Equal(plain, zipped) || len(plain) == 0 {
		t.Errorf("%d bytes without gzip and %d with it differ", len(plain), len(zipped))
	}
	same(t, "compressed without and with the header", wasPlain+" "+wasZipped, "false true")
}

func manyStreams(t *testing.T, w *world) {
	for i := range 3 {
		must(t, w.docker(args("run -d --name", fmt.Sprintf("stream%d", i), on(fmt.Sprintf("host%d", i+1)), "busybox sleep 1000")...))
	}
	c := w.http(t)
	c.Transport.(*http.Transport).MaxIdleConnsPerHost = 1
	inspect := func(i int) error {
		res, err := c.Get(fmt.Sprintf("http://berth/containers/stream%d/json", i%3))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		if res.StatusCode != 200 {
			return fmt.Errorf("inspect: %s", res.Status)
		}
		return nil
	}
	if err := all(100, inspect); err != nil { // connections that stay are there
		t.Fatal(err)
	}
	c.CloseIdleConnections()
	before := w.open(t)
	var streams []io.Closer
	for i := range 200 {
		res, err := c.Get(fmt.Sprintf("http://berth/containers/stream%d/logs?follow=1&stdout=1", i%3))
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, res.Body)
	}
	if held := w.open(t); held < 400 {
		t.Errorf("200 streams hold %d connections, want two each", held)
	}
	if err := all(500, inspect); err != nil {
		t.Error(err)
	}
	for _, s := range streams {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	c.CloseIdleConnections()
	eventually(t, 20*time.Second, "all is closed", func() bool { return w.open(t) <= before+40 }) // some are kept for each engine
}

func engineRestarts(t *testing.T, w *world) {
	must(t, w.docker(args("run -d --stop-timeout 1 --name cutoff", on("host2"), "busybox sleep 1000")...))
	follow := background(t, w.docker("logs", "-f", "cutoff"))
	waiting := background(t, w.docker("wait", "cutoff"))
	events := w.docker("events", "--filter", "type=container", "--filter", "label=round", "--format", "{{.Action}} {{.Actor.Attributes.round}}")
	seen := outputTo(t, events)
	background(t, events)
	eventually(t, 10*time.Second, "the events flow", func() bool {
		must(t, w.docker(args("run --rm --label round=0", on("host2"), "busybox true")...))
		return strings.Contains(seen.String(), "destroy 0")
	})
	must(t, w.command("berth", "restart", "host2"))
	ends(t, follow)
	ends(t, waiting) // well or not: the engine may tell the exit before it ends itself
	w.revive(t, "host2")
	for i := range 3 {
		must(t, w.docker(args("run --rm --label", fmt.Sprintf("round=%d", i+1), on("host2"), "busybox true")...))
	}
	eventually(t, 10*time.Second, "the last event", func() bool { return strings.Contains(seen.String(), "destroy 3") })
	for i := range 3 {
		for _, action := range []string{"create", "start", "die", "destroy"} {
			same(t, fmt.Sprintf("%s of round %d", action, i+1), strings.Count(seen.String(), fmt.Sprintf("%s %d\n", action, i+1)), 1)
		}
	}
}
