package dockertest

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"time"
)

// Streams, as the frames of attach and logs number them.
const (
	stdout = 1
	stderr = 2
)

const (
	logLimit = 1 << 20 // what a log keeps beyond what its readers have still to read
	lagLimit = 1 << 20 // how far a reader may fall behind before the writer has to wait
)

// chunk is what a process wrote at once.
type chunk struct {
	at     time.Time
	stream byte
	data   []byte
}

// output is what a process wrote: a log with any number of readers. Guarded by Daemon.mu.
type output struct {
	chunks  []chunk
	first   int // how many chunks were dropped from the front
	size    int
	readers map[*reader]struct{}
	changed chan struct{} // closed and replaced when something was written; nil if nobody waits
	drained chan struct{} // closed and replaced when a reader caught up; nil if nobody waits
}

// reader follows an output from where it was opened.
type reader struct {
	out    *output
	pos    int // number of the next chunk to read
	behind int // bytes not read yet
}

func (o *output) write(at time.Time, stream byte, data []byte) {
	if len(data) == 0 {
		return
	}
	o.chunks = append(o.chunks, chunk{at, stream, data})
	o.size += len(data)
	for r := range o.readers {
		r.behind += len(data)
	}
	wake(&o.changed)
	o.trim()
}

// trim forgets old chunks that no reader needs once the log is full.
func (o *output) trim() {
	keep := o.first + len(o.chunks)
	for r := range o.readers {
		keep = min(keep, r.pos)
	}
	for o.size > logLimit && o.first < keep {
		o.size -= len(o.chunks[0].data)
		o.chunks = o.chunks[1:]
		o.first++
	}
}

// open adds a reader, from the first chunk still there or from now on.
func (o *output) open(fromStart bool) *reader {
	r := &reader{out: o, pos: o.first + len(o.chunks)}
	if fromStart {
		r.pos, r.behind = o.first, o.size
	}
	if o.readers == nil {
		o.readers = map[*reader]struct{}{}
	}
	o.readers[r] = struct{}{}
	return r
}

func (r *reader) close() {
	delete(r.out.readers, r)
	wake(&r.out.drained)
}

// take is everything written since the last take.
func (r *reader) take() []chunk {
	got := r.out.chunks[r.pos-r.out.first:]
	r.pos += len(got)
	r.behind = 0
	if len(got) > 0 {
		wake(&r.out.drained)
	}
	return got
}

// crowded says whether some reader is too far behind to write more.
func (o *output) crowded() bool {
	for r := range o.readers {
		if r.behind > lagLimit {
			return true
		}
	}
	return false
}

// waitFor returns the channel that is closed at the next wake of the same place.
func waitFor(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

func wake(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// frames writes chunks as a client of attach or logs expects them: with a header each, or bare for a TTY.
type frames struct {
	w      io.Writer
	tty    bool
	only   map[byte]bool // streams that were asked for
	buffer []byte
}

func (f *frames) write(c chunk) error {
	if !f.only[c.stream] {
		return nil
	}
	f.buffer = f.buffer[:0]
	if !f.tty {
		f.buffer = append(f.buffer, c.stream, 0, 0, 0)
		f.buffer = binary.BigEndian.AppendUint32(f.buffer, uint32(len(c.data)))
	}
	f.buffer = append(f.buffer, c.data...)
	_, err := f.w.Write(f.buffer)
	return err
}

// copyOutput sends what r reads until ended is closed, the client has gone or the daemon closes. It returns once all that
// was written before the end has been sent.
func (d *Daemon) copyOutput(r *reader, send func(chunk) error, sent func(), ended, gone <-chan struct{}) error {
	for {
		d.mu.Lock()
		chunks := r.take()
		over := isClosed(ended)
		changed := waitFor(&r.out.changed)
		d.mu.Unlock()
		for _, c := range chunks {
			if err := send(c); err != nil {
				return err
			}
		}
		if len(chunks) > 0 {
			sent()
		}
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ended:
		case <-gone:
			return nil
		case <-d.quit:
			return http.ErrServerClosed
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// lines cuts chunks into the lines a log file would hold; a last line without newline is kept as it is.
func lines(chunks []chunk) []chunk {
	var out []chunk
	for _, c := range chunks {
		for rest := c.data; len(rest) > 0; {
			n := bytes.IndexByte(rest, '\n') + 1
			if n == 0 {
				n = len(rest)
			}
			out = append(out, chunk{c.at, c.stream, rest[:n]})
			rest = rest[n:]
		}
	}
	return out
}
