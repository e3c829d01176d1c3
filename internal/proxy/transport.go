package proxy

import (
	"context"
	"net"
	"net/http"
	"net/textproto"
	"sync"
	"time"
)

const (
	// dialLimit bounds a connection's making, TLS included, for a dial function that has no limit of its own.
	dialLimit    = 15 * time.Second
	idlePerNode  = 16
	idleLifetime = 15 * time.Second // what a burst opened goes again; a node's pings keep one
)

// Transport is a pool of HTTP/1.1 connections to one engine. A connection at rest is nothing but itself: what net/http keeps
// for one, two goroutines with their buffers, is most of the memory that a node costs a manager of a thousand. So a request is
// written and its answer read by the caller's goroutine, with memory that is borrowed for as long as the answer is read; only
// a body that cannot be had at once is sent by a goroutine of its own, which ends with the connection or the body.
//
// There is no limit on the wait for a head: stop, wait, commit and pull hold it for minutes. Nothing is decompressed, since
// archives must arrive as the client asked for them. All methods may be called from any goroutine.
type Transport struct {
	dial func(ctx context.Context) (net.Conn, error)

	mu    sync.Mutex
	idle  []*wire // in the order in which they came to rest
	sweep *time.Timer
	armed bool // sweep will run
}

// NewTransport prepares a pool; nothing is dialled before the first request.
func NewTransport(dial func(ctx context.Context) (net.Conn, error)) *Transport {
	return &Transport{dial: dial}
}

// RoundTrip is http.RoundTripper's. An answer 101 has a body that is an io.ReadWriteCloser with CloseWrite, the stream itself,
// which the request's context does not end any more.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, _, err := t.do(r, nil)
	return res, err
}

// do is RoundTrip for one who wants to see informational answers, and to know whether there was a connection at all.
func (t *Transport) do(r *http.Request, inform func(code int, h textproto.MIMEHeader)) (res *http.Response, connected bool, err error) {
	if w := t.take(r); w != nil {
		x := newExchange(t, w, r, inform)
		res, err := x.run()
		if err == nil || !x.mayRepeat() {
			return res, true, err
		}
		if r, err = rewound(r); err != nil {
			return nil, true, err
		}
	}
	w, err := t.open(r.Context())
	if err != nil {
		closeBody(r)
		return nil, false, err
	}
	res, err = newExchange(t, w, r, inform).run()
	return res, true, err
}

func (t *Transport) open(ctx context.Context) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	return newWire(conn), nil
}

// take returns the connection that rested least, of those that the engine has not closed meanwhile. Where that cannot be
// known, a request that may be sent only once gets none.
func (t *Transport) take(r *http.Request) *wire {
	for {
		t.mu.Lock()
		last := len(t.idle) - 1
		if last < 0 || t.idle[last].quiet == nil && !replayable(r) {
			t.mu.Unlock()
			return nil
		}
		w := t.idle[last]
		t.idle[last] = nil
		t.idle = t.idle[:last]
		t.mu.Unlock()
		if time.Since(w.since) < idleLifetime && (w.quiet == nil || w.quiet()) {
			return w
		}
		closeRaw(w.Conn)
	}
}

// give takes a connection back.
func (t *Transport) give(w *wire) {
	w.since = time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.idle) >= idlePerNode {
		closeRaw(w.Conn)
		return
	}
	t.idle = append(t.idle, w)
	if !t.armed {
		t.arm(idleLifetime)
	}
}

// arm has the pool swept after d. The caller holds mu.
func (t *Transport) arm(d time.Duration) {
	t.armed = true
	if t.sweep == nil {
		t.sweep = time.AfterFunc(d, t.expire)
		return
	}
	t.sweep.Reset(d)
}

// expire closes what has rested for too long.
func (t *Transport) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := 0
	for old < len(t.idle) && time.Since(t.idle[old].since) >= idleLifetime {
		closeRaw(t.idle[old].Conn)
		old++
	}
	kept := copy(t.idle, t.idle[old:])
	clear(t.idle[kept:])
	t.idle = t.idle[:kept]
	t.armed = false
	if kept > 0 {
		t.arm(idleLifetime - time.Since(t.idle[0].since))
	}
}

// CloseIdleConnections closes the connections at rest. Those in use may come to rest afterwards.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.idle {
		closeRaw(w.Conn)
	}
	t.idle = nil
	if t.sweep != nil && t.sweep.Stop() {
		t.armed = false
	}
}

// wire is a connection that is used again and again.
type wire struct {
	net.Conn
	// quiet tells whether the engine has neither closed the connection nor sent anything that nobody asked for. Nil if that
	// cannot be known.
	quiet func() bool
	since time.Time // it rests
}

// quietConn is a connection that knows by itself whether there is something to read, its end included.
type quietConn interface{ Quiet() bool }

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c}
	if q, ok := c.(quietConn); ok {
		w.quiet = q.Quiet
	} else {
		w.quiet = quietSocket(c)
	}
	return w
}
