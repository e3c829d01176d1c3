//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostState is all on a host that provisioning might touch, and when its engine started.
const hostState = `cd / && find etc usr/bin usr/sbin var/lib/dpkg -xdev -type f ! -name '*.pid' -exec sha256sum {} + | sort -k 2 | sha256sum
find etc/docker etc/systemd etc/hosts etc/hostname -xdev -exec stat -c '%n %a %u %Y' {} + | sort
systemctl show docker -p ActiveEnterTimestampMonotonic -p MainPID`

// What the walkthrough does with a machine, on a rented server: from nothing, over all that may be wrong with it, to an engine on TLS.
func TestGenericMachine(t *testing.T) {
	w, err := newWorld("generic")
	if err != nil {
		t.Fatal(err)
	}
	h := startHost(t, 1)
	berth := func(args ...string) string { t.Helper(); return must(t, w.command("berth", args...)) }
	berthFails := func(wants []string, args ...string) {
		t.Helper()
		contains(t, "berth "+strings.Join(args[:2], " "), fails(t, w.command("berth", args...)), wants...)
	}
	resume := []string{"Go on with: berth provision web1", "berth rm web1"}
	wants := func(more ...string) []string { return append(more, resume...) }

	// The way in.
	stranger := filepath.Join(w.dir, "stranger")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger)
	for _, wrong := range []struct {
		wants []string
		flags []string
	}{
		{wants("10.98.0.11:22 does not let root in with", "authorized_keys"), []string{"--generic-ssh-key", stranger}},
		{wants("10.98.0.11:2222: connect: connection refused", "nothing listens on port 2222"), []string{"--generic-ssh-port", "2222"}},
		{wants("no route to host", "is it switched on"), []string{"--generic-ip-address", "10.98.0.99"}},
		{wants("user deb is not root", "sudo: a password is required", "NOPASSWD"), []string{"--generic-ssh-user", "deb"}},
	} {
		h.do(t, "echo 'deb ALL=(ALL) ALL' >/etc/sudoers.d/deb")
		out := fails(t, w.command("berth", append(h.flags(wrong.flags...), "web1")...))
		if wrong.flags[1] == "deb" {
			wrong.wants[0] = "user deb cannot become root"
		}
		contains(t, strings.Join(wrong.flags, " "), out, wrong.wants...)
		contains(t, "ls", berth("ls"), "web1", "Error", "provision the host")
		berth("rm", "-y", "web1")
	}
	h.do(t, "echo 'deb ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/deb")

	// The packages: a mirror that is away, then a disk that is full, then another program at work. Each attempt goes on from there.
	h.do(t, "echo 'deb [trusted=yes] http://10.98.0.1:9/debian ./' >/etc/apt/sources.list")
	create := append(h.flags("--generic-ssh-user", "deb", "--engine-install-url", "distro", "--engine-label", "size=xxl", "--engine-env", "FOO=a b$c%d"), "web1")
	berthFails(wants("install Docker: apt-get", "Failed to fetch http://10.98.0.1:9", "mirrors"), create...)
	h.do(t, "echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list; mount -t tmpfs -o size=100m none /var/cache")
	berthFails(wants("disk has 100 MiB left"), "provision", "web1")
	h.do(t, "umount /var/cache; mkdir -p /etc/docker; mount -t tmpfs -o size=4k none /etc/docker")
	lock := w.dir + "/lock.pl"
	if err := os.WriteFile(lock, []byte(`use Fcntl; open(F, "+>>", "/var/lib/dpkg/lock-frontend") or die; my $l = pack("s s l! l! i", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $l) or die; close(STDOUT); close(STDERR); sleep 4;`), 0o600); err != nil {
		t.Fatal(err)
	}
	holder := h.ssh(t.Context(), "cat >/tmp/holder.pl; nohup perl /tmp/holder.pl >/dev/null 2>&1 </dev/null & until grep -q POSIX /proc/locks; do sleep 0.1; done")
	program, err := os.Open(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	holder.Stdin = program
	must(t, holder)
	berthFails(wants("Waiting for another program to finish with the packages: perl /tmp/holder.pl", "upload the certificates", "No space left on device", "df -h"), "provision", "web1")
	h.do(t, "umount /etc/docker")
	contains(t, "provision", berth("provision", "web1"), "Docker is up and running!", "Docker 20.10")

	// M4, M11: the machine is as any other.
	contains(t, "ls", berth("ls"), "web1", "generic", "Running", "tcp://10.98.0.11:2376", "v20.10")
	w.useMachine(t, "web1")
	contains(t, "docker info", must(t, w.command("docker", "info")), "size=xxl", "provider=generic")
	contains(t, "the engine's environment", h.do(t, `tr '\0' '\n' </proc/$(systemctl show -p MainPID --value docker)/environ`), "\nFOO=a b$c%d")
	tree, err := busyboxTree()
	if err != nil {
		t.Fatal(err)
	}
	load := w.command("docker", "import", "-", "busybox:latest")
	load.Stdin = strings.NewReader(string(tree))
	must(t, load)
	if got := must(t, w.command("docker", "run", "--rm", "busybox", "sh", "-c", "hostname -i >/dev/null; echo from inside")); got != "from inside" {
		t.Errorf("docker run = %q", got)
	}
	if got := berth("ssh", "web1", "hostname; sudo -n id -u"); got != "web1\n0" {
		t.Errorf("ssh = %q, want the host called web1 and root behind sudo", got)
	}

	// Provisioning again changes nothing.
	before := h.do(t, hostState)
	berth("provision", "web1")
	berth("upgrade", "web1")
	if after := h.do(t, hostState); after != before {
		t.Errorf("provisioning again changed the host from\n%s\nto\n%s", before, after)
	}

	// New certificates, and another host at the address.
	berth("regenerate-certs", "-f", "web1")
	contains(t, "docker ps", must(t, w.command("docker", "ps")), "CONTAINER ID")
	h.do(t, "cp -a /etc/ssh /etc/ssh.old; rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; systemctl restart ssh")
	berthFails([]string{"the host key of 10.98.0.11 CHANGED", "ssh-keygen -R"}, "provision", "web1")
	h.do(t, "mv /etc/ssh /etc/ssh.new; mv /etc/ssh.old /etc/ssh; systemctl restart ssh")

	// A reboot; the engine comes with it.
	boot := h.do(t, "cut -d ' ' -f 22 /proc/1/stat")
	berth("restart", "web1")
	if again := h.do(t, "cut -d ' ' -f 22 /proc/1/stat"); again == boot {
		t.Error("the host did not restart")
	}
	contains(t, "ls", berth("ls"), "Running", "v20.10")

	// The host is not ours to delete.
	berth("rm", "-y", "web1")
	h.do(t, "docker info >/dev/null")
}

// useMachine points docker at a machine, as eval "$(berth env NAME)" does.
func (w *world) useMachine(t *testing.T, name string) {
	t.Helper()
	for line := range strings.Lines(must(t, w.command("berth", "env", name))) {
		if key, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "="); ok && strings.HasPrefix(key, "DOCKER_") {
			w.env = append(w.env, key+"="+strings.Trim(value, `"`))
		}
	}
}

// A script from the web, a Ctrl-C in its midst, and the way on from there. Then the host as it is, through SSH alone, in a fleet.
func TestGenericMachineInterruptedAndPlain(t *testing.T) {
	w, err := newWorld("plain")
	if err != nil {
		t.Fatal(err)
	}
	h := startHost(t, 2)
	asked, proceed := make(chan struct{}), make(chan struct{})
	url := serveScript(t, asked, proceed)
	create := w.command("berth", append(h.flags("--engine-install-url", url, "--no-context"), "web2")...)
	said := filepath.Join(w.dir, "said")
	log, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	create.Stdout, create.Stderr = log, log
	if err := create.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := create.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := create.Wait(); err == nil {
		t.Error("an interrupted create succeeded")
	}
	close(proceed)
	text, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the interrupted create", string(text), "interrupted", "Go on with: berth provision web2")
	contains(t, "ls", must(t, w.command("berth", "ls")), "web2", "Error", "provision the host")
	contains(t, "provision", must(t, w.command("berth", "provision", "web2")), "sh "+url, "Docker is up and running!")

	// The same host once more, changed by nobody.
	before := h.do(t, hostState)
	must(t, w.command("berth", append(h.flags("--no-install", "--no-context"), "plain")...))
	contains(t, "env", must(t, w.command("berth", "env", "plain")), `DOCKER_HOST="ssh://root@10.98.0.12"`, "unset DOCKER_TLS_VERIFY")
	contains(t, "ls", must(t, w.command("berth", "ls")), "ssh://root@10.98.0.12", "v20.10")
	must(t, w.command("berth", "provision", "plain"))
	if after := h.do(t, hostState); after != before {
		t.Errorf("a plain machine changed its host from\n%s\nto\n%s", before, after)
	}
	// In one fleet, one way in is enough: two would be one engine twice.
	must(t, w.command("berth", "rm", "-y", "web2"))
	if err := w.startServe(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.stopServe(); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, 20*time.Second, "the plain machine is in the fleet", func() bool {
		out, err := w.docker("info").Output()
		return err == nil && strings.Contains(string(out), "plain: ssh://root@10.98.0.12") && strings.Contains(string(out), "Healthy")
	})
	if err := w.loadImages("busybox:latest"); err != nil {
		t.Fatal(err)
	}
	if got := must(t, w.docker("run", "--rm", "busybox", "echo", "through SSH")); got != "through SSH" {
		t.Errorf("docker run = %q", got)
	}
	// Its ports answer here, also those of its loopback, over the same SSH connection; datagrams go beside it.
	w.portecho(t)
	must(t, w.docker("run", "-d", "--name", "ports", "-p", "8127:7", "-p", "127.0.0.1:8128:7", "-p", "8127:7/udp", "portecho"))
	for _, addr := range []string{"127.0.0.1:8127", "127.0.0.1:8128"} {
		counts(t, "what "+addr+" says through SSH", addr, 1<<20)
	}
	same(t, "what UDP says", echoed(t, "127.0.0.1:8127", "hello"), "hello")
	must(t, w.docker("rm", "-f", "ports"))
	// A user who may not speak to the engine.
	out := fails(t, w.command("berth", append(h.flags("--no-install", "--generic-ssh-user", "deb"), "outsider")...))
	contains(t, "the outsider's create", out, "permission denied", "usermod -aG docker deb")
}

// serveScript is an install script on the web. The first time, it takes until proceed is closed to arrive.
func serveScript(t *testing.T, asked, proceed chan struct{}) string {
	t.Helper()
	l, err := net.Listen("tcp", "10.98.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first := true
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if first {
			first = false
			close(asked)
			<-proceed
		}
		fmt.Fprint(rw, "set -e\napt-get -qq update\napt-get -qq -y --no-install-recommends install docker.io iptables\n")
	})}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }() //nolint:errcheck // it ends with Close
	t.Cleanup(func() { s.Close(); <-done })       //nolint:errcheck // the end of the test
	return "http://" + l.Addr().String() + "/install.sh"
}
