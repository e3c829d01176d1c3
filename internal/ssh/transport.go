package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

const (
	// keepAliveEvery and keepAliveFor: a question every 15 s, and two unanswered ones are the end.
	keepAliveEvery = 15 * time.Second
	keepAliveFor   = 2 * keepAliveEvery
	// suspectFor is how long a connection may still be silent after somebody waited for it in vain.
	suspectFor = 5 * time.Second

	maxJumps = 8
)

// transport is one connection to one host, with all that goes through it.
type transport struct {
	client  *gossh.Client
	wire    *wire
	via     *transport    // the jump host; ours alone
	suspect chan struct{} // asks for a keep-alive right now
	agent   string        // the socket of our ssh-agent; "" for none

	forwarding sync.Mutex // held while it is asked for
	forwarded  bool       // the host may use our agent

	mu    sync.Mutex
	conns map[*conn]struct{}
	down  bool // shut was called
	ended bool // no goroutine may be added any more

	wg sync.WaitGroup
}

// connect makes the connection that cfg describes, through its jump hosts.
func connect(ctx context.Context, cfg Config) (*transport, error) {
	s, err := resolve(cfg)
	if err != nil {
		return nil, err
	}
	return s.connect(ctx, 0)
}

func (s *settings) connect(ctx context.Context, depth int) (*transport, error) {
	raw, via, err := s.reach(ctx, depth)
	if err != nil {
		return nil, err
	}
	t, err := s.handshake(ctx, raw)
	if err != nil {
		if via != nil {
			via.shut(net.ErrClosed)
			via.wait()
		}
		return nil, err
	}
	t.via = via
	t.wg.Go(t.keepAlive)
	return t, nil
}

// reach opens the stream that ssh is then spoken on.
func (s *settings) reach(ctx context.Context, depth int) (net.Conn, *transport, error) {
	if len(s.jumps) == 0 {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		d := net.Dialer{KeepAlive: keepAliveEvery}
		raw, err := d.DialContext(ctx, "tcp", s.addr())
		return raw, nil, err
	}
	if depth >= maxJumps {
		return nil, nil, fmt.Errorf("more than %d jump hosts, or hosts that jump in a circle", maxJumps)
	}
	hop, err := s.lastJump()
	if err != nil {
		return nil, nil, fmt.Errorf("jump host %s: %w", s.jumps[len(s.jumps)-1], err)
	}
	via, err := hop.connect(ctx, depth+1)
	if err != nil {
		return nil, nil, fmt.Errorf("jump host %s: %w", hop, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	raw, err := via.dial(ctx, "tcp", s.addr())
	if err != nil {
		via.shut(net.ErrClosed)
		via.wait()
		return nil, nil, fmt.Errorf("jump host %s: dial %s: %w", hop, s.addr(), err)
	}
	return raw, via, nil
}

// lastJump is the host before the last one, reached through the jumps before it, or through its own if there are none.
// The key files of Config, and that there are to be no others, are about the last host only.
func (s *settings) lastJump() (*settings, error) {
	rest, hop := s.jumps[:len(s.jumps)-1], s.jumps[len(s.jumps)-1]
	target, err := ParseTarget("ssh://" + trimScheme(hop))
	if err != nil {
		return nil, err
	}
	cfg := s.cfg
	cfg.Host, cfg.Port, cfg.User = target.Host, target.Port, target.User
	cfg.KeyFiles, cfg.IdentitiesOnly = nil, false
	j, err := resolve(cfg)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		j.jumps = rest
	}
	return j, nil
}

// handshake proves to each side who the other one is. It owns raw.
func (s *settings) handshake(ctx context.Context, raw net.Conn) (*transport, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	w := &wire{Conn: raw, lost: make(chan struct{})}
	keys, err := s.gather(ctx)
	if err != nil {
		w.abort(err)
		return nil, err
	}
	defer keys.close()
	v, err := newVerifier(s)
	if err != nil {
		w.abort(err)
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { w.abort(context.Cause(ctx)) })
	sc, chans, reqs, err := gossh.NewClientConn(w, s.addr(), &gossh.ClientConfig{
		User:              s.user,
		Auth:              s.methods(ctx, keys, v),
		HostKeyCallback:   v.verify,
		HostKeyAlgorithms: v.algorithms(),
	})
	if !stop() {
		w.abort(context.Cause(ctx))
		return nil, fmt.Errorf("%s: no ssh connection within the time given: %w", s, context.Cause(ctx))
	}
	if err != nil {
		return nil, s.explain(err, v, keys)
	}
	return &transport{
		client:  gossh.NewClient(sc, chans, reqs),
		wire:    w,
		suspect: make(chan struct{}, 1),
		agent:   s.agent,
		conns:   map[*conn]struct{}{},
	}, nil
}

// explain says which of the two sides did not like the other.
func (s *settings) explain(err error, v *verifier, keys *credentials) error {
	if v.err != nil {
		return v.err
	}
	_, broken := errors.AsType[net.Error](err)
	if !v.verified || broken {
		return fmt.Errorf("%s: %w", s, err)
	}
	return &AuthError{User: s.user, Address: s.addr(), Offered: keys.offered, Unusable: keys.unusable, Cause: err}
}

// keepAlive watches over the connection until it is lost, and then over the end of what it stood on.
func (t *transport) keepAlive() {
	defer t.end()
	tick := time.NewTicker(keepAliveEvery)
	defer tick.Stop()
	for {
		patience := keepAliveFor
		select {
		case <-t.wire.lost:
			return
		case <-tick.C:
		case <-t.suspect:
			patience = suspectFor
		}
		t.ping(patience)
	}
}

// ping asks for any answer at all, and ends the connection if none comes.
func (t *transport) ping(patience time.Duration) {
	answered := make(chan struct{})
	t.wg.Go(func() {
		defer close(answered)
		if _, _, err := t.client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.wire.abort(err)
		}
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-answered:
			return
		case <-t.wire.lost:
			return
		case <-t.suspect:
			timer.Reset(min(patience, suspectFor))
		case <-timer.C:
			t.wire.abort(fmt.Errorf("no answer to keep-alives: %w", context.DeadlineExceeded))
			return
		}
	}
}

// distrust is called by those who waited in vain.
func (t *transport) distrust() {
	select {
	case t.suspect <- struct{}{}:
	default: // somebody else was faster
	}
}

func (t *transport) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	if t.via != nil {
		t.via.shut(net.ErrClosed)
		t.via.wait()
	}
}

// shut ends the connection and closes what was dialled through it.
func (t *transport) shut(cause error) {
	t.wire.abort(cause)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = true
	for c := range t.conns {
		c.abandon()
	}
}

func (t *transport) forget(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
}

// wait returns once no goroutine is left; a lost connection keeps some until its users close what they dialled.
func (t *transport) wait() { t.wg.Wait() }

// do runs f in a goroutine that wait waits for. It is false once the connection ended.
func (t *transport) do(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	t.wg.Go(f)
	return true
}

// await runs f, which may block for as long as the connection lives, but no longer than ctx. What comes too late goes to
// discard.
func await[T any](ctx context.Context, t *transport, f func() (T, error), discard func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var zero T
	results := make(chan result)
	started := t.do(func() {
		v, err := f()
		select {
		case results <- result{v, err}:
		case <-ctx.Done():
			if err == nil {
				discard(v)
			}
		}
	})
	if !started {
		return zero, errLost(t.wire.cause())
	}
	select {
	case r := <-results:
		if r.err != nil && !t.wire.alive() {
			return zero, errLost(t.wire.cause())
		}
		return r.v, r.err
	case <-ctx.Done():
		t.distrust()
		return zero, context.Cause(ctx)
	}
}

// channel is an open channel with the requests that come on it, which must be read.
type channel struct {
	gossh.Channel
	requests <-chan *gossh.Request
}

func (t *transport) open(ctx context.Context, kind string, payload []byte) (channel, error) {
	return await(ctx, t, func() (channel, error) {
		ch, reqs, err := t.client.OpenChannel(kind, payload)
		return channel{ch, reqs}, err
	}, func(c channel) {
		c.Close() //nolint:errcheck // fails only if it is closed already
		gossh.DiscardRequests(c.requests)
	})
}

// dial opens a stream to a socket as seen from the host.
func (t *transport) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	switch network {
	case "unix":
		return t.dialUnix(ctx, addr)
	case "tcp", "tcp4", "tcp6":
		return t.dialTCP(ctx, network, addr)
	}
	return nil, net.UnknownNetworkError(network)
}

func (t *transport) dialUnix(ctx context.Context, path string) (net.Conn, error) {
	ch, err := t.open(ctx, "direct-streamlocal@openssh.com", gossh.Marshal(struct {
		Path      string
		Reserved0 string
		Reserved1 uint32
	}{Path: path}))
	if refused, ok := errors.AsType[*gossh.OpenChannelError](err); ok {
		return t.dialStdio(ctx, path, refused)
	}
	if err != nil {
		return nil, err
	}
	return t.newConn(ch, netAddr{"unix", path}, nil)
}

func (t *transport) dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q is not a number", port)
	}
	ch, err := t.open(ctx, "direct-tcpip", gossh.Marshal(struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}{Host: host, Port: uint32(n), OriginHost: "127.0.0.1"}))
	if err != nil {
		return nil, err
	}
	return t.newConn(ch, netAddr{network, addr}, nil)
}

// wire is the stream below ssh. It remembers why it ended: above it every end looks like the proper one.
type wire struct {
	net.Conn
	lost chan struct{} // closed at the end

	once  sync.Once
	ended error
}

func (w *wire) lose(cause error) {
	w.once.Do(func() {
		w.ended = cause
		close(w.lost)
	})
}

func (w *wire) alive() bool {
	select {
	case <-w.lost:
		return false
	default:
		return true
	}
}

// cause is why the wire ended; it must have.
func (w *wire) cause() error {
	<-w.lost
	return w.ended
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.lose(err)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		w.lose(err)
	}
	return n, err
}

func (w *wire) abort(cause error) {
	w.lose(cause)
	w.Conn.Close() //nolint:errcheck // what was not sent is lost either way
}

// Close is called by the ssh library, when the other side broke the protocol or said that it ends the connection.
func (w *wire) Close() error {
	w.lose(fmt.Errorf("ended by ssh: %w", io.ErrUnexpectedEOF))
	return w.Conn.Close()
}

// netAddr is an address on the other side, where it need not mean here what it means there.
type netAddr struct{ network, address string }

func (a netAddr) Network() string { return a.network }
func (a netAddr) String() string  { return a.address }
