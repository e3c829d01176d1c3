//go:build e2e

package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"berth/internal/cert"
)

// tlsArgs are the flags with which a manager reaches the shared machines by their addresses.
func (w *world) tlsArgs() []string {
	certs := filepath.Join(w.dir, ".docker", "machine", "certs")
	return []string{"--tlsverify", "--tlscacert", certs + "/ca.pem", "--tlscert", certs + "/cert.pem", "--tlskey", certs + "/key.pem"}
}

// engineSocket is a machine's own socket, seen from outside of its box.
func (w *world) engineSocket(t *testing.T, name string) string {
	return fmt.Sprintf("/proc/%d/root/run/docker.sock", w.dockerd(t, name))
}

// awaitNodes waits until exactly these nodes are healthy.
func (w *world) awaitNodes(t *testing.T, names ...string) {
	t.Helper()
	eventually(t, 15*time.Second, fmt.Sprintf("the nodes are %v", names), func() bool {
		var healthy []string
		for _, n := range w.nodeList(t) {
			if n.State != "Healthy" {
				return false
			}
			healthy = append(healthy, n.Name)
		}
		return fmt.Sprint(lines(strings.Join(healthy, "\n"))) == fmt.Sprint(lines(strings.Join(names, "\n")))
	})
}

// nodes:// with a range, over mutual TLS.
func TestNodesURL(t *testing.T) {
	w := fleet(t)
	second := w.secondServe(t, append(w.tlsArgs(), "nodes://10.213.77.[2:4]:2376")...)
	second.awaitNodes(t, "host1", "host2", "host3")
	must(t, second.docker("run", "--rm", "busybox", "true"))
	one := w.secondServe(t, append(w.tlsArgs(), must(t, w.command("berth", "ip", "host2"))+":2376")...)
	one.awaitNodes(t, "host2")
	contains(t, "an unknown source", fails(t, w.command("berth", "serve", "--no-context", "-H", "unix://"+t.TempDir()+"/s", "mesos://x")), "mesos", "not supported")
}

// file:// is followed as it changes.
func TestFileURL(t *testing.T) {
	w := fleet(t)
	ip := func(name string) string { return must(t, w.command("berth", "ip", name)) + ":2376\n" }
	file := filepath.Join(write(t, "nodes", "# the first\n"+ip("host1")), "nodes")
	second := w.secondServe(t, append(w.tlsArgs(), "file://"+file)...)
	second.awaitNodes(t, "host1")
	change := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change(ip("host1") + ip("host3"))
	second.awaitNodes(t, "host1", "host3")
	change(ip("host2"))
	second.awaitNodes(t, "host2")
	must(t, second.docker("run", "--rm", "busybox", "true"))
}

// unix:// for a single engine.
func TestUnixURL(t *testing.T) {
	w := fleet(t)
	second := w.secondServe(t, "unix://"+w.engineSocket(t, "host2"))
	second.awaitNodes(t, "host2")
	same(t, "input and output", must(t, feed(second.docker("run", "-i", "--rm", "busybox", "cat"), strings.NewReader("hi\n"))), "hi")
}

// The store is followed as machines come and go.
func TestStoreIsFollowed(t *testing.T) {
	w := fleet(t)
	w.awaitNodes(t, "host1", "host2", "host3")
	must(t, w.command("berth", "create", "-d", "local", "--engine-label", "new=yes", "late"))
	t.Cleanup(func() {
		if do(t, w.command("berth", "status", "late")).code == 0 {
			must(t, w.command("berth", "rm", "-y", "late"))
		}
	})
	w.awaitNodes(t, "host1", "host2", "host3", "late")
	// The image is carried to the new machine, which has none.
	same(t, "a run on it", must(t, w.docker("run", "--name", "onlate", "-e", "constraint:new==yes", "busybox", "hostname")), must(t, w.docker("inspect", "--format", "{{.Config.Hostname}}", "onlate")))
	must(t, w.docker("rm", "onlate"))
	must(t, w.command("berth", "rm", "-y", "late"))
	w.awaitNodes(t, "host1", "host2", "host3")
	contains(t, "docker info", must(t, w.docker("info")), "Nodes: 3")
}

// The endpoint over TCP: clients need a certificate, and without TLS it is not served beyond this computer.
func TestTLSFront(t *testing.T) {
	w := fleet(t)
	for _, host := range []string{"tcp://0.0.0.0:0", "tcp://:2375", "tcp://" + bridge + ":2375", "10.213.77.1:2375"} {
		r := do(t, w.command("berth", "serve", "--no-context", "-H", host))
		if r.code == 0 || !strings.Contains(r.err, "needs mutual TLS") {
			t.Errorf("berth serve -H %s: exit %d\n%s", host, r.code, r.err)
		}
	}
	contains(t, "TLS that verifies nobody", fails(t, w.command("berth", append([]string{"serve", "--no-context", "-H", "tcp://0.0.0.0:0", "--tls"}, w.tlsArgs()[3:]...)...)), "needs mutual TLS")

	addr := net.JoinHostPort("127.0.0.1", freePort(t))
	second := w.secondServe(t, append(serverTLS(t, w), "-H", "tcp://"+addr, "--engine-plain", "unix://"+w.engineSocket(t, "host1"))...)
	certs := filepath.Join(w.dir, ".docker", "machine", "certs")
	client := func(words ...string) *exec.Cmd {
		return w.command("docker", append([]string{"-H", "tcp://" + addr, "--tlsverify", "--tlscacert", certs + "/ca.pem", "--tlscert", certs + "/cert.pem", "--tlskey", certs + "/key.pem"}, words...)...)
	}
	second.awaitNodes(t, "host1")
	contains(t, "docker info over TLS", must(t, client("info")), "Nodes: 1")
	for range 5 {
		same(t, "input over TLS", must(t, feed(client("run", "-i", "--rm", "busybox", "cat"), strings.NewReader("hi\n"))), "hi")
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // who asks does not matter here
	if res, err := stranger.Get("https://" + addr + "/info"); err == nil {
		t.Errorf("one without a certificate got %s", res.Status)
		res.Body.Close()
	}
	if res, err := http.Get("http://" + addr + "/info"); err == nil {
		if res.StatusCode == http.StatusOK {
			t.Errorf("one without TLS got %s", res.Status)
		}
		res.Body.Close()
	}
	// A proper client of docker-py, too.
	must(t, w.command("/usr/bin/python3", "-c", fmt.Sprintf(`
import docker
c = docker.DockerClient(base_url='https://%s', tls=docker.tls.TLSConfig(ca_cert='%s/ca.pem', client_cert=('%s/cert.pem', '%s/key.pem'), verify=True))
assert c.containers.run('busybox', 'echo over tls', remove=True) == b'over tls\n'
`, addr, certs, certs, certs)))
	// Loopback needs no TLS.
	plain := net.JoinHostPort("127.0.0.1", freePort(t))
	w.secondServe(t, "-H", "tcp://"+plain)
	contains(t, "docker info over loopback", must(t, w.command("docker", "-H", "tcp://"+plain, "info")), "Nodes: 3")
}

// serverTLS makes flags with a manager's certificate for 127.0.0.1, signed by the store's authority.
func serverTLS(t *testing.T, w *world) []string {
	t.Helper()
	dir := t.TempDir()
	certs := filepath.Join(w.dir, ".docker", "machine", "certs")
	var authority cert.Pair
	var err error
	for name, into := range map[string]*[]byte{"ca.pem": &authority.Cert, "ca-key.pem": &authority.Key} {
		if *into, err = os.ReadFile(filepath.Join(certs, name)); err != nil {
			t.Fatal(err)
		}
	}
	server, err := cert.ECDSA.NewManager(authority, "e2e", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"cert.pem": server.Cert, "key.pem": server.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--tlsverify", "--tlscacert", certs + "/ca.pem", "--tlscert", dir + "/cert.pem", "--tlskey", dir + "/key.pem"}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// --use switches the client, and only then.
func TestUse(t *testing.T) {
	w := fleet(t)
	dir := t.TempDir()
	other := &world{dir: dir, env: append(append([]string{}, w.env...), "HOME="+dir, "MACHINE_STORAGE_PATH="+filepath.Join(w.dir, ".docker", "machine")), log: filepath.Join(dir, "log"), socket: filepath.Join(dir, "d.sock")}
	t.Cleanup(func() {
		if err := other.stopServe(); err != nil {
			t.Error(err)
		}
	})
	if err := other.startServe(); err != nil {
		t.Fatal(err)
	}
	same(t, "the context without --use", must(t, other.sh("docker context inspect --format '{{.Name}}'")), "default")
	if err := other.stopServe(); err != nil {
		t.Fatal(err)
	}
	if err := other.startServe("--use"); err != nil {
		t.Fatal(err)
	}
	same(t, "the context with --use", must(t, other.sh("docker context inspect --format '{{.Name}}'")), "berth")
	contains(t, "docker info", must(t, other.sh("docker info")), "Nodes: 3")
}

// ssh:// engines, with the user's ssh configuration: one connection a host, however many requests.
func TestSSH(t *testing.T) {
	w := fleet(t)
	sshd := startSSHD(t)
	front, connections := countingProxy(t, sshd.addr)
	host, port, err := net.SplitHostPort(front)
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(w.dir, ".ssh")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	config := fmt.Sprintf("Host gpu1\n  HostName %s\n  Port %s\n  User root\n  IdentityFile %s\n", host, port, sshd.clientKey)
	known := fmt.Sprintf("[%s]:%s %s", host, port, gossh.MarshalAuthorizedKey(sshd.hostKey))
	for name, text := range map[string]string{"config": config, "known_hosts": known} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second := w.secondServe(t, "ssh://gpu1"+w.engineSocket(t, "host3"))
	second.awaitNodes(t, "host3")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			out, err := feed(second.docker("run", "-i", "--rm", "busybox", "cat"), strings.NewReader("hi\n")).Output()
			if err != nil || string(out) != "hi\n" {
				t.Errorf("run %d over ssh: %q, %v", i, out, err)
			}
		})
	}
	wg.Wait()
	same(t, "exit code over ssh", do(t, second.docker("run", "--rm", "busybox", "sh", "-c", "exit 3")).code, 3)
	same(t, "SSH connections for all of it", connections.Load(), 1)
	if out, err := exec.Command("pgrep", "-x", "ssh").Output(); err == nil {
		t.Errorf("there are ssh processes: %s", out)
	}
	// A host whose key is another than the one it had is not trusted.
	if err := second.stopServe(); err != nil {
		t.Fatal(err)
	}
	wrong := newHostKey(t)
	if err := os.WriteFile(filepath.Join(home, "known_hosts"), fmt.Appendf(nil, "[%s]:%s %s", host, port, gossh.MarshalAuthorizedKey(wrong.PublicKey())), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, ".docker", "machine", "known_hosts")); err != nil {
		t.Fatal(err)
	}
	third := w.secondServe(t, "ssh://gpu1"+w.engineSocket(t, "host3"))
	eventually(t, 10*time.Second, "docker info tells of the key", func() bool { return strings.Contains(do(t, third.docker("info")).out, "host key") })
	lacks(t, "docker info", must(t, third.docker("info")), "Status: Healthy")
}

// sshServer is OpenSSH's server inside the suite's namespaces, with keys of its own.
type sshServer struct {
	addr, clientKey string
	hostKey         gossh.PublicKey
}

func startSSHD(t *testing.T) *sshServer {
	t.Helper()
	program, err := exec.LookPath("sshd") // which wants its whole path
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &sshServer{addr: net.JoinHostPort("127.0.0.1", freePort(t)), clientKey: filepath.Join(dir, "id")}
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	hostKey := writeKey(t, filepath.Join(dir, "host_key"))
	client := writeKey(t, s.clientKey)
	s.hostKey = hostKey.PublicKey()
	if err := os.WriteFile(filepath.Join(dir, "authorized_keys"), gossh.MarshalAuthorizedKey(client.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("ListenAddress %s\nPort %s\nHostKey %[3]s/host_key\nAuthorizedKeysFile %[3]s/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n", host, port, dir)
	if err := os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // the suite's own /run; sshd insists on it
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	out := outputTo(t, cmd)
	background(t, cmd)
	eventually(t, 10*time.Second, "sshd listens: "+out.String(), func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

func newHostKey(t *testing.T) gossh.Signer {
	t.Helper()
	return writeKey(t, filepath.Join(t.TempDir(), "key"))
}

func writeKey(t *testing.T, path string) gossh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// countingProxy stands before a server and counts the connections to it.
func countingProxy(t *testing.T, to string) (string, *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var count atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			wg.Go(func() { splice(c, to) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait() // the manager, which holds the connections, is ended before
	})
	return l.Addr().String(), &count
}

func splice(c net.Conn, to string) {
	defer c.Close()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{c, up}, {up, c}} {
		go func() {
			_, _ = io.Copy(pair[1], pair[0]) // the end of either side is the end of both
			done <- struct{}{}
		}()
	}
	<-done
}
