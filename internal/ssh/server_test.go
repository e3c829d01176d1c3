package ssh

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	gossh "golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is an ssh server in this process, as kind or as nasty as a test wants it.
type server struct {
	t        *testing.T
	addr     string
	key      gossh.Signer
	allowed  gossh.PublicKey
	password string
	noUnix   bool
	// exec answers a command; it returns the exit status, or -1 to say nothing.
	exec func(cmd string, ch gossh.Channel) int

	mu      sync.Mutex
	conns   map[net.Conn]bool
	total   int // connections ever made
	stopped bool
	ln      net.Listener
	wg      sync.WaitGroup
}

func newKey(t *testing.T) (gossh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// newKeyFile writes a key and returns its path and public half.
func newKeyFile(t *testing.T) (string, gossh.PublicKey) {
	t.Helper()
	signer, content := newKey(t)
	path := filepath.Join(t.TempDir(), "id_ed25519")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, signer.PublicKey()
}

func startServer(t *testing.T, allowed gossh.PublicKey) *server {
	t.Helper()
	key, _ := newKey(t)
	s := &server{t: t, key: key, allowed: allowed, conns: map[net.Conn]bool{}}
	s.listen("127.0.0.1:0")
	t.Cleanup(s.stop)
	return s
}

func (s *server) listen(addr string) {
	s.t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.ln, s.addr, s.stopped = ln, ln.Addr().String(), false
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.total++
			if s.stopped {
				c.Close()
			}
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c) })
		}
	})
}

func (s *server) stop() {
	s.mu.Lock()
	s.stopped = true
	s.ln.Close()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// drop breaks all connections but stays up.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// set changes what the server does from the next connection or channel on.
func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) setExec(exec func(cmd string, ch gossh.Channel) int) {
	s.set(func() { s.exec = exec })
}

func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

func (s *server) config() *gossh.ServerConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	password := s.password
	cfg := &gossh.ServerConfig{
		PublicKeyCallback: func(_ gossh.ConnMetadata, key gossh.PublicKey) (*gossh.Permissions, error) {
			if s.allowed != nil && bytes.Equal(key.Marshal(), s.allowed.Marshal()) {
				return nil, nil
			}
			return nil, errors.New("no")
		},
	}
	if password != "" {
		cfg.PasswordCallback = func(_ gossh.ConnMetadata, given []byte) (*gossh.Permissions, error) {
			if string(given) == password {
				return nil, nil
			}
			return nil, errors.New("no")
		}
	}
	cfg.AddHostKey(s.key)
	return cfg
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	_, chans, reqs, err := gossh.NewServerConn(c, s.config())
	if err != nil {
		return
	}
	s.wg.Go(func() { gossh.DiscardRequests(reqs) })
	for n := range chans {
		s.wg.Go(func() { s.channel(n) })
	}
}

func (s *server) channel(n gossh.NewChannel) {
	s.mu.Lock()
	noUnix, exec := s.noUnix, s.exec
	s.mu.Unlock()
	switch n.ChannelType() {
	case "direct-streamlocal@openssh.com":
		var m struct {
			Path, Reserved0 string
			Reserved1       uint32
		}
		if err := gossh.Unmarshal(n.ExtraData(), &m); err != nil || noUnix {
			n.Reject(gossh.ConnectionFailed, "open failed")
			return
		}
		s.forward(n, "unix", m.Path)
	case "direct-tcpip":
		var m struct {
			Host       string
			Port       uint32
			OriginHost string
			OriginPort uint32
		}
		if err := gossh.Unmarshal(n.ExtraData(), &m); err != nil {
			n.Reject(gossh.ConnectionFailed, err.Error())
			return
		}
		s.forward(n, "tcp", hostPort(m.Host, int(m.Port)))
	case "session":
		s.session(n, exec)
	default:
		n.Reject(gossh.UnknownChannelType, n.ChannelType())
	}
}

func (s *server) forward(n gossh.NewChannel, network, addr string) {
	to, err := net.Dial(network, addr)
	if err != nil {
		n.Reject(gossh.ConnectionFailed, err.Error())
		return
	}
	ch, reqs, err := n.Accept()
	if err != nil {
		to.Close()
		return
	}
	s.wg.Go(func() { gossh.DiscardRequests(reqs) })
	both(ch, to)
}

// both passes bytes and ends each way, and closes when both ways ended, or when writing is no use any more.
func both(ch gossh.Channel, to net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.Copy(to, ch); err != nil {
			ch.Close()
		}
		to.(interface{ CloseWrite() error }).CloseWrite()
	})
	wg.Go(func() {
		if _, err := io.Copy(ch, to); err != nil {
			to.Close()
		}
		ch.CloseWrite()
	})
	wg.Wait()
	ch.Close()
	to.Close()
}

func (s *server) session(n gossh.NewChannel, exec func(string, gossh.Channel) int) {
	ch, reqs, err := n.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for req := range reqs {
		if req.Type != "exec" || exec == nil {
			if req.WantReply {
				req.Reply(false, nil)
			}
			continue
		}
		req.Reply(true, nil)
		s.wg.Go(func() { gossh.DiscardRequests(reqs) })
		var m struct{ Command string }
		if err := gossh.Unmarshal(req.Payload, &m); err != nil {
			return
		}
		status := exec(m.Command, ch)
		ch.CloseWrite()
		if status >= 0 {
			ch.SendRequest("exit-status", false, gossh.Marshal(struct{ N uint32 }{uint32(status)}))
		}
		return
	}
}

// config reaches the server with nothing of the user's in the way.
func (s *server) clientConfig(keyFiles ...string) Config {
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	n, err := parsePort(port)
	if err != nil {
		s.t.Fatal(err)
	}
	return Config{
		Host: host, Port: n, User: "tester", KeyFiles: keyFiles, Agent: "none", SSHConfigFile: "none",
		KnownHostsFile: filepath.Join(s.t.TempDir(), "own", "known_hosts"),
		Log:            func(line string) { s.t.Log(line) },
	}
}

// start makes a server and a client that it lets in.
func start(t *testing.T) (*server, *Client) {
	t.Helper()
	file, public := newKeyFile(t)
	s := startServer(t, public)
	return s, newClient(t, s.clientConfig(file))
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c := New(cfg)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

// socket listens on a unix socket with a short path and gives each connection to serve.
func socket(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ssh")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
		os.RemoveAll(dir)
	})
	return path
}

// echo sends everything back, and the end after the end.
func echo(c net.Conn) {
	io.Copy(c, c)
}

// within fails a test that waits for what does not come.
func within[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: nothing within 30 s", what)
		panic("unreachable")
	}
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q, want %q in it", err, w)
		}
	}
}
