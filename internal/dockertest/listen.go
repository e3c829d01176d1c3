package dockertest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// wire is the daemon's side of the wire: one address that can listen or refuse, and the connections accepted there.
type wire struct {
	opt   Options
	quit  <-chan struct{}
	conns chan net.Conn // accepted, for the HTTP server

	mu     sync.Mutex
	addr   string       // host:port, path or name
	lis    net.Listener // nil while refusing
	hold   int          // descriptor of the socket that keeps the port while refusing, -1 for none
	open   map[*conn]struct{}
	resume chan struct{} // nil unless hung; closed when it is over
	wg     sync.WaitGroup
}

func newWire(o Options, quit <-chan struct{}) *wire {
	return &wire{opt: o, quit: quit, conns: make(chan net.Conn), open: map[*conn]struct{}{}, hold: -1}
}

// listen starts to accept connections, on the address used before if there was one.
func (n *wire) listen() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lis != nil {
		return nil
	}
	lis, err := n.bind()
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	n.releaseHold()
	n.lis = lis
	n.wg.Go(func() { n.accept(lis) })
	return nil
}

func (n *wire) bind() (net.Listener, error) {
	switch n.opt.Network {
	case "mem":
		n.addr = n.opt.Name
		return newMemListener(), nil
	case "unix":
		n.addr = n.opt.Path
		// A refusing daemon leaves its socket behind, as a killed one does.
		if err := os.Remove(n.addr); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		var cfg net.ListenConfig
		lis, err := cfg.Listen(context.Background(), "unix", n.addr)
		if err != nil {
			return nil, err
		}
		if u, ok := lis.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		return lis, os.Chmod(n.addr, 0o600)
	case "tcp":
		addr := n.addr
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		cfg := net.ListenConfig{Control: reusePort}
		lis, err := cfg.Listen(context.Background(), "tcp", addr)
		if err == nil {
			n.addr = lis.Addr().String()
		}
		return lis, err
	}
	return nil, fmt.Errorf("network %q is none of tcp, unix, mem", n.opt.Network)
}

// reusePort lets the holding socket of refuse share the port.
func reusePort(_, _ string, c syscall.RawConn) error {
	var serr error
	err := c.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, serr)
}

func (n *wire) accept(lis net.Listener) {
	for {
		c, err := lis.Accept()
		if err != nil {
			return // closed by refuse or close
		}
		wrapped := n.track(c, lis)
		if wrapped == nil {
			continue
		}
		var out net.Conn = wrapped
		if n.opt.TLS != nil {
			out = tls.Server(wrapped, n.opt.TLS)
		}
		select {
		case n.conns <- out:
		case <-n.quit:
			_ = c.Close()
			return
		}
	}
}

// track registers an accepted connection, or resets it if the listener was closed meanwhile.
func (n *wire) track(c net.Conn, lis net.Listener) *conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lis != lis {
		reset(c)
		return nil
	}
	half, ok := c.(halfCloser)
	if !ok {
		panic(fmt.Sprintf("dockertest: %T cannot close its sending side", c))
	}
	w := &conn{halfCloser: half, net: n, gone: make(chan struct{})}
	n.open[w] = struct{}{}
	return w
}

// refuse closes the listener but keeps the address, and resets the open connections.
func (n *wire) refuse() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lis == nil {
		return
	}
	if n.opt.Network == "tcp" {
		n.holdPort()
	}
	_ = n.lis.Close()
	n.lis = nil
	for c := range n.open {
		c.drop()
	}
	clear(n.open)
}

// holdPort binds a second socket to the port without listening on it: connects are refused, and nobody else gets it.
func (n *wire) holdPort() {
	port := int(netip.MustParseAddrPort(n.addr).Port())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(fmt.Sprintf("dockertest: hold port %d: %v", port, err))
	}
	n.hold = fd
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		panic(fmt.Sprintf("dockertest: hold port %d: %v", port, err))
	}
}

func (n *wire) releaseHold() {
	if n.hold >= 0 {
		_ = unix.Close(n.hold)
		n.hold = -1
	}
}

// close is refuse for good.
func (n *wire) close() {
	n.refuse()
	n.mu.Lock()
	n.releaseHold()
	n.mu.Unlock()
	n.wg.Wait()
	if n.opt.Network == "unix" {
		_ = os.Remove(n.addr)
	}
}

func (n *wire) hang(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case on && n.resume == nil:
		n.resume = make(chan struct{})
	case !on && n.resume != nil:
		close(n.resume)
		n.resume = nil
	}
}

// gate is the channel to wait for while hung, nil if all is well.
func (n *wire) gate() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.resume
}

// dial connects the way a client of the address would.
func (n *wire) dial(ctx context.Context) (net.Conn, error) {
	n.mu.Lock()
	lis, addr := n.lis, n.addr
	n.mu.Unlock()
	if n.opt.Network != "mem" {
		var dialer net.Dialer
		return dialer.DialContext(ctx, n.opt.Network, addr)
	}
	if m, ok := lis.(*memListener); ok {
		return m.dial(ctx)
	}
	return nil, refused(addr)
}

// listener is what the HTTP server accepts from; it outlives refuse and listen.
func (n *wire) listener() net.Listener { return &serverListener{n: n, done: make(chan struct{})} }

type serverListener struct {
	n    *wire
	once sync.Once
	done chan struct{}
}

func (l *serverListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.n.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *serverListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *serverListener) Addr() net.Addr { return memAddr(l.n.opt.Name) }

// halfCloser is a connection whose sending side can be closed alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// conn stands still while the daemon hangs: what arrived is not read, what should go out is not written.
type conn struct {
	halfCloser
	net  *wire
	once sync.Once
	gone chan struct{} // closed when the connection is
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.halfCloser.Read(b)
	// A deadline is how the server interrupts its own background read; it must get through.
	if interrupted := n == 0 && errors.Is(err, os.ErrDeadlineExceeded); !interrupted && !c.wait() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	if !c.wait() {
		return 0, net.ErrClosed
	}
	return c.halfCloser.Write(b)
}

// wait blocks while the daemon hangs and reports whether the connection is still there afterwards.
func (c *conn) wait() bool {
	for gate := c.net.gate(); gate != nil; gate = c.net.gate() {
		select {
		case <-gate:
		case <-c.gone:
			return false
		case <-c.net.quit:
			return false
		}
	}
	return true
}

func (c *conn) CloseWrite() error {
	if !c.wait() {
		return net.ErrClosed
	}
	return c.halfCloser.CloseWrite()
}

func (c *conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.open, c)
	c.net.mu.Unlock()
	c.once.Do(func() { close(c.gone) })
	return c.halfCloser.Close()
}

// drop resets the connection. Called with net.mu.
func (c *conn) drop() {
	c.once.Do(func() { close(c.gone) })
	reset(c.halfCloser)
}

// reset closes a connection so that the peer sees a reset where the transport knows one.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
