package ssh

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/net/nettest"
)

const sshdPath = "/usr/sbin/sshd"

// sshd is OpenSSH's server on the loopback, in a process namespace of its own: killing its first process ends all.
type sshd struct {
	t      *testing.T
	dir    string
	addr   string
	extra  string // configuration
	cmd    *exec.Cmd
	exited chan struct{}

	mu    sync.Mutex
	lines []string
}

func startSSHD(t *testing.T, allowed gossh.PublicKey, extra string) *sshd {
	t.Helper()
	if _, err := os.Stat(sshdPath); err != nil {
		t.Skipf("no OpenSSH server: %v (apt-get install openssh-server)", err)
	}
	if os.Getuid() != 0 {
		t.Skip("sshd in a namespace of its own needs root")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") // sshd cannot choose a port by itself
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	s := &sshd{t: t, dir: t.TempDir(), addr: addr, extra: extra}
	s.newHostKey()
	s.file("authorized_keys", string(gossh.MarshalAuthorizedKey(allowed)))
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *sshd) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *sshd) newHostKey() {
	_, content := newKey(s.t)
	s.file("host_key", string(content))
}

func (s *sshd) start() {
	s.t.Helper()
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	config := s.file("sshd_config", fmt.Sprintf("ListenAddress %s\nPort %s\nHostKey %s/host_key\nAuthorizedKeysFile %s/authorized_keys\n"+
		"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\nMaxStartups 100\n%s\n",
		host, port, s.dir, s.dir, s.extra))
	root, err := user.LookupId("0")
	if err != nil {
		s.t.Fatal(err)
	}
	// sshd insists on /run/sshd, which must not be left behind; and what root's shell does at its start is not for a test.
	s.cmd = exec.Command("/bin/sh", "-c", `mount --make-rprivate / && mount -t tmpfs tmpfs "$1" && mount -t tmpfs tmpfs /run &&
		mkdir /run/sshd && shift && exec "$0" "$@"`, sshdPath, root.HomeDir, "-D", "-e", "-f", config)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready := make(chan struct{})
	s.exited = make(chan struct{})
	go s.watch(stderr, ready)
	select {
	case <-ready:
	case <-s.exited:
		s.t.Fatalf("sshd ended:\n%s", s.log())
	case <-time.After(20 * time.Second):
		s.t.Fatalf("sshd does not listen:\n%s", s.log())
	}
}

func (s *sshd) watch(stderr io.Reader, ready chan<- struct{}) {
	defer close(s.exited)
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		s.mu.Lock()
		s.lines = append(s.lines, lines.Text())
		s.mu.Unlock()
		if strings.Contains(lines.Text(), "Server listening on") {
			close(ready)
		}
	}
	s.cmd.Wait()
}

func (s *sshd) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

func (s *sshd) kill() {
	s.cmd.Process.Kill()
	<-s.exited
}

func (s *sshd) logins() int { return strings.Count(s.log(), "Accepted publickey") }

func (s *sshd) clientConfig(keyFiles ...string) Config {
	cfg := (&server{t: s.t, addr: s.addr}).clientConfig(keyFiles...)
	cfg.User = "root"
	return cfg
}

// startReal starts an sshd and a client that it lets in.
func startReal(t *testing.T, extra string) (*sshd, *Client) {
	t.Helper()
	file, public := newKeyFile(t)
	s := startSSHD(t, public, extra)
	return s, newClient(t, s.clientConfig(file))
}

func TestOpenSSHConnIsANetConn(t *testing.T) {
	_, c := startReal(t, "")
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) { return dialPair(t, c, "unix") })
}

func TestOpenSSHCarriesHTTP(t *testing.T) {
	s, c := startReal(t, "")
	path := httpSocket(t)
	tr := &http.Transport{DialContext: dialer(c, path), DisableKeepAlives: true}
	client := &http.Client{Transport: tr}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { getHello(t, client) })
	}
	wg.Wait()
	if n := s.logins(); n != 1 {
		t.Errorf("%d connections for 100 requests, want 1", n)
	}
}

func TestOpenSSHHalfClose(t *testing.T) {
	_, c := startReal(t, "")
	path := socket(t, func(conn net.Conn) {
		if all, err := io.ReadAll(conn); err == nil {
			conn.Write(bytes.ToUpper(all))
		}
	})
	conn, err := c.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	big := strings.Repeat("hello ", 1<<20)
	if _, err := io.WriteString(conn, big); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != strings.ToUpper(big) {
		t.Errorf("%d bytes, %v, want %d", len(got), err, len(big))
	}
}

func TestOpenSSHReconnect(t *testing.T) {
	s, c := startReal(t, "")
	path := httpSocket(t)
	client := &http.Client{Transport: &http.Transport{DialContext: dialer(c, path), DisableKeepAlives: true}}
	getHello(t, client)
	conn, err := c.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.kill()
	_, err = conn.Read(make([]byte, 1))
	wantError(t, err, "ssh connection lost")
	s.start()
	getHello(t, client)

	s.kill()
	s.newHostKey()
	s.start()
	_, err = c.Dial(t.Context(), "unix", path)
	wantError(t, err, "CHANGED", "ssh-keygen -R")
}

func TestOpenSSHWrongKey(t *testing.T) {
	_, right := newKeyFile(t)
	s := startSSHD(t, right, "")
	file, public := newKeyFile(t)
	_, err := newClient(t, s.clientConfig(file)).Dial(t.Context(), "unix", "/x")
	wantError(t, err, s.addr+" does not let root in with "+file+" (ssh-ed25519 "+gossh.FingerprintSHA256(public)+")")
}

func TestOpenSSHRun(t *testing.T) {
	_, c := startReal(t, "")
	var out, errs strings.Builder
	if err := c.Run(t.Context(), "cat; echo warning >&2", strings.NewReader("input"), &out, &errs); err != nil {
		t.Fatal(err)
	}
	if out.String() != "input" || errs.String() != "warning\n" {
		t.Errorf("out %q, err %q", out.String(), errs.String())
	}
	err := c.Run(t.Context(), "echo reason >&2; exit 7", nil, nil, nil)
	wantError(t, err, "echo reason >&2; exit 7: exit status 7: reason")
	err = c.Run(t.Context(), "kill -TERM $$", nil, nil, nil)
	wantError(t, err, "ended by signal TERM")
	if exit, ok := errors.AsType[*ExitError](err); !ok || exit.Status != 143 {
		t.Errorf("%+v, want status 143", exit)
	}
	err = c.Run(t.Context(), "echo $0 && false", nil, &out, nil)
	wantError(t, err, "exit status 1")
}

// A reach through two hosts, known only from the configuration.
func TestOpenSSHJump(t *testing.T) {
	file, public := newKeyFile(t)
	outer, inner, last := startSSHD(t, public, ""), startSSHD(t, public, ""), startSSHD(t, public, "")
	home := t.TempDir()
	t.Setenv("HOME", home)
	port := func(s *sshd) string { _, p, _ := net.SplitHostPort(s.addr); return p }
	config := fmt.Sprintf("Host outer\nPort %s\nHost inner\nPort %s\nHost last\nPort %s\nProxyJump outer,root@inner\nHost circle\nProxyJump circle\nHost dead\nProxyJump root@127.0.0.1:1\n"+
		"Host *\nHostName 127.0.0.1\nUser root\nIdentityFile %s\nIdentityAgent none\n", port(outer), port(inner), port(last), file)
	path := filepath.Join(home, "config")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Host: "last", SSHConfigFile: path}
	c := newClient(t, cfg)
	client := &http.Client{Transport: &http.Transport{DialContext: dialer(c, httpSocket(t)), DisableKeepAlives: true}}
	for range 3 {
		getHello(t, client)
	}
	for name, s := range map[string]*sshd{"outer": outer, "inner": inner, "last": last} {
		if n := s.logins(); n != 1 {
			t.Errorf("%d logins at %s, want 1\n%s", n, name, s.log())
		}
	}
	known, err := os.ReadFile(filepath.Join(home, ".ssh", "known_hosts"))
	if err != nil || bytes.Count(known, []byte("\n")) != 3 {
		t.Errorf("known hosts %q, %v, want three", known, err)
	}
	outer.kill()
	_, err = c.Dial(t.Context(), "unix", "/x")
	wantError(t, err, "jump host root@127.0.0.1:"+port(outer), "refused")

	cfg.Host = "circle"
	_, err = newClient(t, cfg).Dial(t.Context(), "unix", "/x")
	wantError(t, err, "jump in a circle")
	cfg.Host = "dead"
	_, err = newClient(t, cfg).Dial(t.Context(), "unix", "/x")
	wantError(t, err, "jump host root@127.0.0.1:1", "refused")
}

func TestOpenSSHWithoutStreamlocal(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skipf("no docker command: %v", err)
	}
	_, c := startReal(t, "AllowStreamLocalForwarding no\nSetEnv PATH="+filepath.Dir(docker)+":/usr/bin:/bin")
	path := httpSocket(t)
	client := &http.Client{Transport: &http.Transport{DialContext: dialer(c, path), DisableKeepAlives: true}}
	getHello(t, client)

	conn, err := c.Dial(t.Context(), "unix", path+"-none")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	wantError(t, err, "sshd does not forward to "+path+"-none", "system dial-stdio: exit status 1")
}
