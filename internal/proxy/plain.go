package proxy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"strconv"
	"sync"
)

// carry sends a request and returns the head of its answer; inform is given what comes before that, but not after carry has
// returned. It tells whether it got as far as a connection.
type carry func(r *http.Request, inform func(code int, h textproto.MIMEHeader)) (res *http.Response, connected bool, err error)

// forwardPlain is a request and an answer, both of any length, possibly at the same time.
func forwardPlain(w http.ResponseWriter, r *http.Request, t Target, o Options, send carry) error {
	out := outgoing(r)
	up, err := attachBody(w, r, out)
	if err != nil {
		return err
	}
	defer up.end()
	var inform func(int, textproto.MIMEHeader)
	if r.ProtoAtLeast(1, 1) {
		inform = func(code int, h textproto.MIMEHeader) { passOn(w, code, h) }
	}
	//nolint:bodyclose // respond closes it
	res, connected, err := send(out, inform)
	if err != nil {
		if !connected {
			return &NotSentError{t.Name, err}
		}
		return up.blame(&NoAnswerError{t.Name, err})
	}
	return respond(w, r, res, t, o)
}

// passOn writes an informational answer. A 100 is between the engine and us: net/http gives the client its own.
func passOn(w http.ResponseWriter, code int, header textproto.MIMEHeader) {
	if code == http.StatusContinue {
		return
	}
	h := w.Header()
	kept := maps.Clone(h)
	clear(h)
	copyEndToEnd(h, http.Header(header))
	w.WriteHeader(code)
	clear(h)
	maps.Copy(h, kept)
}

// respond writes the engine's answer. What it returns was decided before the first byte; later failures abort the handler.
func respond(w http.ResponseWriter, r *http.Request, res *http.Response, t Target, o Options) error {
	body := res.Body
	defer func() { body.Close(); res.Body.Close() }() // res.Body may be another one by then
	if res.StatusCode < 200 || res.StatusCode > 999 {
		return &NoAnswerError{t.Name, fmt.Errorf("status %q to %s %s", res.Status, r.Method, r.URL.Path)}
	}
	if err := modify(res, o); err != nil {
		return err
	}
	flush := res.ContentLength < 0 && r.Method != http.MethodHead
	if flush && !canFlush(w) {
		return errHidden
	}
	setHead(w.Header(), res, o)
	w.WriteHeader(res.StatusCode)
	if err := copyBody(w, res.Body, flush); err != nil {
		panic(http.ErrAbortHandler)
	}
	setTrailers(w.Header(), res)
	return nil
}

// modify lets the caller edit the answer and brings Content-Length in line when the body has another length than before.
func modify(res *http.Response, o Options) error {
	if o.Modify == nil {
		return nil
	}
	was := res.ContentLength
	if err := o.Modify(res); err != nil {
		return err
	}
	switch {
	case res.ContentLength == was:
	case res.ContentLength < 0:
		res.Header.Del("Content-Length")
	default:
		res.Header.Set("Content-Length", strconv.FormatInt(res.ContentLength, 10))
	}
	return nil
}

func setHead(h http.Header, res *http.Response, o Options) {
	copyEndToEnd(h, res.Header)
	for k := range res.Trailer {
		h.Add("Trailer", k)
	}
	if o.Header != nil {
		o.Header(h)
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http guesses one: old engines send logs without
	}
}

// setTrailers fills in the trailers that were announced, and adds those that were not.
func setTrailers(h http.Header, res *http.Response) {
	for k, vv := range res.Trailer {
		if !hasToken(h["Trailer"], k) {
			k = http.TrailerPrefix + k
		}
		h[k] = vv
	}
}

// copyBody copies without holding anything back: with flush, the head goes out at once and so does each read. A body of
// known length needs none of that; the engine has it all at hand.
func copyBody(w http.ResponseWriter, body io.Reader, flush bool) error {
	control := http.NewResponseController(w)
	if flush {
		if err := control.Flush(); err != nil {
			return err
		}
	}
	if whole, ok := body.(io.WriterTo); ok && !flush { // it is in memory
		_, err := whole.WriteTo(w)
		return err
	}
	buf := getBuffer()
	defer putBuffer(buf)
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if flush {
				if err := control.Flush(); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func canFlush(w http.ResponseWriter) bool {
	for {
		switch v := w.(type) {
		case http.Flusher:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return false
		}
	}
}

type block = [32 << 10]byte

// buffers lends out memory for copies; a stream that rests holds none.
var buffers sync.Pool

func getBuffer() *block {
	if b, ok := buffers.Get().(*block); ok {
		return b
	}
	return new(block)
}

func putBuffer(b *block) { buffers.Put(b) }
