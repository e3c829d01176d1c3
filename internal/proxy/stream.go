package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// forwardStream handles a request that may turn its connection into a raw stream. It goes over a connection of its own.
//
// The client's connection is taken over only once the engine has agreed. Until then whatever the client already sends stays
// in the server's buffer and the kernel's, and goes out after the head: engines throw away what comes too early.
func forwardStream(w http.ResponseWriter, r *http.Request, t Target, o Options) error {
	if o.Tunnels.closed() {
		return drainError{}
	}
	out := outgoing(r)
	if up := r.Header["Upgrade"]; len(up) > 0 {
		out.Header["Connection"] = []string{"Upgrade"}
		out.Header["Upgrade"] = up
	}
	up, err := attachBody(w, r, out)
	if err != nil {
		return err
	}
	defer up.end()
	engine, err := dial(r.Context(), t)
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			_ = engine.Close() // it was of no use, or its answer has been read
		}
	}()
	cut := context.AfterFunc(r.Context(), func() { closeRaw(engine) })
	defer cut()
	call := startCall(engine, out)
	if err := call.readHead(); err != nil {
		return up.blame(noAnswer(t, r, err))
	}
	if !call.switched(o.Hijack) {
		return respond(w, r, call.res, t, o)
	}
	// Only a request that is out in full can be followed by a stream.
	if err := call.sent(r.Context()); err != nil {
		return up.blame(noAnswer(t, r, err))
	}
	head, err := call.streamHead(o)
	if err != nil {
		return err
	}
	kept = true
	return splice(w, r, engine, head, call.rest(), o)
}

// noAnswer prefers the reason why the connection was cut to what cutting it did.
func noAnswer(t Target, r *http.Request, err error) error {
	if cause := r.Context().Err(); cause != nil {
		err = cause
	}
	return &NoAnswerError{t.Name, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err)}
}

type closeWriter interface{ CloseWrite() error }

func dial(ctx context.Context, t Target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := t.Dial(ctx)
	if err != nil {
		return nil, &NotSentError{t.Name, err}
	}
	if _, ok := conn.(closeWriter); !ok {
		return nil, errors.Join(&NotSentError{t.Name, fmt.Errorf("%T cannot close one direction", conn)}, conn.Close())
	}
	return conn, nil
}

// call is one HTTP exchange on a connection that may stop being HTTP afterwards.
type call struct {
	out  *http.Request
	in   *bufio.Reader
	done chan struct{} // closed when the request is out
	err  error         // why it is not; read after done
	head []byte        // the answer's, as it came
	res  *http.Response
}

// startCall sends the request beside reading, so that an engine that answers early is heard. The sender ends with the
// connection or the client's body.
func startCall(conn net.Conn, out *http.Request) *call {
	c := &call{out: out, in: bufio.NewReader(conn), done: make(chan struct{})}
	send := func() {
		defer close(c.done)
		c.err = out.Write(conn)
	}
	if out.Body == nil {
		send()
	} else {
		go send()
	}
	return c
}

// sent waits until the request is out.
func (c *call) sent(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readHead reads the answer's head, past any informational ones.
func (c *call) readHead() error {
	for {
		head, err := readHead(c.in)
		if err != nil {
			return c.cause(err)
		}
		//nolint:bodyclose // respond closes it; a stream has none
		res, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(head), c.in)), c.out)
		if err != nil {
			return err
		}
		if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			c.head, c.res = head, res
			return nil
		}
	}
}

// cause prefers the reason why the request did not get out to the silence that followed.
func (c *call) cause(err error) error {
	select {
	case <-c.done:
		if c.err != nil {
			return c.err
		}
	default:
	}
	return err
}

// switched tells whether what follows the head is a stream. The old way, on routes known for it, is a 200 whose head gives
// no end to its body.
func (c *call) switched(hijack bool) bool {
	return c.res.StatusCode == http.StatusSwitchingProtocols ||
		hijack && c.res.StatusCode == http.StatusOK && c.res.ContentLength < 0 && len(c.res.TransferEncoding) == 0
}

// streamHead is the head for the client: the engine's, byte for byte, but for the headers the caller edits.
func (c *call) streamHead(o Options) ([]byte, error) {
	before := c.res.Header.Clone()
	c.res.Body = http.NoBody
	if o.Modify != nil {
		if err := o.Modify(c.res); err != nil {
			return nil, err
		}
	}
	if o.Header != nil {
		o.Header(c.res.Header)
	}
	return editHead(c.head, before, c.res.Header)
}

// rest returns what came in together with the head.
func (c *call) rest() []byte { return buffered(c.in) }

// buffered returns a copy of what r holds already, so that a stream at rest does not hold on to r.
func buffered(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered()) // what is buffered can be had without an error
	return append([]byte(nil), b...)
}
