package rawjson

import (
	"errors"
	"fmt"
	"io"
)

const (
	firstBuffer = 1 << 10
	// keptBuffer is the most that a stream keeps while nothing comes.
	keptBuffer = 16 << 10
)

// Stream reads JSON objects that follow one another, as engines send events. Unlike json.Decoder it looks at each byte once and
// keeps next to no memory while it waits. It trusts its source as ParseTrusted does.
type Stream struct {
	r     io.Reader
	limit int
	buf   []byte // what was read and not returned yet is buf[from:]
	from  int
}

// NewStream reads from r; an object of more than limit bytes is an error.
func NewStream(r io.Reader, limit int) *Stream { return &Stream{r: r, limit: limit} }

// Next returns the next object; the bytes are good until the following call. Between two objects the end is io.EOF, within one
// io.ErrUnexpectedEOF.
func (s *Stream) Next() ([]byte, error) {
	for {
		in := scanner{b: s.buf, i: s.from}
		in.space()
		s.from = in.i
		if s.from < len(s.buf) {
			if s.buf[s.from] != '{' {
				return nil, ErrNotObject
			}
			if value, err := in.value(); err == nil {
				s.from = in.i
				return value, nil
			}
		}
		if err := s.more(); err != nil {
			return nil, err
		}
	}
}

// more reads what there is.
func (s *Stream) more() error {
	s.buf = s.buf[:copy(s.buf, s.buf[s.from:])]
	s.from = 0
	switch left := len(s.buf); {
	case left > s.limit:
		return fmt.Errorf("a JSON object of more than %d bytes", s.limit)
	case left == 0 && cap(s.buf) > keptBuffer, s.buf == nil:
		s.buf = make([]byte, 0, firstBuffer)
	case left == cap(s.buf):
		s.buf = append(make([]byte, 0, 2*left), s.buf...)
	}
	n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	switch {
	case n > 0:
		return nil // an error comes again
	case errors.Is(err, io.EOF) && len(s.buf) > 0:
		return io.ErrUnexpectedEOF
	}
	return err
}
