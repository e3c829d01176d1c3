package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// errHidden is a mistake in the program: uploads would lose bytes, and streams would stand still, without a word.
var errHidden = errors.New("the response writer hides net/http's own (it needs Unwrap)")

var errUploadOver = errors.New("the request is over")

// upload is a client's body on its way to an engine. The goroutine that sends it can outlive the handler, in which the body
// must not be read any more; and a sender that gives up must not close it, since closing reads it to its end.
type upload struct {
	body  io.Reader
	over  atomic.Bool
	fault atomic.Pointer[error] // why reading from the client failed
}

func (u *upload) Read(p []byte) (int, error) {
	if u.over.Load() {
		return 0, errUploadOver
	}
	n, err := u.body.Read(p)
	if err != nil && err != io.EOF {
		u.fault.Store(&err)
	}
	return n, err
}

// Close is the sender's; see upload.
func (u *upload) Close() error { return nil }

// end forbids further reads.
func (u *upload) end() { u.over.Store(true) }

// blame returns the client's own fault when that is what broke the request, or else err.
func (u *upload) blame(err error) error {
	if fault := u.fault.Load(); fault != nil {
		return &requestError{"read the request's body", *fault}
	}
	return err
}

// attachBody gives out the body of r, if it has one, and lets the answer begin before the body has ended: without that,
// net/http takes up to 256 KiB of it for itself as soon as an answer is written.
func attachBody(w http.ResponseWriter, r, out *http.Request) (*upload, error) {
	u := &upload{body: r.Body}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return u, nil
	}
	err := http.NewResponseController(w).EnableFullDuplex()
	if err != nil && r.Context().Value(http.ServerContextKey) != nil { // a recorder in a test has no such trouble
		return nil, errors.Join(errHidden, err)
	}
	out.Body, out.ContentLength, out.GetBody = u, r.ContentLength, r.GetBody
	if len(r.Trailer) > 0 {
		out.Trailer = r.Trailer // filled in by the server at the body's end, just before it is sent on
	}
	return u, nil
}
