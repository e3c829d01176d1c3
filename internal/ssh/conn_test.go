package ssh

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// The suite of the net package's own kind of connection.
func TestConnIsANetConn(t *testing.T) {
	_, c := start(t)
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				return dialPair(t, c, network)
			})
		})
	}
}

func dialPair(t *testing.T, c *Client, network string) (c1, c2 net.Conn, stop func(), err error) {
	dir, err := os.MkdirTemp("", "ssh")
	if err != nil {
		return nil, nil, nil, err
	}
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = dir + "/s"
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, nil, nil, err
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- conn
	}()
	c1, err = c.Dial(t.Context(), network, ln.Addr().String())
	if err != nil {
		ln.Close()
		return nil, nil, nil, err
	}
	c2 = <-accepted
	return c1, c2, func() {
		c1.Close()
		c2.Close()
		ln.Close()
		os.RemoveAll(dir)
	}, nil
}

func TestHalfClose(t *testing.T) {
	_, c := start(t)
	path := socket(t, func(conn net.Conn) {
		all, err := io.ReadAll(conn) // answers only after the end
		if err == nil {
			conn.Write(bytes.ToUpper(all))
		}
	})
	conn, err := c.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write after CloseWrite: %v, want EPIPE", err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "HELLO" {
		t.Errorf("read %q, %v, want HELLO", got, err)
	}
}

func TestMegabytesBothWays(t *testing.T) {
	_, c := start(t)
	conn, err := c.Dial(t.Context(), "unix", socket(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	done := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		done <- errors.Join(err, conn.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, %v, want the %d that were sent", len(got), err, len(sent))
	}
	if err := within(t, "Write", done); err != nil {
		t.Errorf("Write: %v", err)
	}
}

// A peer that does not read fills the window; Close must free the writer and reach the peer all the same.
func TestCloseWhileWriting(t *testing.T) {
	_, c := start(t)
	gone := make(chan error, 1)
	release := make(chan struct{})
	path := socket(t, func(conn net.Conn) {
		<-release
		_, err := io.Copy(io.Discard, conn)
		gone <- err
	})
	conn, err := c.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		for {
			if _, err := conn.Write(make([]byte, 1<<20)); err != nil {
				wrote <- err
				return
			}
		}
	}()
	if err := conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "Write", wrote); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write to one who does not read: %v, want %v", err, os.ErrDeadlineExceeded)
	}
	if err := conn.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := conn.Write([]byte("more"))
		wrote <- err
	}()
	conn.Close()
	if err := within(t, "Write after Close", wrote); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v, want %v", err, net.ErrClosed)
	}
	close(release)
	within(t, "the peer's end", gone)
}

// What ends because the connection broke must not look as if the peer had ended it.
func TestLostIsNotEOF(t *testing.T) {
	s, c := start(t)
	path := socket(t, echo)
	conn, err := c.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.drop()
	_, err = conn.Read(make([]byte, 1))
	wantError(t, err, "ssh connection lost")
	if errors.Is(err, io.EOF) {
		t.Errorf("%v is EOF", err)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		// The library may have taken it before it noticed; the next one must fail.
		if _, err = conn.Write([]byte("x")); err == nil {
			t.Error("Write on a lost connection: no error")
		}
	}
}

// A pool must not send a request where it would never be answered.
func TestQuietUntilThereIsSomethingToRead(t *testing.T) {
	for name, end := range map[string]func(s *server, conn net.Conn){
		"bytes":               func(_ *server, conn net.Conn) { io.WriteString(conn, "x") },
		"the peer's end":      func(_ *server, conn net.Conn) { conn.(interface{ CloseWrite() error }).CloseWrite() },
		"the connection lost": func(s *server, _ net.Conn) { s.drop() },
		"our own close":       func(_ *server, conn net.Conn) { conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := start(t)
			conn, err := c.Dial(t.Context(), "unix", socket(t, echo))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			quiet := conn.(interface{ Quiet() bool }).Quiet
			if !quiet() {
				t.Error("not quiet at first")
			}
			end(s, conn)
			for began := time.Now(); quiet(); time.Sleep(time.Millisecond) {
				if time.Since(began) > 10*time.Second {
					t.Fatal("still quiet")
				}
			}
		})
	}
}

func TestHTTPOverDial(t *testing.T) {
	_, c := start(t)
	path := httpSocket(t)
	tr := &http.Transport{DialContext: dialer(c, path)}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	for range 3 {
		getHello(t, client)
	}
}

// 100 requests at once, each on a stream of its own, make one connection.
func TestManyDialsShareOneConnection(t *testing.T) {
	s, c := start(t)
	path := httpSocket(t)
	tr := &http.Transport{DialContext: dialer(c, path), DisableKeepAlives: true}
	client := &http.Client{Transport: tr}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { getHello(t, client) })
	}
	wg.Wait()
	if n := s.connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestReconnects(t *testing.T) {
	s, c := start(t)
	path := httpSocket(t)
	tr := &http.Transport{DialContext: dialer(c, path), DisableKeepAlives: true}
	client := &http.Client{Transport: tr}
	getHello(t, client)
	s.drop()
	getHello(t, client)

	addr := s.addr
	s.stop()
	_, err := c.Dial(t.Context(), "unix", path)
	wantError(t, err, "ssh 127.0.0.1: dial unix "+path, "connection refused")
	s.listen(addr)
	getHello(t, client)
	if n := s.connections(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

// Connections break again and again under many users: each sees its own bytes or an error, and nothing hangs.
func TestStorm(t *testing.T) {
	s, c := start(t)
	path := socket(t, echo)
	stop := make(chan struct{})
	var users sync.WaitGroup
	var succeeded atomic.Int64
	for i := range 16 {
		users.Go(func() {
			sent := bytes.Repeat([]byte{byte(i)}, 100_000)
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := exchange(t, c, path, sent)
				switch {
				case err == nil && !bytes.Equal(got, sent):
					t.Errorf("%d bytes came back, want the %d that were sent", len(got), len(sent))
				case err == nil:
					succeeded.Add(1)
				case errors.Is(err, net.ErrClosed):
					t.Errorf("nobody closed it: %v", err)
				}
			}
		})
	}
	for drops := range int64(20) {
		for before := succeeded.Load(); succeeded.Load() < before+5; { // it works again after each drop
			if _, err := exchange(t, c, path, []byte("x")); err == nil && drops == 0 {
				break
			}
		}
		s.drop()
	}
	close(stop)
	users.Wait()
}

func exchange(t *testing.T, c *Client, path string, sent []byte) ([]byte, error) {
	conn, err := c.Dial(t.Context(), "unix", path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		wrote <- errors.Join(err, conn.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err != nil {
		conn.Close() // frees the writer
		<-wrote
		return nil, err
	}
	return got, <-wrote
}

func TestClose(t *testing.T) {
	_, c := start(t)
	conn, err := c.Dial(t.Context(), "unix", socket(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := within(t, "Read", read); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read on a closed client: %v, want %v", err, net.ErrClosed)
	}
	if _, err := c.Dial(t.Context(), "unix", "/x"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial on a closed client: %v, want %v", err, net.ErrClosed)
	}
}

func TestDialUnknownNetwork(t *testing.T) {
	_, c := start(t)
	_, err := c.Dial(t.Context(), "udp", "127.0.0.1:53")
	wantError(t, err, "unknown network udp")
	_, err = c.Dial(t.Context(), "tcp", "127.0.0.1")
	wantError(t, err, "missing port")
	_, err = c.Dial(t.Context(), "tcp", "127.0.0.1:1")
	wantError(t, err, "dial tcp 127.0.0.1:1", "refused")
}

func httpSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ssh")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello from "+r.Host)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
		os.RemoveAll(dir)
	})
	return dir + "/s"
}

func getHello(t *testing.T, client *http.Client) {
	t.Helper()
	resp, err := client.Get("http://engine/")
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), "hello from engine") {
		t.Errorf("got %q, %v", body, err)
	}
}
