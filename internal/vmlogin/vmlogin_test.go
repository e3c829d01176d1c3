package vmlogin

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestAKeyOpensWhatItsPublicHalfLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	line, err := NewKey(path, "vm1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	public, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || comment != "vm1" || string(public.Marshal()) != string(private.PublicKey().Marshal()) {
		t.Errorf("%s is not the key's: %v", line, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
}

// serve answers every connection with that text.
func serve(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(text))
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

func lives(context.Context) error { return nil }

func TestAwaitSSH(t *testing.T) {
	dead := errors.New("it is off")
	for name, tt := range map[string]struct {
		address string
		lives   func(context.Context) error
		want    []string
	}{
		"an sshd that greets":            {serve(t, "SSH-2.0-x\r\n"), lives, nil},
		"something else":                 {serve(t, "HTTP/1.1 400\r\n"), lives, []string{"not after 1.5s", "is none", "kernel panic"}},
		"a forward that leads nowhere":   {serve(t, ""), lives, []string{"does not answer", "kernel panic"}},
		"a machine that ended meanwhile": {serve(t, ""), func(context.Context) error { return dead }, []string{"it is off", "kernel panic"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := Boot{SSH: tt.address, Limit: 1500 * time.Millisecond, Lives: tt.lives, Console: func() string { return "kernel panic" }}
			err := b.AwaitSSH(t.Context())
			if (err == nil) != (tt.want == nil) {
				t.Fatalf("= %v, want %v", err, tt.want)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("= %v, want it to say %q", err, want)
				}
			}
		})
	}
}

func TestAwaitEngineDoesNotInsist(t *testing.T) {
	b := Boot{Engine: serve(t, ""), EngineLimit: 100 * time.Millisecond}
	if err := b.AwaitEngine(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.AwaitEngine(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("= %v, want that it was cancelled", err)
	}
}
