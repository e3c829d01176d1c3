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
)

// Target is how one engine is reached.
type Target struct {
	// Name is the node's name, for error texts.
	Name string
	// Transport carries plain requests.
	Transport *Transport
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
		return forwardPlain(w, r, t, o, traced(t.HTTP2))
	case !o.Hijack && !asksUpgrade(r):
		return forwardPlain(w, r, t, o, t.Transport.do)
	case r.ProtoMajor < 2:
		return forwardStream(w, r, t, o)
	case asksUpgrade(r) || hasStdin(r):
		return errHTTP2
	default:
		// HTTP/2 has no connection to take over, but output alone is an ordinary body.
		return forwardPlain(w, r, t, o, t.Transport.do)
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
