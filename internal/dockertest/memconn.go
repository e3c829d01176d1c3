package dockertest

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// memListener hands out connections that live in memory.
type memListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newMemListener() *memListener {
	return &memListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *memListener) Addr() net.Addr { return memAddr("") }

func (l *memListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := memPipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, refused("")
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: ctx.Err()}
	}
}

func refused(name string) error {
	return &net.OpError{Op: "dial", Net: "mem", Addr: memAddr(name), Err: syscall.ECONNREFUSED}
}

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

// memConn is two net.Pipes, one for each direction, because a single one cannot be closed half.
type memConn struct {
	in, out net.Conn
}

func memPipe() (client, server *memConn) {
	c2s, s2c := newPipe(), newPipe()
	return &memConn{in: s2c.r, out: c2s.w}, &memConn{in: c2s.r, out: s2c.w}
}

type pipe struct{ r, w net.Conn }

func newPipe() pipe {
	r, w := net.Pipe()
	return pipe{r, w}
}

func (c *memConn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *memConn) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c *memConn) CloseWrite() error           { return c.out.Close() }
func (c *memConn) LocalAddr() net.Addr         { return memAddr("") }
func (c *memConn) RemoteAddr() net.Addr        { return memAddr("") }

func (c *memConn) Close() error {
	// A net.Pipe closes without an error.
	_ = c.in.Close()
	return c.out.Close()
}

func (c *memConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t) // as SetWriteDeadline, it fails only on a closed pipe
	return c.SetWriteDeadline(t)
}

func (c *memConn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *memConn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }
