//go:build e2e

package e2e

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// gate is a way to a TCP address that can be cut as a network is: connections stay, but nothing comes through until it is whole again.
type gate struct {
	addr, to string
	ctx      context.Context //nolint:containedctx // of the test
	wg       sync.WaitGroup

	mu   sync.Mutex
	open chan struct{} // closed while it is
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &gate{addr: l.Addr().String(), to: to, ctx: ctx, open: make(chan struct{})}
	close(g.open)
	t.Cleanup(func() { cancel(); l.Close(); g.wg.Wait() })
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.wg.Go(func() { g.carry(c) })
		}
	})
	return g
}

// cut lets nothing through until heal.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) heal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

// pass waits until it is whole; false is the end of the test.
func (g *gate) pass() bool {
	for {
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		select {
		case <-open:
		case <-g.ctx.Done():
			return false
		}
		g.mu.Lock()
		same := open == g.open
		g.mu.Unlock()
		if same {
			return true
		}
	}
}

func (g *gate) carry(c net.Conn) {
	defer c.Close()
	if !g.pass() {
		return
	}
	e, err := net.Dial("tcp", g.to)
	if err != nil {
		return
	}
	defer e.Close()
	defer context.AfterFunc(g.ctx, func() { c.Close(); e.Close() })()
	var both sync.WaitGroup
	both.Go(func() { g.copy(e, c) })
	both.Go(func() { g.copy(c, e) })
	both.Wait()
}

func (g *gate) copy(to, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if !g.pass() {
			return
		}
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				from.Close() // as a reset does
				return
			}
		}
		if err != nil {
			if err == io.EOF { //nolint:errorlint // of a connection
				_ = to.(*net.TCPConn).CloseWrite()
				return
			}
			to.Close()
			return
		}
	}
}
