// Package ssh reaches into a remote machine: it dials sockets there and runs commands there.
//
// A Client stands for one machine and holds one connection to it, made when first needed and made again when it broke;
// everything it dials or runs shares that connection. It reads what ssh users already have (~/.ssh/config, known_hosts,
// the agent), pins host keys at first contact and refuses changed ones. Nothing is ever executed on this computer. It
// does not know what the machine is for.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Config says which machine, and how to get in. Only Host is needed; what is zero comes from the ssh configuration, then
// from the defaults that ssh has.
type Config struct {
	Host string // a name, an address, or an alias from the ssh configuration
	Port int
	User string

	// KeyFiles are private keys tried before all others. Each must exist; one with a passphrase is taken from the agent.
	KeyFiles []string
	// IdentitiesOnly offers nothing but key files, neither the agent's other keys nor passwords.
	IdentitiesOnly bool
	// Agent is the socket of an ssh-agent: "" means IdentityAgent or $SSH_AUTH_SOCK, "none" means no agent.
	Agent string
	// KnownHostsFile is where keys of new hosts are written, and read before ssh's own files. "" means the user's.
	KnownHostsFile string
	// SSHConfigFile is read instead of ~/.ssh/config and /etc/ssh/ssh_config. "none" means neither these nor the
	// known_hosts files that they would imply: what is not in Config does not count.
	SSHConfigFile string
	// Password answers what the server asks for, after keys were refused. nil means no passwords.
	Password func(ctx context.Context, prompt string) (string, error)
	// Timeout bounds the making of one connection. 0 means ConnectTimeout, or 30 s.
	Timeout time.Duration
	// Log is told what a user should know, such as a new host key. nil means nobody is.
	Log func(line string)
}

// Client is one machine. Its methods may be called at once from many goroutines.
type Client struct {
	cfg Config

	mu      sync.Mutex
	current *transport              // nil until made
	attempt *attempt                // the one being made
	all     map[*transport]struct{} // those whose goroutines have not ended
	closed  bool

	wg sync.WaitGroup
}

// New makes a Client; nothing is read or connected until it is used, and the ssh configuration and keys are read again
// for every connection that is made.
func New(cfg Config) *Client {
	if cfg.Log == nil {
		cfg.Log = func(string) {}
	}
	return &Client{cfg: cfg, all: map[*transport]struct{}{}}
}

// Dial connects to a socket as seen from the machine: network "unix" with a path, or "tcp" with host:port. The connection
// has CloseWrite and working deadlines. Where sshd refuses to forward unix sockets, "unix" is taken to be a Docker Engine's
// and `docker system dial-stdio` is run there instead; whether that works shows at the first Read or Write.
func (c *Client) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	err := c.use(ctx, func(t *transport) (err error) {
		conn, err = t.dial(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ssh %s: dial %s %s: %w", c.cfg.Host, network, addr, err)
	}
	return conn, nil
}

// Run runs a command in the user's shell there and waits for its end. An *ExitError tells of a command that failed. Any of
// the streams may be nil. When ctx ends, the command is killed as far as sshd does so, and nothing is written to stdout
// and stderr after Run returned; a stdin that blocks in Read is left behind until that Read returns.
func (c *Client) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	var s *session
	err := c.use(ctx, func(t *transport) (err error) {
		s, err = t.newSession(ctx, cmd) // no further: a command must not run twice
		return err
	})
	if err == nil {
		err = s.run(ctx, stdin, stdout, stderr)
	}
	if err != nil {
		return fmt.Errorf("ssh %s: %w", c.cfg.Host, err)
	}
	return nil
}

// Close ends the connection and all that goes through it, and waits until that is done.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.attempt != nil {
		c.attempt.cancel()
	}
	for t := range c.all {
		t.shut(net.ErrClosed)
	}
	c.mu.Unlock()
	c.wg.Wait()
	return nil
}

// use calls do with a connection. One that turns out to be lost before do could use it is replaced, once.
func (c *Client) use(ctx context.Context, do func(*transport) error) error {
	for again := false; ; again = true {
		t, err := c.connection(ctx)
		if err != nil {
			return err
		}
		err = do(t)
		if err == nil || again || ctx.Err() != nil || t.wire.alive() {
			return err
		}
	}
}

// attempt is a connection being made, for all who wait for it. It lives as long as anybody does.
type attempt struct {
	cancel  context.CancelFunc
	waiting int // guarded by Client.mu

	done chan struct{} // closed once t and err are set
	t    *transport
	err  error
}

// connection returns the living connection, or waits with all others for a new one.
func (c *Client) connection(ctx context.Context) (*transport, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, net.ErrClosed
	}
	if t := c.current; t != nil && t.wire.alive() {
		c.mu.Unlock()
		return t, nil
	}
	a := c.attempt
	if a == nil {
		a = c.begin(ctx)
	}
	a.waiting++
	c.mu.Unlock()

	select {
	case <-a.done:
		return a.t, a.err
	case <-ctx.Done():
		c.leave(a)
		return nil, fmt.Errorf("connect: %w", context.Cause(ctx))
	}
}

// begin starts an attempt; Client.mu is held.
func (c *Client) begin(ctx context.Context) *attempt {
	// The first caller may give up while others still wait.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &attempt{cancel: cancel, done: make(chan struct{})}
	c.attempt = a
	c.wg.Go(func() {
		defer close(a.done)
		defer cancel()
		t, err := connect(ctx, c.cfg)
		c.finish(a, t, err)
	})
	return a
}

// finish publishes what an attempt came to, unless nobody wants it any more.
func (c *Client) finish(a *attempt, t *transport, err error) {
	c.mu.Lock()
	wanted := c.attempt == a && !c.closed
	if c.attempt == a {
		c.attempt = nil
	}
	if err == nil && wanted {
		c.current = t
		c.all[t] = struct{}{}
		c.wg.Go(func() {
			t.wait()
			c.mu.Lock()
			delete(c.all, t)
			c.mu.Unlock()
		})
	}
	c.mu.Unlock()

	switch {
	case err != nil:
		a.err = err
	case wanted:
		a.t = t
	default:
		t.shut(net.ErrClosed)
		t.wait()
		a.err = net.ErrClosed
	}
}

// leave takes one from those who wait; without any the attempt ends and the next caller begins another.
func (c *Client) leave(a *attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.waiting--
	if a.waiting > 0 {
		return
	}
	a.cancel()
	if c.attempt == a {
		c.attempt = nil
	}
}

// errLost is what becomes of everything on a connection that broke.
func errLost(cause error) error {
	if errors.Is(cause, net.ErrClosed) {
		return net.ErrClosed
	}
	if errors.Is(cause, io.EOF) { // must not pass for the proper end of a stream
		cause = fmt.Errorf("closed by the other side: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("ssh connection lost: %w", cause)
}
