package ingress

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// dialer finds out in a minute or so that a node is gone.
var dialer = net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}

// acceptPause is how long no connection is accepted after the process had no file left for one.
const acceptPause = 50 * time.Millisecond

// serveTCP accepts until the port is closed. With all of the port's places taken it accepts nothing: the kernel keeps a few waiting
// and turns the others away. With all of the ingress's taken, those that were accepted wait.
func (f *forward) serveTCP(ctx context.Context, l net.Listener) {
	places := make(chan struct{}, f.i.o.Limits.PortConn)
	for {
		if !take(ctx, places) {
			return
		}
		c, err := l.Accept()
		if err == nil {
			f.i.wg.Go(func() {
				defer func() { <-places }()
				if !take(ctx, f.i.conns) {
					closeQuietly(c)
					return
				}
				defer func() { <-f.i.conns }()
				f.carry(c)
			})
			continue
		}
		<-places
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		f.i.o.Log.Debug("accept", "port", f.key.String(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(acceptPause):
		}
	}
}

func take(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// carry takes a connection to the container and returns when both sides have ended it.
func (f *forward) carry(client net.Conn) {
	defer closeQuietly(client)
	t := f.to.Load()
	node, err := t.dial(f.i)
	if err != nil {
		f.i.o.Log.Debug("forward", "port", f.key.String(), "container", t.owner.name, "node", t.owner.node, "error", err)
		reset(client) // an orderly end would look like an empty answer
		return
	}
	defer closeQuietly(node)
	cut := func() {
		reset(client)
		closeQuietly(node)
	}
	defer context.AfterFunc(t.ctx, cut)()
	var back sync.WaitGroup
	back.Go(func() { pass(client, node, cut) })
	pass(node, client, cut)
	back.Wait()
}

// pass copies one way and passes the end on. Between two TCP connections the kernel moves the bytes (splice). A connection that
// breaks breaks the other one, too.
func pass(to, from net.Conn, cut func()) {
	_, err := io.Copy(to, from)
	if half, can := to.(interface{ CloseWrite() error }); can && err == nil {
		if half.CloseWrite() == nil {
			return
		}
	}
	cut()
}

// reset ends a connection so that the other side takes it for broken.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // it is about to be closed, and may be closed already
	}
	closeQuietly(c)
}

// closeQuietly closes what may be closed already; nobody could be told.
func closeQuietly(c net.Conn) { _ = c.Close() }
