package relay

import (
	"errors"
	"net"

	"github.com/libp2p/go-yamux/v5"
)

// Accept waits for the next connection of a container of any node.
func (r *Relays) Accept() (net.Conn, error) {
	select {
	case <-r.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. Connections go on until Run ends.
func (r *Relays) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// Addr is no address that could be dialled: it says what is listened to.
func (r *Relays) Addr() net.Addr { return addr("/var/run/docker.sock") }

// addr is an end of a connection that came through a relay.
type addr string

func (addr) Network() string  { return "relay" }
func (a addr) String() string { return string(a) }

// conn is one connection of a container. It closes one direction at a time, as attach and exec need it.
type conn struct {
	*yamux.Stream
	node string
}

// RemoteAddr names the node, in the form of host and port, so that clients of different nodes can be told apart.
func (c *conn) RemoteAddr() net.Addr { return addr(c.node + ":relay") }

// Close passes on what was written with its end, and lets the other side know that nothing is read any more: a yamux stream
// that is only closed would leave it writing until its window is full, and then waiting for ever.
func (c *conn) Close() error {
	return errors.Join(c.CloseWrite(), c.Reset())
}
