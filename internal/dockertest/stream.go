package dockertest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// logContainer answers GET /containers/{id}/logs.
func (d *Daemon) logContainer(w http.ResponseWriter, r *request) error {
	only := map[byte]bool{stdout: r.flag("stdout"), stderr: r.flag("stderr")}
	if !only[stdout] && !only[stderr] {
		return fail(http.StatusBadRequest, "Bad parameters: you must choose at least one stream")
	}
	since, until, err := r.sinceUntil()
	if err != nil {
		return err
	}
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	rd := c.out.open(true)
	past := rd.take()
	ended := waitFor(&c.ended)
	follow := r.flag("follow") && c.running()
	tty := c.config.Tty
	d.mu.Unlock()
	defer d.closeReader(rd)

	if d.speaks("1.42") {
		w.Header().Set("Content-Type", rawOrMultiplexed(r, tty))
	} else {
		w.Header()["Content-Type"] = nil // Engine 20.10 sends none
	}
	w.WriteHeader(http.StatusOK)
	flush(w)
	l := &logWriter{frames: frames{w: w, tty: tty, only: only}, since: since, until: until, timestamps: r.flag("timestamps")}
	for _, line := range l.tail(lines(past), r.param("tail")) {
		if err := l.write(line); err != nil {
			return errAnswered
		}
	}
	flush(w)
	if !follow {
		return nil
	}
	send := func(c chunk) error {
		for _, line := range lines([]chunk{c}) {
			if err := l.write(line); err != nil {
				return err
			}
		}
		return nil
	}
	// Its error is that the client has gone.
	_ = d.copyOutput(rd, send, func() { flush(w) }, ended, r.Context().Done())
	return nil
}

func (d *Daemon) closeReader(rd *reader) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rd.close()
}

// rawOrMultiplexed is the content type of a stream since API 1.42; before, everything was called raw.
func rawOrMultiplexed(r *request, tty bool) string {
	if !tty && r.atLeast("1.42") {
		return "application/vnd.docker.multiplexed-stream"
	}
	return "application/vnd.docker.raw-stream"
}

// logWriter sends log lines within a span of time.
type logWriter struct {
	frames
	since, until time.Time
	timestamps   bool
}

// tail is the last n lines of the streams that were asked for; anything but a number means all.
func (l *logWriter) tail(all []chunk, n string) []chunk {
	all = slices.DeleteFunc(all, func(c chunk) bool { return !l.only[c.stream] })
	if k, err := strconv.Atoi(n); err == nil && k >= 0 && k < len(all) {
		return all[len(all)-k:]
	}
	return all
}

func (l *logWriter) write(c chunk) error {
	if c.at.Before(l.since) || !l.until.IsZero() && c.at.After(l.until) {
		return nil
	}
	if l.timestamps {
		c.data = append([]byte(c.at.Format("2006-01-02T15:04:05.000000000Z07:00")+" "), c.data...)
	}
	return l.frames.write(c)
}

// hijack is a connection taken over from HTTP.
type hijack struct {
	conn net.Conn
	gone chan struct{} // closed when the client has left
}

// takeOver sends the head of a hijacked stream: 101 if the client asked for an upgrade, else the old 200 without length. The
// request's buffered bytes are thrown away: a client that talks before the head has come is not heard by engines either.
// Of the headers set so far those in also are sent: exec's head has them, attach's has not.
func takeOver(w http.ResponseWriter, r *request, contentType string, also ...string) (*hijack, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
	if r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + contentType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	}
	for _, name := range also {
		head += name + ": " + w.Header().Get(name) + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		_ = conn.Close()
		return nil, errAnswered
	}
	return &hijack{conn: conn, gone: make(chan struct{})}, nil
}

// end closes the stream in both directions, the writing one first so that the client sees a clean end.
func (h *hijack) end() {
	if c, ok := h.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // fails only if the client was faster
	}
	_ = h.conn.Close()
}

// stream joins a client with an output and an input until the process has ended or the client has gone.
type stream struct {
	*hijack
	reader     *reader
	frames     frames
	ended      <-chan struct{} // closed when the process is over
	feed       func([]byte)    // takes stdin, with Daemon.mu held; nil if there is none
	closeInput func()          // the same at its end
	detachKeys []byte          // nil if the client cannot detach
}

// run copies both ways. It reports whether the client typed the detach keys.
func (d *Daemon) run(s *stream) (detached bool) {
	s.frames.w = s.conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		detached = d.copyInput(s)
	}()
	// Its error is that the client has gone or the daemon closes: either ends the stream.
	_ = d.copyOutput(s.reader, s.frames.write, func() {}, s.ended, s.gone)
	s.end()
	<-done
	return detached
}

// copyInput feeds what the client sends. A client that closed only its sending side still gets output; one that broke off
// is gone.
func (d *Daemon) copyInput(s *stream) (detached bool) {
	buf := make([]byte, 32<<10)
	typed := 0 // how many of the detach keys
	for {
		n, err := s.conn.Read(buf)
		data := buf[:n]
		for _, b := range data {
			if typed < len(s.detachKeys) && b == s.detachKeys[typed] {
				typed++
			} else {
				typed = 0
			}
		}
		if typed > 0 && typed == len(s.detachKeys) {
			close(s.gone)
			return true
		}
		if s.feed != nil && n > 0 {
			d.feed(s, data)
		}
		if errors.Is(err, io.EOF) {
			if s.feed != nil {
				d.mu.Lock()
				s.closeInput()
				d.mu.Unlock()
			}
			return false
		}
		if err != nil {
			close(s.gone)
			return false
		}
	}
}

// feed hands stdin on; it waits while a reader of the output is too far behind.
func (d *Daemon) feed(s *stream, data []byte) {
	for {
		d.mu.Lock()
		if !s.reader.out.crowded() {
			s.feed(data)
			d.mu.Unlock()
			return
		}
		drained := waitFor(&s.reader.out.drained)
		d.mu.Unlock()
		select {
		case <-drained:
		case <-s.ended:
			return
		case <-d.quit:
			return
		}
	}
}

// attachContainer answers POST /containers/{id}/attach. A container that does not run yet is waited for.
func (d *Daemon) attachContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err == nil && c.status == "paused" {
		err = fail(http.StatusConflict, "container %s is paused, unpause the container before attach", r.name)
		d.mu.Unlock()
	}
	if err != nil {
		return d.attachError(w, err)
	}
	s := &stream{
		reader: c.out.open(r.flag("logs")), ended: waitFor(&c.ended),
		frames: frames{tty: c.config.Tty, only: map[byte]bool{stdout: r.flag("stdout"), stderr: r.flag("stderr")}},
	}
	if r.flag("stdin") && c.config.OpenStdin {
		s.feed, s.closeInput = c.feed, c.closeInput
	}
	if c.config.Tty {
		s.detachKeys = []byte{16, 17} // Ctrl-P Ctrl-Q
	}
	c.emit("attach")
	d.mu.Unlock()
	defer d.closeReader(s.reader)

	if s.hijack, err = takeOver(w, r, rawOrMultiplexed(r, s.frames.tty)); err != nil {
		return err
	}
	if !r.flag("stream") {
		over := make(chan struct{})
		close(over)
		s.ended = over // what there is, and no more
	}
	if d.run(s) {
		d.mu.Lock()
		c.emit("detach")
		d.mu.Unlock()
	}
	return nil
}

// feed is stdin from an attached client; before the start it is kept.
func (c *container) feed(data []byte) {
	if c.running() {
		c.proc.feed(data)
	} else {
		c.pending = append(c.pending, data...)
	}
}

// closeInput is the end of an attached client's stdin, which is the process's only with StdinOnce.
func (c *container) closeInput() {
	switch {
	case !c.config.StdinOnce:
	case c.running():
		c.proc.closeInput()
	default:
		c.pendingEOF = true
	}
}

// attachError is how attach answers before the connection is taken over: in plain text, with the stream's content type.
func (d *Daemon) attachError(w http.ResponseWriter, err error) error {
	if d.speaks("1.42") {
		return err
	}
	conn, _, herr := http.NewResponseController(w).Hijack()
	if herr != nil {
		return err // Do has no connection; the plain answer is as good
	}
	status := statusOf(err)
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n%s\r\n",
		status, http.StatusText(status), err)
	(&hijack{conn: conn}).end()
	return errAnswered
}
