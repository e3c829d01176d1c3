package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// keepAlive finds a dead machine within a minute, and a killed client's half-closed TCP connection soon after its
	// kernel has forgotten it.
	keepAlive       = 15 * time.Second
	keepAliveProbes = 3
	// linger is how long a client may take to end its input after the engine has ended its output. Closing with input
	// unread would reset the connection, and output still under way could be lost.
	linger = 5 * time.Second
	// stallCheck is how often a client is looked at that nobody reads from because the engine takes no more input.
	stallCheck = 5 * time.Second
)

// tunnel joins a client's connection with an engine's. Each direction's end is passed on while the other goes on.
type tunnel struct {
	client, engine net.Conn
	peer           peer      // the client's socket
	headAt         time.Time // when the head was written
	inputOver      atomic.Bool
	outputOver     atomic.Bool
	outputDone     chan struct{} // closed when the client has been told of the output's end, or has been cut
	abortOnce      sync.Once
}

func newTunnel(client, engine net.Conn) *tunnel {
	return &tunnel{client: client, engine: engine, peer: newPeer(client), outputDone: make(chan struct{})}
}

// splice takes the client's connection over and runs the tunnel until both directions have ended, or leaves it to the tunnels.
// head and first are what the engine sent so far.
func splice(w http.ResponseWriter, r *http.Request, engine net.Conn, head, first []byte, o Options) error {
	group := o.Tunnels
	client, stdin, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = engine.Close()
		return fmt.Errorf("take over the client's connection: %w", err)
	}
	early := buffered(stdin.Reader)
	t := newTunnel(client, engine)
	if !group.add(t) {
		t.abort() // too late for an answer, and for a stream
		return nil
	}
	left := context.AfterFunc(r.Context(), t.abort)
	setKeepAlive(client)
	setKeepAlive(engine)
	// The head goes in a write of its own: docker-py and others lose output that they read together with it.
	if _, err := client.Write(head); err != nil {
		t.abort()
		early, first = nil, nil // both directions end at once
	}
	t.headAt = time.Now()
	run := func() {
		defer group.remove(t)
		defer client.Close()
		defer engine.Close()
		t.run(early, first, stallCheck)
	}
	if group == nil || !o.Detach {
		defer left()
		run()
		return nil
	}
	// The server is let go, and all the memory with it that it holds for a connection. Its context ends then.
	if !left() {
		t.abort()
	}
	go run() // the group waits for it
	return nil
}

// run copies both ways and returns when neither is left.
func (t *tunnel) run(early, first []byte, check time.Duration) {
	stop := t.watch(check)
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { t.input(early) })
	t.output(first)
	late := time.AfterFunc(linger, func() { closeRaw(t.engine) }) // input that the engine does not take
	defer late.Stop()
	both.Wait()
}

// output carries what the engine says. Its failure, on either side, is the end of the tunnel: a client must not take a broken
// stream for a finished one. A reset by the engine is none: that is how the stream ends of a program that left input unread.
func (t *tunnel) output(first []byte) {
	defer close(t.outputDone)
	if err := t.say(first); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.abort()
		return
	}
	t.outputOver.Store(true)
	patience := linger
	if t.inputOver.Load() {
		patience = 0
	}
	if err := errors.Join(closeWrite(t.client), t.client.SetReadDeadline(time.Now().Add(patience))); err != nil {
		t.abort()
	}
}

// say copies the output, the first of it not before the client has had its chance to read the head alone.
func (t *tunnel) say(first []byte) error {
	if len(first) == 0 {
		buf := make([]byte, restSize)
		n, err := t.engine.Read(buf)
		if n == 0 && err != nil {
			return ended(readError{err})
		}
		first = buf[:n] // an error that came along comes again
	}
	t.peer.letRead(t.headAt)
	return relay(t.client, t.engine, first)
}

// clientDied tells whether the client has gone before its output was complete. After that, our own end of output makes the
// socket look the same; hence the order.
func (t *tunnel) clientDied() bool {
	return t.peer.gone() && !t.outputOver.Load()
}

// input carries what the client says. An engine that takes no more of it may still have a lot to say, so that alone ends
// nothing.
func (t *tunnel) input(early []byte) {
	err := relay(t.engine, t.client, early)
	if err != nil {
		var r readError
		if t.clientDied() || errors.As(err, &r) && !t.outputOver.Load() {
			t.abort()
			return
		}
		// What the engine does not take is thrown away once its output has been passed on; see linger.
		<-t.outputDone
		_, _ = io.Copy(io.Discard, t.client) // ends with the client or the deadline, and both are fine
		return
	}
	ended := t.peer.ended()  // before the engine can react
	_ = closeWrite(t.engine) // one that cannot be told is on its way out, and output will see that
	t.inputOver.Store(true)
	if t.outputOver.Load() {
		return
	}
	// Nobody reads from the client any more, so nobody would notice its death.
	if t.peer.waitGone(ended) && !t.outputOver.Load() {
		t.abort()
	}
}

// watch looks at the client now and then while its input is being carried: when the engine takes nothing, the reader does
// not get to see that the client is gone. Input that still moves is left to arrive.
func (t *tunnel) watch(every time.Duration) (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	stopped, wasGone, wasUnread := false, false, 0
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped || t.inputOver.Load() || t.outputOver.Load() {
			return
		}
		gone, unread := t.clientDied(), t.peer.unread()
		if gone && wasGone && unread == wasUnread {
			t.abort()
			return
		}
		wasGone, wasUnread = gone, unread
		timer.Reset(every)
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(every, look)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// abort ends both directions at once. A TCP client sees a reset, not a proper end.
func (t *tunnel) abort() {
	t.abortOnce.Do(func() {
		if c, ok := bottom(t.client).(*net.TCPConn); ok {
			_ = c.SetLinger(0) // fails only on a connection that is closed already
		}
		closeRaw(t.client)
		closeRaw(t.engine)
	})
}

// closeWrite passes an end on.
func closeWrite(c net.Conn) error {
	cw, ok := c.(closeWriter)
	if !ok {
		return fmt.Errorf("%T cannot close one direction", c)
	}
	return cw.CloseWrite()
}

// bottom is the socket beneath a TLS connection.
func bottom(c net.Conn) net.Conn {
	for {
		n, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = n.NetConn()
	}
}

// closeRaw closes without TLS's farewell, which would wait and would make a cut look like an end.
func closeRaw(c net.Conn) {
	_ = bottom(c).Close() // what there is to know comes out of the reads and writes that this ends
}

func setKeepAlive(c net.Conn) {
	if tcp, ok := bottom(c).(*net.TCPConn); ok {
		// Fails only on a closed connection, which the first read tells.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: keepAliveProbes})
	}
}

// readError says that it was the source that failed.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

const (
	restSize = 512 // enough for keystrokes and lines; all that a resting stream holds
	// bulk is after how many full reads a stream is left to the kernel. Splicing holds a pipe (two descriptors), which
	// a stream at rest should not.
	bulk = 4
)

// relay writes first to dst, and then whatever src has until it ends.
func relay(dst, src net.Conn, first []byte) error {
	if len(first) > 0 {
		if _, err := dst.Write(first); err != nil {
			return err
		}
	}
	if s := newSocket(src); s != nil {
		return relaySocket(dst, src, s)
	}
	rest := make([]byte, restSize)
	for {
		n, err := copyOnce(dst, src, rest)
		if err != nil {
			return ended(err)
		}
		if n < len(rest) {
			continue
		}
		burst, err := copyBurst(dst, src)
		if err != nil {
			return ended(err)
		}
		if burst {
			_, err := io.Copy(dst, src)
			return err
		}
	}
}

// relaySocket is relay for a source that can be waited for without memory.
func relaySocket(dst, src net.Conn, s *socket) error {
	splice := canSplice(dst, src)
	for full := 0; ; {
		b, n, err := s.next()
		if err != nil {
			err = readError{err}
		} else {
			_, err = dst.Write(b[:n])
		}
		if b != nil {
			putBuffer(b)
		}
		if err != nil {
			return ended(err)
		}
		if n < len(b) {
			full = 0
		} else if full++; splice && full >= bulk {
			_, err := io.Copy(dst, src)
			return err
		}
	}
}

// copyBurst copies with a borrowed large buffer for as long as the reads are worth it, or until the stream proves to be bulk
// that could be left to the kernel.
func copyBurst(dst, src net.Conn) (bool, error) {
	buf := getBuffer()
	defer putBuffer(buf)
	splice := canSplice(dst, src)
	for full := 0; ; {
		n, err := copyOnce(dst, src, buf[:])
		switch {
		case err != nil || n < len(buf)/2: // half is one TLS record
			return false, err
		case n == len(buf):
			if full++; splice && full == bulk {
				return true, nil
			}
		default:
			full = 0
		}
	}
}

func copyOnce(dst, src net.Conn, buf []byte) (int, error) {
	n, err := src.Read(buf)
	if n > 0 {
		if _, err := dst.Write(buf[:n]); err != nil {
			return n, err
		}
	}
	if err != nil {
		return n, readError{err}
	}
	return n, nil
}

func ended(err error) error {
	var r readError
	if errors.As(err, &r) && errors.Is(r.error, io.EOF) {
		return nil
	}
	return err
}

// canSplice tells whether io.Copy can move the bytes without user space: from and to sockets, one of them TCP.
func canSplice(dst, src net.Conn) bool {
	_, dstTCP := dst.(*net.TCPConn)
	_, srcTCP := src.(*net.TCPConn)
	_, dstUnix := dst.(*net.UnixConn)
	_, srcUnix := src.(*net.UnixConn)
	return dstTCP && (srcTCP || srcUnix) || srcTCP && dstUnix
}
