package ssh

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// silent accepts connections and never says a word.
func silent(t *testing.T) (addr string, accepted <-chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan struct{}, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			seen <- struct{}{}
			wg.Go(func() {
				defer c.Close()
				io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String(), seen
}

func silentConfig(t *testing.T, addr string) Config {
	s := &server{t: t, addr: addr}
	return s.clientConfig()
}

func TestDialEndsWithItsContext(t *testing.T) {
	addr, accepted := silent(t)
	c := newClient(t, silentConfig(t, addr))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Dial(ctx, "unix", "/x")
		done <- err
	}()
	within(t, "Accept", accepted)
	cancel()
	if err := within(t, "Dial", done); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial: %v, want %v", err, context.Canceled)
	}
}

func TestTimeoutBoundsTheHandshake(t *testing.T) {
	addr, _ := silent(t)
	cfg := silentConfig(t, addr)
	cfg.Timeout = 50 * time.Millisecond
	_, err := newClient(t, cfg).Dial(t.Context(), "unix", "/x")
	wantError(t, err, "no ssh connection within the time given")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is not %v", err, context.DeadlineExceeded)
	}
}

// One attempt serves all who wait, and outlives the one who began it.
func TestSingleFlight(t *testing.T) {
	addr, accepted := silent(t)
	c := newClient(t, silentConfig(t, addr))
	first, leave := context.WithCancel(t.Context())
	firstDone, othersDone := make(chan error, 1), make(chan error, 10)
	go func() {
		_, err := c.connection(first)
		firstDone <- err
	}()
	within(t, "Accept", accepted)
	others, leaveToo := context.WithCancel(t.Context())
	var joined sync.WaitGroup
	for range 10 {
		joined.Add(1)
		go func() {
			joined.Done()
			_, err := c.connection(others)
			othersDone <- err
		}()
	}
	joined.Wait()
	for waiting := 0; waiting < 11; { // until all others wait, too
		c.mu.Lock()
		waiting = c.attempt.waiting
		c.mu.Unlock()
	}
	leave()
	if err := within(t, "the first", firstDone); !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	select {
	case err := <-othersDone:
		t.Fatalf("another one ended with the first: %v", err)
	case <-accepted:
		t.Fatal("a second connection")
	default:
	}
	leaveToo()
	for range 10 {
		if err := within(t, "another", othersDone); !errors.Is(err, context.Canceled) {
			t.Errorf("another: %v", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attempt != nil {
		t.Error("the attempt goes on with nobody waiting")
	}
}

// buffered never blocks a writer, as a socket would not: both sides of ssh begin by writing.
type buffered struct {
	net.Conn
	queue chan []byte
}

func newBuffered(t *testing.T, c net.Conn) *buffered {
	b := &buffered{c, make(chan []byte, 1000)}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case p := <-b.queue:
				if _, err := c.Write(p); err != nil {
					return
				}
			case <-done:
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.queue <- bytes.Clone(p)
	return len(p), nil
}

// unanswering is a transport whose other side takes everything and answers nothing.
func unanswering(t *testing.T) *transport {
	t.Helper()
	near, pipe := net.Pipe()
	far := newBuffered(t, pipe)
	serverKey, _ := newKey(t)
	cfg := &gossh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(serverKey)
	go func() {
		_, chans, reqs, err := gossh.NewServerConn(far, cfg)
		if err != nil {
			return
		}
		go func() {
			for range reqs { // no answer
			}
		}()
		for range chans {
		}
	}()
	w := &wire{Conn: near, lost: make(chan struct{})}
	sc, chans, reqs, err := gossh.NewClientConn(w, "x", &gossh.ClientConfig{HostKeyCallback: gossh.InsecureIgnoreHostKey()})
	if err != nil {
		t.Fatal(err)
	}
	tr := &transport{client: gossh.NewClient(sc, chans, reqs), wire: w, suspect: make(chan struct{}, 1), conns: map[*conn]struct{}{}}
	tr.wg.Go(tr.keepAlive)
	return tr
}

func TestKeepAliveEndsADeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := unanswering(t)
		begin := time.Now()
		<-tr.wire.lost
		if took := time.Since(begin); took != keepAliveEvery+keepAliveFor {
			t.Errorf("dead after %v, want %v", took, keepAliveEvery+keepAliveFor)
		}
		wantError(t, tr.wire.cause(), "no answer to keep-alives")
		tr.wait()
	})
}

// Who waited in vain makes the connection prove itself sooner.
func TestSuspicionShortensTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := unanswering(t)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := tr.open(ctx, "session", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("open: %v, want %v", err, context.DeadlineExceeded)
		}
		<-tr.wire.lost
		if took := time.Since(begin); took != 2*time.Second+suspectFor {
			t.Errorf("dead after %v, want %v", took, 2*time.Second+suspectFor)
		}
		tr.wait()
	})
}

func TestKeepAliveLeavesALivingConnectionAlone(t *testing.T) {
	s, c := start(t)
	tr, err := c.connection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tr.ping(keepAliveFor)
	}
	if !tr.wire.alive() || s.connections() != 1 {
		t.Errorf("alive: %v, connections: %d", tr.wire.alive(), s.connections())
	}
}

func TestRun(t *testing.T) {
	s, c := start(t)
	s.setExec(func(cmd string, ch gossh.Channel) int {
		in, _ := io.ReadAll(ch)
		fmt.Fprintf(ch, "%s <%s>", cmd, in)
		io.WriteString(ch.Stderr(), "warning\n")
		return 0
	})
	var out, errs strings.Builder
	if err := c.Run(t.Context(), "cat", strings.NewReader("input"), &out, &errs); err != nil {
		t.Fatal(err)
	}
	if out.String() != "cat <input>" || errs.String() != "warning\n" {
		t.Errorf("out %q, err %q", out.String(), errs.String())
	}
	if err := c.Run(t.Context(), "true", nil, nil, nil); err != nil {
		t.Errorf("without streams: %v", err)
	}
	// The same writer for both must not be written to by two at once; the race detector looks on.
	var all strings.Builder
	if err := c.Run(t.Context(), "cat", nil, &all, &all); err != nil {
		t.Error(err)
	}
}

func TestRunErrors(t *testing.T) {
	s, c := start(t)
	status, text := 3, "E: no such package\n"
	s.setExec(func(_ string, ch gossh.Channel) int {
		io.WriteString(ch, "Reading lists...\n")
		io.WriteString(ch.Stderr(), text)
		return status
	})
	script := "apt-get install x\nrm -rf secret"
	err := c.Run(t.Context(), script, nil, nil, nil)
	wantError(t, err, "ssh 127.0.0.1: apt-get install x…: exit status 3: E: no such package")
	exit, ok := errors.AsType[*ExitError](err)
	if !ok || exit.Status != 3 || exit.Command != script || exit.Output != "E: no such package" {
		t.Errorf("%+v", exit)
	}
	text = ""
	wantError(t, c.Run(t.Context(), "x", nil, nil, nil), "exit status 3: Reading lists...")
	status = -1
	wantError(t, c.Run(t.Context(), "x", nil, nil, nil), "without an exit status")
	status = 0
	wantError(t, c.Run(t.Context(), "x", nil, failingWriter{}, nil), "write its output: disk full")
	s.setExec(nil)
	wantError(t, c.Run(t.Context(), "x", nil, nil, nil), "refuses to run commands")
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("bad disk") }

func TestRunInput(t *testing.T) {
	s, c := start(t)
	s.setExec(func(_ string, ch gossh.Channel) int {
		io.Copy(io.Discard, ch)
		return 0
	})
	wantError(t, c.Run(t.Context(), "cat", failingReader{}, nil, nil), "read its input: bad disk")
	// A command may end without reading what it is given, even if that never ends.
	s.setExec(func(string, gossh.Channel) int { return 0 })
	r, w := io.Pipe()
	defer w.Close()
	if err := c.Run(t.Context(), "true", r, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	s, c := start(t)
	running := make(chan struct{}, 1)
	s.setExec(func(_ string, ch gossh.Channel) int {
		running <- struct{}{}
		io.WriteString(ch, "begun")
		io.Copy(io.Discard, ch)
		return 0
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, "sleep", r, nil, nil) }()
	within(t, "the command", running)
	cancel()
	if err := within(t, "Run", done); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v, want %v", err, context.Canceled)
	}
	// A lost connection is no exit status.
	go func() { done <- c.Run(t.Context(), "sleep", r, nil, nil) }()
	within(t, "the command", running)
	s.drop()
	wantError(t, within(t, "Run", done), "sleep: ssh connection lost")
}

func TestStdioFallback(t *testing.T) {
	s, c := start(t)
	s.set(func() { s.noUnix = true })
	ran := make(chan string, 10)
	s.setExec(func(cmd string, ch gossh.Channel) int {
		ran <- cmd
		io.Copy(ch, ch)
		return 0
	})
	for path, want := range map[string]string{
		DefaultSocket: "docker system dial-stdio",
		"/run/it's":   `docker --host 'unix:///run/it'\''s' system dial-stdio`,
	} {
		conn, err := c.Dial(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if got := within(t, "the command", ran); got != want {
			t.Errorf("%s: ran %s, want %s", path, got, want)
		}
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Error(err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
		conn.Close()
	}
	// Both ways fail: the error must name both.
	s.setExec(func(_ string, ch gossh.Channel) int {
		io.WriteString(ch.Stderr(), "bash: docker: command not found\n")
		return 127
	})
	conn, err := c.Dial(t.Context(), "unix", DefaultSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	wantError(t, err, "sshd does not forward to /var/run/docker.sock", "docker system dial-stdio: exit status 127: bash: docker: command not found")
	s.setExec(nil)
	_, err = c.Dial(t.Context(), "unix", DefaultSocket)
	wantError(t, err, "sshd does not forward", "refuses to run commands")
}

func TestStdioServesTheSuite(t *testing.T) {
	s, c := start(t)
	s.set(func() { s.noUnix = true })
	path := httpSocket(t)
	s.setExec(func(_ string, ch gossh.Channel) int {
		to, err := net.Dial("unix", path)
		if err != nil {
			return 1
		}
		both(ch, to)
		return 0
	})
	conn, err := c.Dial(t.Context(), "unix", DefaultSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\nHost: engine\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(got), "hello from engine") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWrongKey(t *testing.T) {
	_, right := newKeyFile(t)
	s := startServer(t, right)
	file, public := newKeyFile(t)
	_, err := newClient(t, s.clientConfig(file)).Dial(t.Context(), "unix", "/x")
	wantError(t, err, "ssh 127.0.0.1", s.addr+" does not let tester in with "+file, gossh.FingerprintSHA256(public))
	if _, ok := errors.AsType[*AuthError](err); !ok {
		t.Errorf("%v is no AuthError", err)
	}
	_, err = newClient(t, s.clientConfig()).Dial(t.Context(), "unix", "/x")
	wantError(t, err, "there was no key to offer")
}

func TestKeyFiles(t *testing.T) {
	s, _ := start(t)
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, content := newKey(t)
	for path, want := range map[string]string{
		filepath.Join(dir, "none"):            "no such file",
		write("garbage", "x", 0o600):          "not a private key",
		write("open", string(content), 0o644): "others can read it (mode 0644): chmod 600",
		lockedKey(t, nil):                     "protected by a passphrase and the ssh-agent does not hold it: ssh-add ",
	} {
		_, err := newClient(t, s.clientConfig(path)).Dial(t.Context(), "unix", "/x")
		wantError(t, err, "key "+path, want)
	}
}

// lockedKey makes a key file with a passphrase, and puts the key into the ring if there is one.
func lockedKey(t *testing.T, ring agent.Agent) string {
	t.Helper()
	_, content := newKey(t)
	private, err := gossh.ParseRawPrivateKey(content)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "locked")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if ring != nil {
		if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestAgent(t *testing.T) {
	ring := agent.NewKeyring()
	file := lockedKey(t, ring)
	held, err := ring.Signers()
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, held[0].PublicKey())
	sock := socket(t, func(c net.Conn) { agent.ServeAgent(ring, c) })
	path := socket(t, echo)
	for name, files := range map[string][]string{"a key that only the agent has": nil, "a locked key that the agent has": {file}} {
		t.Run(name, func(t *testing.T) {
			cfg := s.clientConfig(files...)
			cfg.Agent = sock
			conn, err := newClient(t, cfg).Dial(t.Context(), "unix", path)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		})
	}
	cfg := s.clientConfig()
	cfg.Agent, cfg.IdentitiesOnly = sock, true
	_, err = newClient(t, cfg).Dial(t.Context(), "unix", path)
	wantError(t, err, "there was no key to offer")
	cfg.Agent, cfg.IdentitiesOnly = sock+"x", false
	_, err = newClient(t, cfg).Dial(t.Context(), "unix", path)
	wantError(t, err, "not used: the ssh-agent", "no such file")
}

func TestPassword(t *testing.T) {
	s := startServer(t, nil)
	s.set(func() { s.password = "secret" })
	cfg := s.clientConfig()
	var prompts []string
	answer := "secret"
	cfg.Password = func(_ context.Context, prompt string) (string, error) {
		prompts = append(prompts, prompt)
		return answer, nil
	}
	conn, err := newClient(t, cfg).Dial(t.Context(), "unix", socket(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if len(prompts) != 1 || prompts[0] != "tester@127.0.0.1's password: " {
		t.Errorf("prompts %q", prompts)
	}
	answer = "wrong"
	prompts = nil
	_, err = newClient(t, cfg).Dial(t.Context(), "unix", "/x")
	wantError(t, err, "does not let tester in")
	if strings.Contains(err.Error(), "wrong") || len(prompts) != 3 {
		t.Errorf("%v after prompts %q", err, prompts)
	}
	cfg.Password = func(context.Context, string) (string, error) { return "", errors.New("no terminal") }
	_, err = newClient(t, cfg).Dial(t.Context(), "unix", "/x")
	wantError(t, err, "no terminal")
}
