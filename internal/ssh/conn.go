package ssh

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

const chunkSize = 32 << 10

// conn is a channel as a net.Conn. The library's channels know no deadlines and do not wake a reader on Close, so two
// goroutines do the blocking, and those who call Read and Write wait for them only as long as they want to.
type conn struct {
	t       *transport
	ch      gossh.Channel
	remote  netAddr
	command *session // what serves the other end, if it is a command

	mu       sync.Mutex
	closed   bool
	received bool // at least one byte

	in struct {
		cond     *sync.Cond
		deadline deadline
		data     []byte // read, and not yet taken; the pump waits until it is
		err      error  // after data
	}
	out struct {
		cond     *sync.Cond
		deadline deadline
		busy     bool   // somebody is in Write
		buf      []byte // where chunk is kept, since a Write that timed out gives its slice back
		chunk    []byte // to be sent
		eof      bool   // to be sent after chunk
		eofSent  bool
		err      error
	}
}

var (
	_ net.Conn                        = (*conn)(nil)
	_ interface{ CloseWrite() error } = (*conn)(nil)
)

// newConn takes over the channel. command is nil unless a command is at the other end.
func (t *transport) newConn(ch channel, remote netAddr, command *session) (net.Conn, error) {
	c := &conn{t: t, ch: ch.Channel, remote: remote, command: command}
	c.in.cond, c.out.cond = sync.NewCond(&c.mu), sync.NewCond(&c.mu)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down || t.ended {
		return nil, errLost(t.wire.cause())
	}
	t.conns[c] = struct{}{}
	t.wg.Go(c.pump)
	t.wg.Go(c.send)
	if command == nil {
		t.wg.Go(func() { gossh.DiscardRequests(ch.requests) })
	}
	return c, nil
}

// pump reads ahead by one chunk, so that the channel's flow control still holds the other side back.
func (c *conn) pump() {
	buf := make([]byte, chunkSize)
	for {
		n, err := c.ch.Read(buf)
		if err != nil {
			err = c.explain(err, io.EOF)
		}
		c.mu.Lock()
		c.received = c.received || n > 0
		c.in.data, c.in.err = buf[:n], err
		c.in.cond.Broadcast()
		for len(c.in.data) > 0 && !c.closed {
			c.in.cond.Wait()
		}
		done := err != nil || c.closed
		c.mu.Unlock()
		if done {
			return
		}
	}
}

// send does the writing until the connection is closed.
func (c *conn) send() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for !c.closed && len(c.out.chunk) == 0 && (c.out.eofSent || !c.out.eof) {
			c.out.cond.Wait()
		}
		if c.closed {
			return
		}
		chunk := c.out.chunk
		c.mu.Unlock()
		err := c.sendOne(chunk)
		c.mu.Lock()
		if c.out.chunk = nil; len(chunk) == 0 {
			c.out.eofSent = true
		}
		if c.out.err == nil {
			c.out.err = err
		}
		c.out.cond.Broadcast()
	}
}

// sendOne sends a chunk, or the end if there is none.
func (c *conn) sendOne(chunk []byte) error {
	var err error
	if len(chunk) > 0 {
		_, err = c.ch.Write(chunk)
	} else {
		err = c.ch.CloseWrite()
	}
	if err == nil {
		return nil
	}
	return c.explain(err, syscall.EPIPE)
}

// explain turns the library's one word for every end, EOF, into what happened.
func (c *conn) explain(err, otherwise error) error {
	if !c.t.wire.alive() {
		return errLost(c.t.wire.cause())
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	c.mu.Lock()
	silent := !c.received && !c.closed
	c.mu.Unlock()
	if silent && c.command != nil {
		if failed := c.command.failure(); failed != nil {
			return failed
		}
	}
	return otherwise
}

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.in.deadline.expired:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(c.in.data) > 0:
			n := copy(p, c.in.data)
			if c.in.data = c.in.data[n:]; len(c.in.data) == 0 {
				c.in.cond.Broadcast()
			}
			return n, nil
		case c.in.err != nil:
			return 0, c.in.err
		}
		c.in.cond.Wait()
	}
}

// Quiet tells whether the connection is open and nothing is there to be read, not even its end. A pool of connections asks it
// of those at rest.
func (c *conn) Quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && len(c.in.data) == 0 && c.in.err == nil && c.out.err == nil && c.t.wire.alive()
}

// Write returns when the bytes are on their way. One that timed out may still send up to a chunk more than it says.
func (c *conn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.until(func() bool { return !c.out.busy }); err != nil {
		return 0, err
	}
	c.out.busy = true
	defer func() {
		c.out.busy = false
		c.out.cond.Broadcast()
	}()
	for len(p) > 0 {
		// The first wait is for a chunk that an earlier Write left behind.
		if err := c.until(func() bool { return len(c.out.chunk) == 0 }); err != nil {
			return n, err
		}
		if c.out.eof {
			return n, syscall.EPIPE
		}
		c.out.buf = append(c.out.buf[:0], p[:min(len(p), chunkSize)]...)
		c.out.chunk = c.out.buf
		c.out.cond.Broadcast()
		if err := c.until(func() bool { return len(c.out.chunk) == 0 }); err != nil {
			return n, err
		}
		n += len(c.out.buf)
		p = p[len(c.out.buf):]
	}
	return n, nil
}

// until waits for a condition of the sending side; c.mu is held.
func (c *conn) until(ok func() bool) error {
	for {
		switch {
		case c.closed:
			return net.ErrClosed
		case c.out.err != nil:
			return c.out.err
		case c.out.deadline.expired:
			return os.ErrDeadlineExceeded
		case ok():
			return nil
		}
		c.out.cond.Wait()
	}
}

// CloseWrite tells the other side that nothing more will come; reading goes on.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.eof = true
	c.out.cond.Broadcast()
	return c.until(func() bool { return c.out.eofSent })
}

// Close wakes everybody at once. The other side hears of it as soon as the wire takes it.
func (c *conn) Close() error {
	if !c.abandon() {
		return net.ErrClosed
	}
	c.t.forget(c)
	c.t.do(func() {
		c.ch.Close() //nolint:errcheck // fails only if the channel is closed already
	})
	return nil
}

// abandon is the part of Close that does not need the other side. It is false the second time.
func (c *conn) abandon() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.closed = true
	c.in.deadline.stop()
	c.out.deadline.stop()
	c.in.cond.Broadcast()
	c.out.cond.Broadcast()
	return true
}

func (c *conn) LocalAddr() net.Addr  { return netAddr{c.remote.network, "ssh"} }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.setDeadline(&c.in.deadline, c.in.cond, t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.setDeadline(&c.out.deadline, c.out.cond, t)
}

func (c *conn) setDeadline(d *deadline, cond *sync.Cond, t time.Time) error {
	if c.closed {
		return net.ErrClosed
	}
	d.set(cond, t)
	return nil
}

// deadline is one side's; the mutex of the condition guards it.
type deadline struct {
	expired bool
	round   int // tells a timer that it was overtaken
	timer   *time.Timer
}

// set wakes those who wait, so that they look again.
func (d *deadline) set(cond *sync.Cond, t time.Time) {
	d.stop()
	d.round++
	left := time.Until(t)
	d.expired = !t.IsZero() && left <= 0
	if !t.IsZero() && left > 0 {
		round := d.round
		d.timer = time.AfterFunc(left, func() {
			cond.L.Lock()
			defer cond.L.Unlock()
			if d.round == round {
				d.expired = true
				cond.Broadcast()
			}
		})
	}
	cond.Broadcast()
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}
