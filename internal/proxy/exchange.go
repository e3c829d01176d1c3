package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"sync"
	"time"
)

const (
	// inline is up to how much of a body that lies in memory is sent before the answer is read. A socket takes so much even if
	// the engine takes nothing.
	inline = 64 << 10
	// lateAnswer is how long an engine that takes no more of a request may take to say why.
	lateAnswer = time.Second
	// lateUpload is how long the end of a request may come after the end of its answer for the connection to be used again.
	lateUpload = 10 * time.Millisecond
)

var errBodyClosed = errors.New("read on a closed answer")

// exchange is one request and its answer on a connection.
type exchange struct {
	pool   *Transport
	wire   *wire
	r      *http.Request
	inform func(code int, h textproto.MIMEHeader)
	desk   *desk
	uncut  func() bool
	wrote  writer

	sent     chan struct{} // closed when the request's body is out or has failed; nil if it needed no goroutine
	sendErr  error         // why it has failed; read after sent
	answered chan struct{} // closed when the answer's head is in; nil if sent is

	over bool
	last bool // one of the two sides wants no other request on this connection
	got  bool // some of an answer came; set at the end
}

func newExchange(t *Transport, w *wire, r *http.Request, inform func(int, textproto.MIMEHeader)) *exchange {
	x := &exchange{pool: t, wire: w, r: r, inform: inform}
	x.wrote.conn = w.Conn
	return x
}

// run sends the request and reads the head of its answer. After an error the connection is closed.
func (x *exchange) run() (*http.Response, error) {
	ctx := x.r.Context()
	x.uncut = func() bool { return true }
	if ctx.Done() != nil {
		x.uncut = context.AfterFunc(ctx, x.cut)
	}
	x.desk = getDesk(x.wire.Conn)
	err := x.send()
	if err != nil {
		return nil, x.fail(err)
	}
	res, err := x.readHead()
	if x.answered != nil {
		close(x.answered)
	}
	if err != nil {
		return nil, x.fail(err)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.switched(res)
	}
	x.last = res.Close || x.r.Close
	if res.Body == http.NoBody {
		x.finish(true)
	} else {
		res.Body = &answer{x: x, body: res.Body}
	}
	return res, nil
}

// cut ends whatever reads or writes.
func (x *exchange) cut() { closeRaw(x.wire.Conn) }

// send writes the request, or leaves that to a goroutine if it may take time.
func (x *exchange) send() error {
	if isShort(x.r) {
		return x.write()
	}
	x.sent, x.answered = make(chan struct{}), make(chan struct{})
	go func() {
		x.sendErr = x.write()
		close(x.sent) // before the connection is cut: cause asks why
		if x.sendErr == nil {
			return
		}
		if x.wrote.err != nil { // the engine takes no more, but may say why
			select {
			case <-x.answered:
				return
			case <-time.After(lateAnswer):
			}
		}
		x.cut()
	}()
	return nil
}

func (x *exchange) write() error {
	w := getWriter(&x.wrote)
	defer putWriter(w)
	if err := x.r.Write(w); err != nil {
		return err
	}
	return w.Flush()
}

// readHead reads the answer's head, past the informational ones. Those that nobody wants to see count towards its length.
func (x *exchange) readHead() (*http.Response, error) {
	in := &x.desk.source
	in.limit = maxHead
	for {
		res, err := http.ReadResponse(x.desk.in, x.r)
		if err != nil {
			switch {
			case in.limit <= 0:
				err = errLongHead
			case !in.got && errors.Is(err, io.ErrUnexpectedEOF):
				err = io.EOF
			}
			return nil, err
		}
		if res.StatusCode < 100 || res.StatusCode > 199 || res.StatusCode == http.StatusSwitchingProtocols {
			in.limit = unlimited
			return res, nil
		}
		if x.inform != nil {
			x.inform(res.StatusCode, textproto.MIMEHeader(res.Header))
			in.limit = maxHead
		}
	}
}

// fail ends an exchange that has no answer and tells why.
func (x *exchange) fail(err error) error {
	err = x.cause(err)
	x.finish(false)
	return err
}

// cause prefers what made the connection fail to how that looked.
func (x *exchange) cause(err error) error {
	if ctx := x.r.Context(); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if x.sent != nil {
		select {
		case <-x.sent:
			if x.sendErr != nil {
				return x.sendErr
			}
		default:
		}
	}
	return err
}

// mayRepeat tells, after a failure on a connection that had rested, whether the request may be sent once more: the engine has
// answered nothing, and either got nothing or may get it twice.
func (x *exchange) mayRepeat() bool {
	if x.got || x.sent != nil || x.r.Context().Err() != nil {
		return false
	}
	return x.wrote.n == 0 && rewindable(x.r) || replayable(x.r)
}

// finish gives back what was borrowed, once. The connection is used again if the answer was read to its end and nothing speaks
// against it.
func (x *exchange) finish(whole bool) {
	if x.over {
		return
	}
	x.over = true
	again := x.uncut() && whole && !x.last && x.uploaded() && x.desk.empty()
	x.got = x.desk.source.got
	putDesk(x.desk)
	x.desk = nil
	if again {
		x.pool.give(x.wire)
		return
	}
	x.cut()
}

// uploaded tells whether the request went out whole.
func (x *exchange) uploaded() bool {
	if x.sent == nil {
		return true
	}
	select {
	case <-x.sent:
		return x.sendErr == nil
	default:
	}
	select {
	case <-x.sent:
		return x.sendErr == nil
	case <-time.After(lateUpload):
		return false
	}
}

// switched hands the connection out as the answer's body.
func (x *exchange) switched(res *http.Response) (*http.Response, error) {
	if !x.uncut() {
		return nil, x.fail(context.Cause(x.r.Context()))
	}
	x.over = true
	first := buffered(x.desk.in)
	putDesk(x.desk)
	x.desk = nil
	res.Body = &switched{resumed{x.wire.Conn, first}}
	return res, nil
}

// switched is a connection after 101.
type switched struct{ resumed }

// CloseWrite ends the direction to the engine.
func (s *switched) CloseWrite() error { return closeWrite(s.Conn) }

// answer is the body of an answer. Close may be called while Read waits, and ends it.
type answer struct {
	x    *exchange
	mu   sync.Mutex
	body io.Reader
	err  error // what Read says from now on
}

func (a *answer) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.body.Read(p)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			err = a.x.cause(err)
		}
		a.end(err)
	}
	return n, err
}

func (a *answer) end(err error) {
	a.err = err
	a.x.finish(err == io.EOF) //nolint:errorlint // Read made it so
	a.body = nil
}

// Close gives the answer up. What is left of it is not worth a wait: the connection goes with it.
func (a *answer) Close() error {
	if !a.mu.TryLock() {
		a.x.cut()
		a.mu.Lock()
	}
	defer a.mu.Unlock()
	if a.err == nil {
		a.end(errBodyClosed)
	}
	return nil
}
