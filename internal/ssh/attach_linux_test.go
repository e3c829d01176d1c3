package ssh

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// watched collects what a session draws, and tells when a word is among it.
type watched struct {
	mu    sync.Mutex
	text  strings.Builder
	word  string
	found chan struct{}
}

func watchFor(word string) *watched { return &watched{word: word, found: make(chan struct{})} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.text.String(), w.word)
	w.text.Write(p)
	if !before && strings.Contains(w.text.String(), w.word) {
		close(w.found)
	}
	return len(p), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func wantStatus(t *testing.T, err error, status int) {
	t.Helper()
	if exit, ok := errors.AsType[*ExitError](err); !ok || exit.Status != status {
		t.Errorf("%v, want status %d", err, status)
	}
}

func TestOpenSSHTerminal(t *testing.T) {
	_, c := startReal(t, "")
	out := watchFor("ready")
	keys, typing := io.Pipe() // without an end: sshd takes it for the terminal's
	defer typing.Close()
	resized := make(chan Size)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Attach(t.Context(), Session{
			Command:  `stty size; trap 'stty size; echo $TERM; exit 5' WINCH; echo ready; while :; do sleep 0.05; done`,
			Terminal: &Terminal{Type: "vt100", Size: Size{Columns: 99, Rows: 33}, Resized: resized}, Stdin: keys, Stdout: out,
		})
	}()
	within(t, "the trap", out.found)
	select {
	case resized <- Size{Columns: 120, Rows: 40}:
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	}
	wantStatus(t, within(t, "the end", ended), 5)
	if got := out.String(); !strings.Contains(got, "33 99\r\n") || !strings.Contains(got, "40 120\r\nvt100") {
		t.Errorf("it drew %q, want 33 99, 40 120 and vt100", got)
	}
}

func TestOpenSSHCtrlC(t *testing.T) {
	_, c := startReal(t, "")
	keys, typing := io.Pipe()
	defer typing.Close()
	out := watchFor("ready")
	ended := make(chan error, 1)
	go func() {
		ended <- c.Attach(t.Context(), Session{
			Command: "echo ready; exec sleep 1000", Terminal: &Terminal{Type: "xterm", Size: Size{80, 24}}, Stdin: keys, Stdout: out,
		})
	}()
	within(t, "its start", out.found)
	if _, err := io.WriteString(typing, "\x03"); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, within(t, "the end", ended), 130)
}

func TestOpenSSHShell(t *testing.T) {
	_, c := startReal(t, "")
	var out strings.Builder
	err := c.Attach(t.Context(), Session{Stdin: strings.NewReader("echo $((6*7)); tty; exit 7\n"), Stdout: &out})
	wantStatus(t, err, 7)
	if got := out.String(); !strings.Contains(got, "42\nnot a tty") {
		t.Errorf("the shell said %q", got)
	}
}

func TestOpenSSHAttachEndsWithItsContext(t *testing.T) {
	_, c := startReal(t, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	out := watchFor("ready")
	ended := make(chan error, 1)
	go func() {
		ended <- c.Attach(ctx, Session{Command: "echo ready; exec sleep 1000", Terminal: &Terminal{Type: "xterm"}, Stdout: out})
	}()
	within(t, "its start", out.found)
	enough := errors.New("enough")
	cancel(enough)
	if err := within(t, "the end", ended); !errors.Is(err, enough) {
		t.Errorf("%v, want %v", err, enough)
	}
}

func TestOpenSSHAgent(t *testing.T) {
	if _, err := exec.LookPath("ssh-add"); err != nil {
		t.Skip(err)
	}
	file, public := newKeyFile(t)
	s := startSSHD(t, public, "")
	held := agent.NewKeyring()
	_, content := newKey(t)
	private, err := gossh.ParseRawPrivateKey(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Add(agent.AddedKey{PrivateKey: private, Comment: "mine"}); err != nil {
		t.Fatal(err)
	}
	cfg := s.clientConfig(file)
	cfg.IdentitiesOnly = true
	cfg.Agent = socket(t, func(conn net.Conn) { agent.ServeAgent(held, conn) }) //nolint:errcheck // it ends with the connection
	c := newClient(t, cfg)
	var out strings.Builder
	for range 2 { // two sessions share the channel for it
		out.Reset()
		if err := c.Attach(t.Context(), Session{Command: "ssh-add -l", ForwardAgent: true, Stdout: &out}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "mine") {
			t.Errorf("the host sees %q, want the key", out.String())
		}
	}
	// Only who asks for it gets it.
	if err := newClient(t, cfg).Attach(t.Context(), Session{Command: "test -z $SSH_AUTH_SOCK"}); err != nil {
		t.Error(err)
	}
	cfg.Agent = "none"
	err = newClient(t, cfg).Attach(t.Context(), Session{Command: "true", ForwardAgent: true})
	wantError(t, err, "forward the ssh-agent: there is none")
}

func TestOpenSSHSubsystem(t *testing.T) {
	s, c := startReal(t, "Subsystem sftp internal-sftp")
	conn, err := c.Subsystem(t.Context(), "sftp")
	if err != nil {
		t.Fatal(err)
	}
	files, err := sftp.NewClientPipe(conn, conn)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := files.Stat(s.dir + "/authorized_keys"); err != nil || info.Size() == 0 {
		t.Errorf("stat = %v, %v", info, err)
	}
	if err := files.Close(); err != nil {
		t.Error(err)
	}
	_, err = c.Subsystem(t.Context(), "nonsense")
	wantError(t, err, "sshd there does not offer nonsense")
}
