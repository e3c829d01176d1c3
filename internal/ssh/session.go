package ssh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// ExitError is a command that ran and did not end well.
type ExitError struct {
	Command string
	Status  int    // 128 or more if a signal ended it, as a shell says it
	Signal  string // without SIG; "" if none ended it
	Output  string // the last of what it wrote to stderr, or to stdout if that was nothing
}

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit status %d", e.Status)
	if e.Signal != "" {
		how = "ended by signal " + e.Signal
	}
	text := fmt.Sprintf("%s: %s", firstLine(e.Command), how)
	if e.Output != "" {
		text += ": " + e.Output
	}
	return text
}

// firstLine names a command, and keeps a whole script out of an error.
func firstLine(cmd string) string {
	const most = 200
	if cmd == "" {
		return "shell"
	}
	line, _, more := strings.Cut(strings.TrimSpace(cmd), "\n")
	if len(line) > most {
		line, more = strings.ToValidUTF8(line[:most], ""), true
	}
	if more {
		line += "…"
	}
	return line
}

// session is one command on the host.
type session struct {
	t       *transport
	ch      channel
	command string

	exited chan struct{} // closed when the host closed the session; the fields below are set then
	status int           // -1: nothing was said of it
	signal string

	stderr tail
	// drained and before are for a command that a connection leads to.
	drained chan struct{} // closed when stderr has all of it
	before  error         // why it came to running a command at all
}

// newSession opens a session for one command, which is not sent yet.
func (t *transport) newSession(ctx context.Context, command string) (*session, error) {
	ch, err := t.open(ctx, "session", nil)
	if refused, ok := errors.AsType[*gossh.OpenChannelError](err); ok {
		return nil, fmt.Errorf("open a session: %w (sshd's MaxSessions bounds how many there may be at once)", refused)
	}
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	s := &session{t: t, ch: ch, command: command, exited: make(chan struct{}), status: -1}
	if !t.do(s.follow) {
		return nil, errLost(t.wire.cause())
	}
	return s, nil
}

// start sends the command, or asks for the user's shell. From here on it may have run, whatever goes wrong.
func (s *session) start(ctx context.Context) error {
	kind, payload := "exec", gossh.Marshal(struct{ Command string }{s.command})
	if s.command == "" {
		kind, payload = "shell", nil
	}
	if err := s.request(ctx, kind, payload, "sshd refuses to run commands"); err != nil {
		s.close()
		return fmt.Errorf("%s: %w", firstLine(s.command), err)
	}
	return nil
}

// follow reads how the command ends.
func (s *session) follow() {
	defer close(s.exited)
	for req := range s.ch.requests {
		switch req.Type {
		case "exit-status":
			if len(req.Payload) >= 4 {
				s.status = int(binary.BigEndian.Uint32(req.Payload))
			}
		case "exit-signal":
			var m struct {
				Signal string
				Rest   []byte `ssh:"rest"`
			}
			if err := gossh.Unmarshal(req.Payload, &m); err == nil {
				s.status, s.signal = 128+signalNumbers[gossh.Signal(m.Signal)], m.Signal
			}
		}
		if req.WantReply {
			if err := req.Reply(false, nil); err != nil {
				continue // the channel is closing, which ends the loop
			}
		}
	}
}

// signalNumbers are those of RFC 4254, as Linux counts them.
var signalNumbers = map[gossh.Signal]int{
	gossh.SIGHUP: 1, gossh.SIGINT: 2, gossh.SIGQUIT: 3, gossh.SIGILL: 4, gossh.SIGABRT: 6, gossh.SIGFPE: 8,
	gossh.SIGKILL: 9, gossh.SIGUSR1: 10, gossh.SIGSEGV: 11, gossh.SIGUSR2: 12, gossh.SIGPIPE: 13, gossh.SIGALRM: 14, gossh.SIGTERM: 15,
}

// close is not kept waiting by a wire that is stuck.
func (s *session) close() {
	s.t.do(func() {
		s.ch.Close() //nolint:errcheck // fails only if the channel is closed already
	})
}

// result is how the command ended, once it did.
func (s *session) result(output string) error {
	switch {
	case s.status == 0:
		return nil
	case s.status > 0:
		return &ExitError{Command: s.command, Status: s.status, Signal: s.signal, Output: output}
	case !s.t.wire.alive():
		return fmt.Errorf("%s: %w", firstLine(s.command), errLost(s.t.wire.cause()))
	}
	return fmt.Errorf("%s: the session ended without an exit status", firstLine(s.command))
}

// run starts the command, feeds it and collects what it says.
func (s *session) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	defer s.close()
	var outTail tail
	gate := &gate{}
	defer gate.shut()
	outs := make(chan error, 2)
	streams := s.t.do(func() {
		outs <- drain(gate, s.ch, stdout, &outTail)
	}) && s.t.do(func() {
		outs <- drain(gate, s.ch.Stderr(), stderr, &s.stderr)
	})
	if !streams {
		return fmt.Errorf("%s: %w", firstLine(s.command), errLost(s.t.wire.cause()))
	}
	fed := s.feed(stdin)

	var failed error
	for range 2 {
		select {
		case err := <-outs:
			failed = errors.Join(failed, err)
		case <-ctx.Done():
			return s.kill(ctx)
		}
	}
	select {
	case <-s.exited:
	case <-ctx.Done():
		return s.kill(ctx)
	}
	output := s.stderr.String()
	if output == "" {
		output = outTail.String()
	}
	select {
	case err := <-fed:
		failed = errors.Join(failed, err)
	default: // the command did not want all of it
	}
	return errors.Join(s.result(output), failed)
}

// killWait bounds how long a wire that is stuck may keep a command from being killed.
const killWait = time.Second

// kill asks for the end of the command; sshd may ignore it, but closes its streams. It waits until that is said, since whoever ends
// the command often ends the connection next.
func (s *session) kill(ctx context.Context) error {
	said := make(chan struct{})
	if s.t.do(func() {
		defer close(said)
		s.ch.SendRequest("signal", false, gossh.Marshal(struct{ Signal string }{string(gossh.SIGKILL)})) //nolint:errcheck // it ended by itself
	}) {
		timer := time.NewTimer(killWait)
		defer timer.Stop()
		select {
		case <-said:
		case <-timer.C:
		}
	}
	return fmt.Errorf("%s: %w", firstLine(s.command), context.Cause(ctx))
}

// feed copies stdin in a goroutine that nobody waits for, as a Read cannot be called off. Its error is the reader's: a
// command that does not read to the end is none.
func (s *session) feed(stdin io.Reader) <-chan error {
	fed := make(chan error, 1)
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	go func() {
		watched := &errReader{Reader: stdin}
		if _, err := io.Copy(s.ch, watched); err != nil && watched.err == nil {
			fed <- nil
			return
		}
		if watched.err != nil {
			fed <- fmt.Errorf("%s: read its input: %w", firstLine(s.command), watched.err)
		}
		if err := s.ch.CloseWrite(); err != nil {
			return // the command is gone
		}
	}()
	return fed
}

type errReader struct {
	io.Reader
	err error
}

func (r *errReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// drain copies one stream to its end, whatever the writer says of it, so that the command is not held up.
func drain(g *gate, from io.Reader, to io.Writer, last *tail) error {
	buf := make([]byte, chunkSize)
	var failed error
	for {
		n, err := from.Read(buf)
		last.Write(buf[:n]) //nolint:errcheck // never fails
		if to != nil && n > 0 && failed == nil {
			failed = g.write(to, buf[:n])
		}
		if err != nil {
			return failed // a stream that broke shows in the exit status
		}
	}
}

// gate keeps writers from being called after Run returned, and one at a time, since stdout and stderr may be the same.
type gate struct {
	mu   sync.Mutex
	down bool
}

func (g *gate) write(w io.Writer, p []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return fmt.Errorf("write its output: %w", err)
	}
	return nil
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = true
}

// tail keeps the end of a stream for an error.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(bytes.TrimSpace(t.buf)), "\uFFFD")
}

// dialStdio reaches the engine through a command, where sshd forwards no unix sockets. An engine at the usual place is
// left to the docker command to find: it knows of rootless ones and of contexts.
func (t *transport) dialStdio(ctx context.Context, path string, refused error) (net.Conn, error) {
	command := "docker system dial-stdio"
	if path != DefaultSocket {
		command = "docker --host " + quote("unix://"+path) + " system dial-stdio"
	}
	before := fmt.Errorf("sshd does not forward to %s (%w)", path, refused)
	s, err := t.newSession(ctx, command)
	if err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; %w", before, err)
	}
	s.before, s.drained = before, make(chan struct{})
	if !t.do(func() {
		defer close(s.drained)
		io.Copy(&s.stderr, s.ch.Stderr()) //nolint:errcheck // a stream that broke shows in the exit status
	}) {
		return nil, errLost(t.wire.cause())
	}
	return t.newConn(s.ch, netAddr{"unix", path}, s)
}

// exitWait bounds the wait for the reason after a command closed its output without a word.
const exitWait = 5 * time.Second

// failure is why a command that said nothing ended, or nil if there is no telling.
func (s *session) failure() error {
	timer := time.NewTimer(exitWait)
	defer timer.Stop()
	for _, over := range []<-chan struct{}{s.exited, s.drained} {
		select {
		case <-over:
		case <-timer.C:
			return nil
		}
	}
	if err := s.result(s.stderr.String()); err != nil {
		return fmt.Errorf("%w; %w", s.before, err)
	}
	return nil
}

// quote makes one word of s for any shell that the other side may have.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
