package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/proxy"
)

// peer is a primary that requests are handed to.
type peer struct {
	proxy.Target
	rpc  *http.Transport
	sign time.Duration // how long it may be silent, and how long a sign of life may take

	asking sync.Mutex // held while it is asked for a sign of life, so that those who wait for it ask once
	mu     sync.Mutex
	heard  time.Time // the latest answer
	silent time.Time // when it last gave none
}

func newPeer(addr string, sign time.Duration, dial func(ctx context.Context, http2 bool) (net.Conn, error)) *peer {
	plain := func(ctx context.Context) (net.Conn, error) { return dial(ctx, false) }
	p := &peer{sign: sign, rpc: proxy.NewHTTP2Transport(func(ctx context.Context) (net.Conn, error) { return dial(ctx, true) })}
	p.Target = proxy.Target{Name: addr, Transport: proxy.NewTransport(plain), HTTP2: p.rpc, Dial: plain}
	return p
}

func (p *peer) close() {
	p.Transport.CloseIdleConnections()
	p.rpc.CloseIdleConnections()
}

func (p *peer) hear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = time.Now()
}

// state says whether it has answered, or was found silent, just now.
func (p *peer) state() (alive, silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.heard) < p.sign, time.Since(p.silent) < p.sign
}

func (p *peer) isSilent() bool {
	_, silent := p.state()
	return silent
}

// alive asks for a sign of life, unless there was one just now or somebody else has waited for one in vain.
func (p *peer) alive(ctx context.Context) bool {
	if alive, _ := p.state(); alive {
		return true
	}
	p.asking.Lock()
	defer p.asking.Unlock()
	if alive, silent := p.state(); alive || silent {
		return alive
	}
	if p.ping(ctx) == nil {
		p.hear()
		return true
	}
	if ctx.Err() != nil {
		return true // who asks wants no answer any more
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = time.Now()
	return false
}

func (p *peer) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.sign)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	res, err := p.Transport.RoundTrip(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 4096))
	return errors.Join(err, res.Body.Close())
}

// errSilent ends a request that a primary has taken and will not answer.
type errSilent struct{ addr string }

func (e *errSilent) Error() string {
	return fmt.Sprintf("the primary cluster manager (%s) does not answer any more; what it was asked for may have been done", e.addr)
}

// whileAlive returns a context that ends if the primary falls silent before answered is called: a request that is not answered may take its
// time, or the primary hangs or is cut off, and then the kernel would have a client wait for a quarter of an hour. What has begun is left alone: streams
// go on once it comes to its senses.
func (p *peer) whileAlive(parent context.Context) (ctx context.Context, answered func(), release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	var begun atomic.Bool
	done := make(chan struct{})
	go func() { // until release, which waits for it
		defer close(done)
		for {
			select {
			case <-time.After(p.sign):
			case <-ctx.Done():
				return
			}
			if begun.Load() {
				return
			}
			if !p.alive(ctx) && begun.CompareAndSwap(false, true) {
				cancel(&errSilent{p.Name})
				return
			}
		}
	}()
	return ctx, func() { begun.Store(true); p.hear() }, func() { cancel(nil); <-done }
}
