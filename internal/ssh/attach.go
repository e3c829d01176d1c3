package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	gossh "golang.org/x/crypto/ssh"
)

// Session is a shell or a command with somebody at this end.
type Session struct {
	// Command is run in the user's shell there; "" is that shell itself, as at a login.
	Command string
	// Terminal gives it a terminal, on which stderr comes with stdout. nil means none.
	Terminal *Terminal
	// ForwardAgent lets the host use this computer's ssh-agent while the session lasts. Whoever is root there can then log in
	// with its keys, so it is for those who ask for it.
	ForwardAgent bool

	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Terminal is what a program needs to know of the terminal that it draws on.
type Terminal struct {
	Type string // TERM
	Size Size
	// Resized tells of a new size; it may be nil.
	Resized <-chan Size
}

// Size is a terminal's, in characters.
type Size struct{ Columns, Rows int }

// Attach runs a session and waits for its end, as Run does.
func (c *Client) Attach(ctx context.Context, a Session) error {
	var s *session
	err := c.use(ctx, func(t *transport) (err error) {
		s, err = t.newSession(ctx, a.Command)
		return err
	})
	if err == nil {
		if err = s.prepare(ctx, a); err == nil {
			err = s.run(ctx, a.Stdin, a.Stdout, a.Stderr)
		} else {
			s.close()
		}
	}
	if err != nil {
		return fmt.Errorf("ssh %s: %w", c.cfg.Host, err)
	}
	return nil
}

// Subsystem starts a service that sshd offers by name, such as sftp, and connects to it.
func (c *Client) Subsystem(ctx context.Context, name string) (net.Conn, error) {
	var conn net.Conn
	err := c.use(ctx, func(t *transport) (err error) {
		conn, err = t.subsystem(ctx, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ssh %s: %w", c.cfg.Host, err)
	}
	return conn, nil
}

func (t *transport) subsystem(ctx context.Context, name string) (net.Conn, error) {
	s, err := t.newSession(ctx, name)
	if err != nil {
		return nil, err
	}
	err = s.request(ctx, "subsystem", gossh.Marshal(struct{ Name string }{name}), "sshd there does not offer "+name)
	if err != nil {
		s.close()
		return nil, err
	}
	s.before, s.drained = fmt.Errorf("sshd's %s ended", name), make(chan struct{})
	if !t.do(func() {
		defer close(s.drained)
		io.Copy(&s.stderr, s.ch.Stderr()) //nolint:errcheck // a stream that broke shows in the exit status
	}) {
		return nil, errLost(t.wire.cause())
	}
	return t.newConn(s.ch, netAddr{"subsystem", name}, s)
}

// prepare asks for what the session is to have before its command starts.
func (s *session) prepare(ctx context.Context, a Session) error {
	if a.ForwardAgent {
		if err := s.forwardAgent(ctx); err != nil {
			return fmt.Errorf("forward the ssh-agent: %w", err)
		}
	}
	if a.Terminal != nil {
		return s.takeTerminal(ctx, *a.Terminal)
	}
	return nil
}

// request sends one that must be granted.
func (s *session) request(ctx context.Context, kind string, payload []byte, refused string) error {
	ok, err := await(ctx, s.t, func() (bool, error) { return s.ch.SendRequest(kind, true, payload) }, func(bool) {})
	if err == nil && !ok {
		err = errors.New(refused)
	}
	return err
}

// iutf8 is RFC 8160's: the host's terminal is to delete whole characters.
const iutf8 = 42

func (s *session) takeTerminal(ctx context.Context, term Terminal) error {
	var modes []byte
	for _, m := range []struct {
		op    uint8
		value uint32
	}{{gossh.ECHO, 1}, {iutf8, 1}, {gossh.TTY_OP_ISPEED, 38400}, {gossh.TTY_OP_OSPEED, 38400}} {
		modes = append(modes, gossh.Marshal(m)...)
	}
	err := s.request(ctx, "pty-req", gossh.Marshal(struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{Term: term.Type, Columns: uint32(term.Size.Columns), Rows: uint32(term.Size.Rows), Modes: string(append(modes, 0))}),
		"sshd gives no terminal")
	if err != nil || term.Resized == nil {
		return err
	}
	s.t.do(func() { s.resize(term.Resized) })
	return nil
}

// resize passes new sizes on until the session ends.
func (s *session) resize(sizes <-chan Size) {
	for {
		select {
		case size, more := <-sizes:
			if !more {
				return
			}
			_, err := s.ch.SendRequest("window-change", false, gossh.Marshal(struct{ Columns, Rows, Width, Height uint32 }{
				Columns: uint32(size.Columns), Rows: uint32(size.Rows),
			}))
			if err != nil {
				return // the session is over
			}
		case <-s.exited:
			return
		case <-s.t.wire.lost:
			return
		}
	}
}

// forwardAgent lets the host reach our agent. sshd grants that once, for all sessions of the connection, and the channels that
// it opens for it are served as long as that lives.
func (s *session) forwardAgent(ctx context.Context) error {
	if s.t.agent == "" {
		return errors.New("there is none: $SSH_AUTH_SOCK is not set")
	}
	s.t.forwarding.Lock()
	defer s.t.forwarding.Unlock()
	if s.t.forwarded {
		return nil
	}
	if incoming := s.t.client.HandleChannelOpen("auth-agent@openssh.com"); incoming != nil {
		s.t.do(func() {
			for ch := range incoming {
				s.t.do(func() { s.t.joinAgent(ch) })
			}
		})
	}
	err := s.request(ctx, "auth-agent-req@openssh.com", nil, "sshd does not allow it")
	s.t.forwarded = err == nil
	return err
}

// joinAgent connects one channel from the host with the agent.
func (t *transport) joinAgent(incoming gossh.NewChannel) {
	held, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: t.agent, Net: "unix"})
	if err != nil {
		incoming.Reject(gossh.ConnectionFailed, err.Error()) //nolint:errcheck // nobody else is to be told
		return
	}
	var local net.Conn = held
	ch, requests, err := incoming.Accept()
	if err != nil {
		local.Close()
		return
	}
	t.do(func() { gossh.DiscardRequests(requests) })
	t.do(func() {
		io.Copy(ch, local) //nolint:errcheck // either side may end it
		ch.Close()         //nolint:errcheck // fails only if it is closed already
	})
	io.Copy(local, ch) //nolint:errcheck // either side may end it
	local.Close()
}
