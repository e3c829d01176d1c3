package ssh

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// met dials once and returns what comes of it and what was said to the user.
func met(t *testing.T, cfg Config) (string, error) {
	t.Helper()
	var said []string
	cfg.Log = func(line string) { said = append(said, line) }
	conn, err := newClient(t, cfg).Dial(t.Context(), "unix", socket(t, echo))
	if err == nil {
		conn.Close()
	}
	return strings.Join(said, "\n"), err
}

func TestHostKeyIsPinned(t *testing.T) {
	file, public := newKeyFile(t)
	s := startServer(t, public)
	cfg := s.clientConfig(file)
	said, err := met(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if want := gossh.FingerprintSHA256(s.key.PublicKey()); !strings.Contains(said, want) || !strings.Contains(said, cfg.KnownHostsFile) {
		t.Errorf("said %q, want %s and the file", said, want)
	}
	content, err := os.ReadFile(cfg.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	if want := knownhosts.Line([]string{s.addr}, s.key.PublicKey()) + "\n"; string(content) != want {
		t.Errorf("%s holds %q, want %q", cfg.KnownHostsFile, content, want)
	}
	for path, want := range map[string]os.FileMode{cfg.KnownHostsFile: 0o600, filepath.Dir(cfg.KnownHostsFile): 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
	}
	if said, err := met(t, cfg); err != nil || said != "" {
		t.Errorf("the second time: %v, said %q", err, said)
	}

	old := gossh.FingerprintSHA256(s.key.PublicKey())
	next, _ := newKey(t)
	s.set(func() { s.key = next })
	_, err = met(t, cfg)
	wantError(t, err, "the host key of ["+strings.Replace(s.addr, ":", "]:", 1)+" CHANGED", old,
		gossh.FingerprintSHA256(next.PublicKey()), cfg.KnownHostsFile+":1", "ssh-keygen -R")
	if e, ok := errors.AsType[*HostKeyError](err); !ok || !e.Changed {
		t.Errorf("%v is no HostKeyError for a change", err)
	}
}

// A changed host key must not be followed by a password, whatever the user said.
func TestChangedHostGetsNoPassword(t *testing.T) {
	s := startServer(t, nil)
	s.set(func() { s.password = "secret" })
	dir := t.TempDir()
	other, _ := newKey(t)
	cfg := withConfig(t, s, dir, "StrictHostKeyChecking no\nUserKnownHostsFile "+knownFile(t, dir, knownhosts.Line([]string{s.addr}, other.PublicKey())))
	said, err := met(t, cfg)
	wantError(t, err, "there was no key to offer")
	if !strings.Contains(said, "CHANGED") || !strings.Contains(said, "going on") {
		t.Errorf("said %q", said)
	}
	asked := false
	cfg.Password = func(context.Context, string) (string, error) { asked = true; return "secret", nil }
	if _, err := met(t, cfg); err == nil || asked {
		t.Errorf("%v, password asked for: %v", err, asked)
	}
}

func TestStrictHostKeyChecking(t *testing.T) {
	file, public := newKeyFile(t)
	s := startServer(t, public)
	other, _ := newKey(t)
	right := knownhosts.Line([]string{s.addr}, s.key.PublicKey())
	wrong := knownhosts.Line([]string{s.addr}, other.PublicKey())
	for name, tt := range map[string]struct{ config, known, want string }{
		"yes, unknown":         {"StrictHostKeyChecking yes", "", "is not known"},
		"yes, known":           {"StrictHostKeyChecking yes", right, ""},
		"yes, changed":         {"StrictHostKeyChecking yes", wrong, "CHANGED"},
		"accept-new, unknown":  {"StrictHostKeyChecking accept-new", "", ""},
		"accept-new, changed":  {"StrictHostKeyChecking accept-new", wrong, "CHANGED"},
		"ask, unknown":         {"StrictHostKeyChecking ask", "", ""},
		"no, changed":          {"StrictHostKeyChecking no", wrong, ""},
		"nothing, both":        {"", wrong + "\n" + right, ""},
		"revoked":              {"StrictHostKeyChecking no", "@revoked * " + strings.SplitN(right, " ", 2)[1], "revoked"},
		"another host's":       {"StrictHostKeyChecking yes", knownhosts.Line([]string{"h"}, s.key.PublicKey()), "is not known"},
		"hashed":               {"StrictHostKeyChecking yes", knownhosts.HashHostname(knownhosts.Normalize(s.addr)) + " " + strings.SplitN(right, " ", 2)[1], ""},
		"only garbage":         {"", "garbage", "known hosts"},
		"an authority for all": {"", "@cert-authority * " + strings.SplitN(wrong, " ", 2)[1], ""},
		"strange":              {"StrictHostKeyChecking maybe", "", "none of yes, accept-new, no"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := withConfig(t, s, dir, tt.config+"\nUserKnownHostsFile "+knownFile(t, dir, tt.known), file)
			_, err := met(t, cfg)
			if tt.want != "" {
				wantError(t, err, tt.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// A server with two kinds of host key must show the known one.
func TestKnownKindOfKeyIsAskedFor(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := newKey(t)
	for _, known := range []gossh.Signer{first, second} {
		dir := t.TempDir()
		v, err := newVerifier(&settings{host: "h", port: 22, cfg: Config{Log: func(string) {}},
			hostKeys: hostKeyFiles{own: knownFile(t, dir, knownhosts.Line([]string{"h:22"}, known.PublicKey()))}})
		if err != nil {
			t.Fatal(err)
		}
		if got := v.algorithms(); got[0] != known.PublicKey().Type() {
			t.Errorf("%s is known, %s is asked for first", known.PublicKey().Type(), got[0])
		}
		for _, a := range v.algorithms() {
			if strings.Contains(a, "cert") {
				t.Errorf("%s is asked for, though nobody could vouch for it", a)
			}
		}
	}
}

// An authority vouches for a host that was never met.
func TestHostCertificate(t *testing.T) {
	file, public := newKeyFile(t)
	s := startServer(t, public)
	authority, _ := newKey(t)
	cert := &gossh.Certificate{
		Key: s.key.PublicKey(), CertType: gossh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: gossh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewCertSigner(cert, s.key)
	if err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.key = signer })
	dir := t.TempDir()
	line := "@cert-authority " + knownhosts.Line([]string{s.addr}, authority.PublicKey())
	cfg := withConfig(t, s, dir, "StrictHostKeyChecking yes\nUserKnownHostsFile "+knownFile(t, dir, line), file)
	if _, err := met(t, cfg); err != nil {
		t.Error(err)
	}
	other, _ := newKey(t)
	knownFile(t, dir, "@cert-authority "+knownhosts.Line([]string{s.addr}, other.PublicKey()))
	if _, err := met(t, cfg); err == nil {
		t.Error("a certificate of an unknown authority was believed")
	}
}

func TestPinKeepsWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte("a line without an end"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"second", "third"} {
		if err := appendLine(path, line); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if want := "a line without an end\nsecond\nthird\n"; err != nil || string(content) != want {
		t.Errorf("got %q, %v, want %q", content, err, want)
	}
}

func knownFile(t *testing.T, dir, content string) string {
	t.Helper()
	path := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// withConfig is a Config that leaves all to an ssh configuration file.
func withConfig(t *testing.T, s *server, dir, content string, keyFiles ...string) Config {
	t.Helper()
	cfg := s.clientConfig(keyFiles...)
	cfg.KnownHostsFile = ""
	cfg.SSHConfigFile = filepath.Join(dir, "config")
	if err := os.WriteFile(cfg.SSHConfigFile, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	return cfg
}
