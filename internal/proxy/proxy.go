// Package proxy moves one Docker API request to one engine and its answer back: bodies, streams, upgrades, drain.
//
// It decides what HTTP asks of a hop: which headers pass, when to flush, how an upload and an answer run at the same time,
// when a connection stops being HTTP, and how the end of each direction of a stream reaches the other side. It promises
// that an error from Forward means an unwritten answer, and that nothing of a request outlives it.
// It knows no route, no object and no API version: whoever calls it has already put the right path, query and body in place.
package proxy

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"
)

// Target is how one engine is reached.
type Target struct {
	// Name is the node's name, for error texts.
	Name string
	// Transport carries plain requests; NewTransport makes a fitting one.
	Transport http.RoundTripper
	// HTTP2 carries gRPC; NewHTTP2Transport makes a fitting one. Nil if there is none.
	HTTP2 http.RoundTripper
	// Dial opens a fresh connection for a request that may become a stream. The connection must have CloseWrite, or the
	// end of a client's input could not be passed on.
	Dial func(ctx context.Context) (net.Conn, error)
}

// Options are what one request needs beyond the rules of HTTP. The zero value forwards as it is.
type Options struct {
	// Hijack says that the route may answer with a raw stream without being asked by an Upgrade header: attach, exec start.
	Hijack bool
	// HTTP2 says that the engine must get the request by HTTP/2, as gRPC does: with its trailers, and both ways at once.
	HTTP2 bool
	// Modify is called once, when the engine's head is in and before anything is written to the client. It may edit the
	// head, replace the body, wait, or refuse with an error, which Forward returns. One that replaces Body sets
	// ContentLength too (-1 when unknown); the Content-Length header follows. For a stream the body is empty, and only
	// edits of the headers count.
	Modify func(*http.Response) error
	// Header has the last word on the headers that go to the client. In the head of a stream, Upgrade, Connection and
	// Content-Type stay the engine's.
	Header func(http.Header)
	// Tunnels counts the streams, so that they can be drained at shutdown. Nil is allowed.
	Tunnels *Tunnels
	// Detach leaves a stream that has begun to Tunnels, if there are any, and Forward returns: for callers who have nothing
	// to do when it ends. It saves what the server holds for a connection.
	Detach bool
}

// Forward moves r to the engine and the engine's answer to w; it returns when both directions have ended, but for
// o.Detach. An error means that nothing was written to w and the caller answers. Once the answer has begun, a failure breaks
// the client's connection: Forward panics with http.ErrAbortHandler, so that half an answer is never taken for a whole one.
func Forward(w http.ResponseWriter, r *http.Request, t Target, o Options) error {
	switch {
	case o.HTTP2:
		if t.HTTP2 == nil {
			return &NotSentError{t.Name, errNoHTTP2}
		}
		t.Transport = t.HTTP2
		return forwardPlain(w, r, t, o)
	case !o.Hijack && !asksUpgrade(r):
		return forwardPlain(w, r, t, o)
	case r.ProtoMajor < 2:
		return forwardStream(w, r, t, o)
	case asksUpgrade(r) || hasStdin(r):
		return errHTTP2
	default:
		// HTTP/2 has no connection to take over, but output alone is an ordinary body.
		return forwardPlain(w, r, t, o)
	}
}

// hasStdin reads attach's query parameter as engines do.
func hasStdin(r *http.Request) bool {
	switch strings.ToLower(strings.TrimSpace(r.URL.Query().Get("stdin"))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

const (
	// dialLimit bounds a connection's making, TLS included, for a dial function that has no limit of its own.
	dialLimit    = 15 * time.Second
	idlePerNode  = 16               // the default of 2 thrashes under fan-out
	connBuffer   = 2 << 10          // enough for the heads; each node's connections at rest hold two
	idleLifetime = 15 * time.Second // what a burst opened goes again; a node's pings keep one
)

// NewTransport returns a pool of HTTP/1.1 connections to one engine. There is no limit on the wait for a head: stop, wait,
// commit and pull hold it for minutes.
func NewTransport(dial func(ctx context.Context) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialLimit)
			defer cancel()
			return dial(ctx)
		},
		MaxIdleConnsPerHost: idlePerNode,
		ReadBufferSize:      connBuffer, WriteBufferSize: connBuffer,
		IdleConnTimeout:    idleLifetime,
		DisableCompression: true, // archives must arrive as the client asked for them
	}
}
