package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kinds are the ways a connection can be made, on either side.
var kinds = []string{"tcp", "unix", "tls"}

// link is a listener and how to reach it.
type link struct {
	net.Listener
	kind string
	cert *tls.Config
}

func listen(t testing.TB, kind string) *link {
	t.Helper()
	l := &link{kind: kind}
	var err error
	if kind == "unix" {
		l.Listener, err = net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	} else {
		l.Listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	if kind == "tls" {
		var server *tls.Config
		server, l.cert = certificate(t)
		l.Listener = tls.NewListener(l.Listener, server)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (l *link) dial(ctx context.Context) (net.Conn, error) {
	if l.kind == "tls" {
		return (&tls.Dialer{Config: l.cert}).DialContext(ctx, "tcp", l.Addr().String())
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, l.Addr().Network(), l.Addr().String())
	if err == nil && l.kind == "channel" {
		return channel{conn.(*net.TCPConn)}, nil
	}
	return conn, err
}

// channel is what an SSH channel is to us: a stream that can be half-closed and has neither deadlines nor a socket.
type channel struct{ tcp *net.TCPConn }

func (c channel) Read(p []byte) (int, error)       { return c.tcp.Read(p) }
func (c channel) Write(p []byte) (int, error)      { return c.tcp.Write(p) }
func (c channel) Close() error                     { return c.tcp.Close() }
func (c channel) CloseWrite() error                { return c.tcp.CloseWrite() }
func (c channel) LocalAddr() net.Addr              { return c.tcp.LocalAddr() }
func (c channel) RemoteAddr() net.Addr             { return c.tcp.RemoteAddr() }
func (c channel) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c channel) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c channel) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

func certificate(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{pair}}, &tls.Config{RootCAs: roots}
}

// rawEngine answers the first request of each connection with fn, which has the connection to itself.
func rawEngine(t testing.TB, kind string, fn func(c *engineConn)) *link {
	t.Helper()
	l := listen(t, kind)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				body, err := io.ReadAll(req.Body)
				if err != nil {
					return
				}
				fn(&engineConn{conn, in, req, string(body)})
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l
}

type engineConn struct {
	net.Conn
	in   *bufio.Reader
	req  *http.Request
	body string
}

func (c *engineConn) say(s string) { io.WriteString(c.Conn, s) }
func (c *engineConn) closeWrite()  { c.Conn.(interface{ CloseWrite() error }).CloseWrite() }
func (c *engineConn) cat()         { io.Copy(c.Conn, c.in); c.closeWrite(); io.Copy(io.Discard, c.in) }
func (c *engineConn) untilClosed() { io.Copy(io.Discard, c.in) }
func (c *engineConn) reset(t *testing.T) {
	t.Helper()
	if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Error(err)
	}
	c.Close()
}

const (
	head101 = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	head200 = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"

	ask101 = "POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
	ask200 = "POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
)

// httpEngine is an engine with a proper server.
func httpEngine(t testing.TB, kind string, h http.HandlerFunc) *link {
	t.Helper()
	l := listen(t, kind)
	serve(t, l, &http.Server{Handler: h})
	return l
}

func serve(t testing.TB, l net.Listener, s *http.Server) {
	t.Helper()
	s.ErrorLog = log.New(io.Discard, "", 0)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
}

// front is the endpoint: a server whose only handler is Forward.
type front struct {
	*link
	tunnels *proxy.Tunnels
	errs    chan error // what Forward returned, for each request that it returned from
	cancel  context.CancelFunc
}

func newFront(t testing.TB, kind string, engine *link, o proxy.Options) *front {
	t.Helper()
	base, cancel := context.WithCancel(context.Background())
	f := &front{link: listen(t, kind), tunnels: &proxy.Tunnels{}, errs: make(chan error, 1000), cancel: cancel}
	o.Tunnels, o.Detach = f.tunnels, o.Hijack
	pool := proxy.NewTransport(engine.dial)
	target := proxy.Target{Name: "n1", Transport: pool, Dial: engine.dial}
	var running sync.WaitGroup
	s := &http.Server{BaseContext: func(net.Listener) context.Context { return base }}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		err := proxy.Forward(w, r, target, o)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		select {
		case f.errs <- err:
		default:
		}
	})
	t.Cleanup(func() { cancel(); s.Close(); running.Wait(); pool.CloseIdleConnections() })
	serve(t, f, s)
	return f
}

func (f *front) client(t testing.TB) *http.Client {
	tr := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return f.dial(ctx) },
		DisableCompression: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (f *front) get(t testing.TB, path string) *http.Response {
	t.Helper()
	res, err := f.client(t).Get("http://d" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// rawClient speaks to the endpoint byte by byte.
type rawClient struct {
	net.Conn
	in *bufio.Reader
}

func (f *front) raw(t testing.TB, send string) *rawClient {
	t.Helper()
	conn, err := f.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil { // no test hangs
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, send); err != nil {
		t.Fatal(err)
	}
	return &rawClient{conn, bufio.NewReader(conn)}
}

// head reads up to the empty line.
func (c *rawClient) head(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	for {
		line, err := c.in.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			t.Fatalf("head: %v after %q", err, b.String())
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

func (c *rawClient) expect(t testing.TB, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c.in, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

func (c *rawClient) expectEnd(t testing.TB) {
	t.Helper()
	if rest, err := io.ReadAll(c.in); err != nil || len(rest) > 0 {
		t.Fatalf("after the end: %q, %v", rest, err)
	}
}

func (c *rawClient) closeWrite(t testing.TB) {
	t.Helper()
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func (c *rawClient) send(t testing.TB, s string) {
	t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		t.Fatal(err)
	}
}

// soon fails the test when what should happen does not.
func soon[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: still not after 20 s", what)
		panic("unreachable")
	}
}

// random returns n bytes that no compression or zeroing can imitate.
func random(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func pair(client, engine string) string { return fmt.Sprintf("%s client, %s engine", client, engine) }
