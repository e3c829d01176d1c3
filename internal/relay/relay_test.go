//go:build linux

package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is for what must not hang.
const patience = 10 * time.Second

// socket is the path of the fleet's socket on the site.
func (m *manager) socket(t *testing.T, s *site) string {
	t.Helper()
	path, err := m.Socket(t.Context(), s.node())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func connect(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be closed already
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *manager) accept(t *testing.T) net.Conn {
	t.Helper()
	c, err := m.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be closed already
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func say(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		t.Fatalf("%T cannot close one direction", c)
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %q and %v, want %q", b, err, want)
	}
}

func hearEnd(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil || string(b) != want {
		t.Fatalf("read %q until %v, want %q and the end", b, err, want)
	}
}

// writeFails writes until that fails, as it must.
func writeFails(t *testing.T, w io.Writer) {
	t.Helper()
	piece := make([]byte, 64<<10)
	for {
		_, err := w.Write(piece)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) || isTimeout(err):
			t.Fatal("writing to who has gone does not end")
		default:
			return
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestContainersReachTheManager(t *testing.T) {
	s := newSite(t)
	m := newManager(t, s)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if path, err := m.Socket(t.Context(), s.node()); err != nil || path != filepath.Join(s.dir, socketFile) {
				t.Errorf("Socket = %s, %v", path, err)
			}
		})
	}
	all.Wait()
	if s.made != 1 || s.images.Load() != 1 {
		t.Errorf("%d relays of %d images were made, want one", s.made, s.images.Load())
	}
	path := m.socket(t, s)
	c := connect(t, path)
	say(t, c, "ping")
	at := m.accept(t)
	if got := at.RemoteAddr().String(); got != "host1:relay" {
		t.Errorf("the connection is from %s, want host1:relay", got)
	}
	hear(t, at, "ping")
	say(t, at, "pong")
	hear(t, c, "pong")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v, want mode 0600", info, err)
	}
}

func TestEachDirectionEndsByItself(t *testing.T) {
	s := newSite(t)
	m := newManager(t, s)
	path := m.socket(t, s)

	c := connect(t, path)
	say(t, c, "input")
	closeWrite(t, c)
	at := m.accept(t)
	hearEnd(t, at, "input")
	say(t, at, "output")
	hear(t, c, "output")
	closeWrite(t, at)
	hearEnd(t, c, "")

	c = connect(t, path)
	at = m.accept(t)
	say(t, at, "output")
	closeWrite(t, at)
	hearEnd(t, c, "output")
	say(t, c, "late input")
	closeWrite(t, c)
	hearEnd(t, at, "late input")
}

func TestWhoGoesIsNotWaitedFor(t *testing.T) {
	s := newSite(t)
	m := newManager(t, s)
	path := m.socket(t, s)

	c := connect(t, path)
	say(t, c, "x")
	at := m.accept(t)
	hear(t, at, "x")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	writeFails(t, at) // although its end looked like that of the input alone

	c = connect(t, path)
	at = m.accept(t)
	say(t, at, "answer")
	if err := at.Close(); err != nil {
		t.Fatal(err)
	}
	hearEnd(t, c, "answer")
	writeFails(t, c)
}

func TestMuchGoesThrough(t *testing.T) {
	s := newSite(t)
	m := newManager(t, s)
	path := m.socket(t, s)
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB, beyond every window
	var all sync.WaitGroup
	for range 4 {
		c, at := connect(t, path), m.accept(t)
		all.Go(func() { // an echo
			if _, err := io.Copy(at, at); err != nil {
				t.Error(err)
			}
			if err := at.Close(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := c.Write(text); err != nil {
				t.Error(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, text) {
				t.Errorf("%d bytes came back, %v; want the %d that went in", len(b), err, len(text))
			}
		})
	}
	all.Wait()
}

func TestServesHTTP(t *testing.T) {
	s := newSite(t)
	m := newManager(t, s)
	path := m.socket(t, s)
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		say(t, w, "served "+r.URL.Path)
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(m) }()
	c := connect(t, path)
	for range 2 { // one connection for both
		say(t, c, "GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil || !strings.HasSuffix(string(b[:n]), "served /x") {
			t.Errorf("the answer is %q, %v", b[:n], err)
		}
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	hearEnd(t, c, "")
}

func TestTheSocketOutlivesManagers(t *testing.T) {
	s := newSite(t)
	first := newManager(t, s)
	path := first.socket(t, s)
	s.show()
	open := connect(t, path)
	first.accept(t)
	first.stop()
	hearEnd(t, open, "")
	if _, err := first.Socket(t.Context(), s.node()); !errors.Is(err, errNotRunning) {
		t.Errorf("a socket of a manager that has stopped: %v", err)
	}
	s.cut()
	waiting := connect(t, path)
	say(t, waiting, "hello")

	second := newManager(t, s) // finds the relay by itself
	hear(t, second.accept(t), "hello")
	if second.socket(t, s) != path || s.made != 1 {
		t.Errorf("%d relays were made, want one", s.made)
	}
	// Its stream breaks, and it comes back by itself.
	s.cut()
	again := connect(t, path)
	say(t, again, "again")
	hear(t, second.accept(t), "again")
}

func TestARelayThatEndedIsMadeAnew(t *testing.T) {
	s := newSite(t)
	m := newManager(t, s)
	path := m.socket(t, s)
	s.stop()
	s.cut()
	s.mu.Lock()
	s.relay = nil
	s.mu.Unlock()
	s.show()
	// That the old one has gone is known once its stream has ended.
	for deadline := time.Now().Add(patience); s.made != 2 && time.Now().Before(deadline); {
		m.socket(t, s)
	}
	c := connect(t, path)
	say(t, c, "anew")
	hear(t, m.accept(t), "anew")
}

func TestTroubleIsTold(t *testing.T) {
	for name, tt := range map[string]struct{ method, path, want string }{
		"volume":    {"POST", "/volumes/create", "node host1: relay: make its volume: disk full"},
		"image":     {"POST", "/images/create", "node host1: relay: bring its image: disk full"},
		"container": {"POST", "/containers/create", "node host1: relay: create it: disk full"},
		"start":     {"POST", "/containers/c1/start", "node host1: relay: start it: disk full"},
		"exec":      {"POST", "/exec/x1/start", "node host1: relay: join it: disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			m := newManager(t, s)
			s.mu.Lock()
			s.fault = func(method, path string) (int, string) {
				if method == tt.method && path == tt.path {
					return http.StatusInternalServerError, "disk full"
				}
				return 0, ""
			}
			s.mu.Unlock()
			if _, err := m.Socket(t.Context(), s.node()); err == nil || err.Error() != tt.want {
				t.Errorf("Socket: %v, want %s", err, tt.want)
			}
			s.mu.Lock()
			s.fault = nil
			s.mu.Unlock()
			m.socket(t, s) // what was begun is completed
			if s.made != 1 {
				t.Errorf("%d relays were made, want one", s.made)
			}
		})
	}
}

func TestImportsThatFailInTheirMidst(t *testing.T) {
	for text, want := range map[string]string{
		`{"status":"sha256:1"}`:                         "",
		"{\"status\":\"a\"}\n{\"error\":\"disk full\"}": "disk full",
		`{"status":`: "unexpected EOF",
		"":           "",
	} {
		got := ""
		if err := imported(strings.NewReader(text)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("imported(%s) = %q, want %q", text, got, want)
		}
	}
}
