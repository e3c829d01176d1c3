package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func socketPair(t *testing.T, network, addr string) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// The engine takes no input, so the reader is stuck with what it has, and only the watch can see that the client is gone.
func TestClientDiesWhileTheEngineTakesNothing(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
			}
			near, client := socketPair(t, network, addr)
			ours, engine := socketPair(t, "unix", filepath.Join(t.TempDir(), "e"))
			tun := newTunnel(near, ours)
			done := make(chan struct{})
			go func() { defer close(done); tun.run(nil, nil, 10*time.Millisecond) }()

			fill(t, client)
			if tcp, ok := client.(*net.TCPConn); ok {
				if err := tcp.SetLinger(0); err != nil {
					t.Error(err)
				}
			}
			client.Close()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Error("the tunnel of a dead client is still open")
				engine.Close()
				<-done
			}
		})
	}
}

// fill writes until nothing more is taken.
func fill(t *testing.T, c net.Conn) {
	t.Helper()
	block := make([]byte, 64<<10)
	for {
		if err := c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

// A client that hangs up right after its last byte has still said it all, and a slow engine gets all of it.
func TestInputThatStillMovesIsLeftToArrive(t *testing.T) {
	near, client := socketPair(t, "unix", filepath.Join(t.TempDir(), "s"))
	ours, engine := socketPair(t, "unix", filepath.Join(t.TempDir(), "e"))
	tun := newTunnel(near, ours)
	done := make(chan struct{})
	go func() { defer close(done); tun.run(nil, nil, time.Second) }()
	const size = 4 << 20
	got := make(chan int64, 1)
	go func() {
		var n int64
		for {
			m, err := io.CopyN(io.Discard, engine, 100_000)
			if n += m; err != nil {
				got <- n
				return
			}
		}
	}()
	if _, err := client.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if n := <-got; n != size {
		t.Errorf("the engine got %d bytes, want %d", n, size)
	}
	<-done
}

func TestPeerUnreadAndGone(t *testing.T) {
	near, far := socketPair(t, "unix", filepath.Join(t.TempDir(), "s"))
	p := newPeer(near)
	if _, err := far.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if p.unread() != 3 || p.gone() || p.ended() {
		t.Errorf("unread %d, gone %v, ended %v", p.unread(), p.gone(), p.ended())
	}
	if err := far.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if p.gone() || !p.ended() {
		t.Errorf("half-closed: gone %v, ended %v", p.gone(), p.ended())
	}
	far.Close()
	if !p.gone() {
		t.Error("closed, and not gone")
	}
	near.Close()
	if p.gone() || p.ended() || p.unread() != 0 || p.waitGone(false) {
		t.Error("our own end is not the peer's")
	}
	if p := newPeer(struct{ net.Conn }{near}); p.gone() || p.waitGone(false) || p.unread() != 0 {
		t.Error("what has no socket cannot be known")
	}
}

func TestEditHead(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\nB: 2\r\nb: 3\r\nC: 4\r\n\r\n"
	before := http.Header{"A": {"1 folded"}, "B": {"2", "3"}, "C": {"4"}}
	for name, tt := range map[string]struct {
		after http.Header
		want  string
	}{
		"no change":         {before, head},
		"one replaced":      {http.Header{"A": {"1 folded"}, "B": {"9"}, "C": {"4"}}, "HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\nC: 4\r\nB: 9\r\n\r\n"},
		"a folded one gone": {http.Header{"B": {"2", "3"}, "C": {"4"}}, "HTTP/1.1 200 OK\r\nB: 2\r\nb: 3\r\nC: 4\r\n\r\n"},
		"one more":          {http.Header{"A": {"1 folded"}, "B": {"2", "3"}, "C": {"4"}, "D": {"5"}}, "HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\nB: 2\r\nb: 3\r\nC: 4\r\nD: 5\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := editHead([]byte(head), before, tt.after)
			if string(got) != tt.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestLongHeadIsRefused(t *testing.T) {
	near, far := socketPair(t, "tcp", "127.0.0.1:0")
	go func() {
		line := append(bytes.Repeat([]byte("x"), 1000), '\n')
		for {
			if _, err := far.Write(line); err != nil {
				return
			}
		}
	}()
	out, err := http.NewRequest("POST", "http://d/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := startCall(near, out).readHead(); !errors.Is(err, errLongHead) {
		t.Errorf("got %v, want %v", err, errLongHead)
	}
}

// When both ends have said their last word, the socket looks as if the client had died. Cutting it then would throw away
// output that is still under way.
func TestOwnEndIsNotTheClientsDeath(t *testing.T) {
	near, client := socketPair(t, "tcp", "127.0.0.1:0")
	tun := newTunnel(near, nil)
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(near); err != nil {
		t.Fatal(err)
	}
	if tun.clientDied() {
		t.Error("a half-close counts as death")
	}
	tun.outputOver.Store(true)
	if err := closeWrite(near); err != nil {
		t.Fatal(err)
	}
	if !tun.peer.gone() || tun.clientDied() {
		t.Errorf("gone %v, died %v, want true, false", tun.peer.gone(), tun.clientDied())
	}
}

// lost is an engine whose machine has gone from the network.
type lost struct{ net.Conn }

func (lost) Read([]byte) (int, error) { return 0, syscall.ETIMEDOUT }

func TestLostEngineIsNoEnd(t *testing.T) {
	near, client := socketPair(t, "tcp", "127.0.0.1:0")
	ours, _ := socketPair(t, "tcp", "127.0.0.1:0")
	newTunnel(near, lost{ours}).run(nil, []byte("some"), time.Minute)
	got, err := io.ReadAll(client)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v, want a reset: an end would look like the program's", got, err)
	}
}
