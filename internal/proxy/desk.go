package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
)

const (
	deskSize   = 1 << 10 // what an answer that takes its time holds, such as a stream of events
	writerSize = 16 << 10
	unlimited  = int(^uint(0) >> 1)
)

// desk is the memory that is lent for the reading of one answer.
type desk struct {
	source source
	in     *bufio.Reader // of source
}

var desks = sync.Pool{New: func() any {
	d := new(desk)
	d.in = bufio.NewReaderSize(&d.source, deskSize)
	return d
}}

func getDesk(c net.Conn) *desk {
	d := desks.Get().(*desk) //nolint:errcheck,forcetypeassert // nothing else is in there
	d.source = source{conn: c, limit: unlimited}
	d.in.Reset(&d.source)
	return d
}

func putDesk(d *desk) {
	d.source.release()
	d.source = source{}
	desks.Put(d)
}

// empty tells whether all that was read of the connection has been asked for.
func (d *desk) empty() bool { return d.in.Buffered() == 0 && d.source.block == nil }

// source reads a connection in the pieces it is asked for, unless those prove too small: then it borrows a large block, for as
// long as something is in it.
type source struct {
	conn        net.Conn
	limit       int  // how much may still be read
	got         bool // something has been
	more        bool // there was more than was asked for
	block       *block
	begin, stop int // what is in block
	err         error
}

func (s *source) Read(p []byte) (int, error) {
	if s.limit <= 0 {
		return 0, errLongHead
	}
	if s.limit < len(p) {
		p = p[:s.limit]
	}
	n, err := s.read(p)
	s.got = s.got || n > 0
	if s.limit != unlimited {
		s.limit -= n
	}
	return n, err
}

func (s *source) read(p []byte) (int, error) {
	if s.block == nil {
		if err := s.err; err != nil {
			s.err = nil
			return 0, err
		}
		if !s.more || len(p) > len(s.block)/2 {
			n, err := s.conn.Read(p)
			s.more = n == len(p)
			return n, err
		}
		b := getBuffer()
		n, err := s.conn.Read(b[:])
		if n == 0 {
			putBuffer(b)
			return 0, err
		}
		s.block, s.begin, s.stop, s.err, s.more = b, 0, n, err, n == len(b)
	}
	n := copy(p, s.block[s.begin:s.stop])
	if s.begin += n; s.begin == s.stop {
		s.release()
	}
	return n, nil
}

func (s *source) release() {
	if s.block != nil {
		putBuffer(s.block)
		s.block = nil
	}
}

// writer notes how much of a request went out.
type writer struct {
	conn net.Conn
	n    int64
	err  error
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.conn.Write(p)
	w.n += int64(n)
	if err != nil {
		w.err = err
	}
	return n, err
}

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writerSize) }}

func getWriter(to io.Writer) *bufio.Writer {
	w := writers.Get().(*bufio.Writer) //nolint:errcheck,forcetypeassert // nothing else is in there
	w.Reset(to)
	return w
}

func putWriter(w *bufio.Writer) {
	w.Reset(nil)
	writers.Put(w)
}

// isShort tells whether a request can be written at once: it has no body, or one that lies in memory.
func isShort(r *http.Request) bool {
	return !hasBody(r) || r.GetBody != nil && r.ContentLength > 0 && r.ContentLength <= inline
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// rewindable tells whether a request can be written again if none of it went out.
func rewindable(r *http.Request) bool { return !hasBody(r) || r.GetBody != nil }

// replayable tells whether an engine may get a request twice, as net/http sees it.
func replayable(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return rewindable(r)
	}
	return false
}

// rewound is the request with its body from the beginning.
func rewound(r *http.Request) (*http.Request, error) {
	if !hasBody(r) {
		return r, nil
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	again := *r
	again.Body = body
	return &again, nil
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // it was not read; there is nothing to be told
	}
}
