//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// portecho makes the image of test/clients/portecho on all nodes, once.
func (w *world) portecho(t *testing.T) {
	t.Helper()
	if do(t, w.docker("image", "inspect", "portecho")).code == 0 {
		return
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", dir+"/portecho", "berth/test/clients/portecho")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	must(t, build)
	must(t, w.at("tar c -C "+dir+` portecho | docker import -c 'CMD ["/portecho"]' -c 'EXPOSE 7/tcp 7/udp 19/tcp' - portecho`))
}

// counted sends some bytes, ends its side and returns what the other one says.
func counted(t *testing.T, addr string, bytes int) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, bytes)); err != nil {
		return err.Error()
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err.Error()
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// counts waits until a container that was just started counts bytes: it is started before its program listens, and until then its port
// refuses.
func counts(t *testing.T, what, addr string, bytes int) {
	t.Helper()
	eventually(t, 5*time.Second, what, func() bool { return counted(t, addr, bytes) == strconv.Itoa(bytes) })
}

// echoed sends a datagram, a few times if it must, and returns the answer.
func echoed(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 1<<16)
	for range 10 {
		_, _ = io.WriteString(c, text) // a lost one is sent again
		if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(buf); err == nil {
			return string(buf[:n])
		}
	}
	return "no answer"
}

func refused(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err != nil
}

// A port of a container on any node answers on this computer, too.
func TestPortsAnswerAtTheEndpoint(t *testing.T) {
	w := fleet(t)
	w.portecho(t)
	must(t, w.docker(args("run -d --name far -p 8123:7 -p 8123:7/udp", on("host3"), "portecho")...))
	counts(t, "what TCP says", "127.0.0.1:8123", 1<<20)
	same(t, "what UDP says", echoed(t, "127.0.0.1:8123", "hello"), "hello")
	contains(t, "docker port", must(t, w.docker("port", "far", "7/tcp")), "0.0.0.0:8123")
	contains(t, "docker ps", must(t, w.docker("ps", "--filter", "name=far", "--format", "{{.Ports}}")), "0.0.0.0:8123->7/tcp", "0.0.0.0:8123->7/udp")

	// Twice the same port on two nodes is no error by itself, as with Swarm; what is told leads to both.
	r := do(t, w.docker(args("run -d --name near -p 8123:7", on("host1"), "portecho")...))
	same(t, "exit status of a second with the port", r.code, 0)
	contains(t, "what it warns of", r.err, "Port 8123 does not lead to this container", "container far on node host3")
	ip := must(t, w.command("berth", "ip", "host1"))
	same(t, "docker port of the second", must(t, w.docker("port", "near", "7/tcp")), ip+":8123")
	ports := must(t, w.docker("ps", "--filter", "name=near", "--format", "{{.Ports}}"))
	contains(t, "docker ps of the second", ports, ip+":8123->7/tcp")
	lacks(t, "docker ps of the second", ports, "0.0.0.0", "[::]")
	counts(t, "what the second says there", ip+":8123", 5)

	// The port follows.
	must(t, w.docker("stop", "-t", "0", "far"))
	eventually(t, 5*time.Second, "the port leads to the other container", func() bool {
		return strings.HasPrefix(must(t, w.docker("port", "near", "7/tcp")), "0.0.0.0:8123") && counted(t, "127.0.0.1:8123", 7) == "7"
	})
	must(t, w.docker("rm", "-f", "near", "far"))
	eventually(t, 5*time.Second, "the port is closed", func() bool { return refused("127.0.0.1:8123") })

	// Ports that nobody named.
	seen := map[string]bool{}
	for i, flag := range []string{"-p 7", "-P", "-p 127.0.0.1::7", "-p 7"} {
		name := fmt.Sprintf("any%d", i)
		must(t, w.docker(args("run -d --name", name, flag, "portecho")...))
		addr := must(t, w.docker("port", name, "7/tcp"))
		addr, _, _ = strings.Cut(addr, "\n")
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		seen[port] = true
		if i != 2 { // nothing but SSH leads to the loopback of a node
			counts(t, "what "+name+" says", "127.0.0.1:"+port, 3)
		}
	}
	same(t, "different ports", len(seen), 4)

	// Another program has the port; and the manager dies.
	l, err := net.Listen("tcp", "127.0.0.1:8124")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	contains(t, "a port that another program has", do(t, w.docker(args("run -d --name other -p 8124:7", on("host2"), "portecho")...)).err, "another program has it")
	info := do(t, w.docker("info"))
	contains(t, "docker info", info.out+info.err, "published ports do not answer on this computer")
	must(t, w.docker(args("run -d --name stays -p 8125:7", on("host2"), "portecho")...))
	if err := w.serve.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = w.stopServeHard() // it was killed, and says so
	same(t, "no manager, no port", refused("127.0.0.1:8125"), true)
	if err := w.startServe("--publish-at-endpoint"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.stopServe(); err != nil {
			t.Error(err)
		}
		if err := w.startServe(); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, 5*time.Second, "the port is back", func() bool { return counted(t, "127.0.0.1:8125", 9) == "9" })

	// Where it is asked for, a conflict is an error, at create and at start.
	for what, port := range map[string]string{"a container's": "8125", "a program's": "8124"} {
		contains(t, "a create with "+what+" port", fails(t, w.docker(args("run -d --name never -p", port+":7", on("host1"), "portecho")...)), "port is already allocated", "0.0.0.0:"+port)
		contains(t, "nothing is left of it", fails(t, w.docker("inspect", "never")), "No such object")
	}
	must(t, w.docker(args("create --name waits -p 8126:7", on("host1"), "portecho")...))
	must(t, w.docker(args("run -d --name first -p 8126:7", on("host2"), "portecho")...))
	contains(t, "start of a container whose port is taken", fails(t, w.docker("start", "waits")), "Bind for 0.0.0.0:8126 failed: port is already allocated: it leads to container first on node host2")
	must(t, w.docker("rm", "-f", "first"))
	must(t, w.docker("start", "waits"))
	counts(t, "who answers then", "127.0.0.1:8126", 4)

	// As Testcontainers and tests with docker-py do it.
	must(t, w.python(`
import socket
c = client.containers.run('portecho', ports={'7/tcp': None}, detach=True)
c.reload()
port = int(c.ports['7/tcp'][0]['HostPort'])
s = socket.create_connection(('localhost', port), 5); s.sendall(b'12345'); s.shutdown(socket.SHUT_WR)
assert s.makefile().read() == '5\n'
c.remove(force=True)
`))
}

// received is how fast bytes come from port 19 of portecho.
func received(t *testing.T, addr string, bytes int64) float64 {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if _, err := fmt.Fprintf(c, "%d\n", bytes); err != nil {
		t.Fatal(err)
	}
	buf, sum := make([]byte, 1<<20), int64(0)
	for {
		n, err := c.Read(buf)
		sum += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	same(t, "bytes from "+addr, sum, bytes)
	return float64(bytes) / (1 << 20) / time.Since(began).Seconds()
}

// To forward costs little: the kernel moves the bytes. With BERTH_SPEED it is measured for docs/ingress.md, on the bare memory of this
// computer, where everything takes processor time from everything else, and over a link as there are between computers.
func TestSpeedOfForwardedPorts(t *testing.T) {
	w := fleet(t)
	w.portecho(t)
	must(t, w.docker(args("run -d --name fast -p 8141:19", on("host3"), "portecho")...))
	ip := must(t, w.command("berth", "ip", "host3"))
	measure := func(what string, size int64, rounds int) (direct, through float64) {
		for range rounds { // in turn, since what else the computer does changes
			direct = max(direct, received(t, ip+":8141", size))
			through = max(through, received(t, "127.0.0.1:8141", size))
		}
		t.Logf("%s, %d MiB: %.0f MiB/s straight from the node, %.0f MiB/s through berth (%.0f %%)", what, size>>20, direct, through, 100*through/direct)
		return direct, through
	}
	if direct, through := measure("memory", 128<<20, 3); through < direct/3 {
		t.Error("forwarding takes two thirds of the speed, or more")
	}
	if os.Getenv("BERTH_SPEED") == "" {
		return
	}
	measure("memory", 1<<30, 6)
	for _, rate := range []string{"2gbit", "1gbit"} {
		must(t, w.command("berth", "ssh", "host3", "tc qdisc replace dev $(ip -o route get 10.213.77.1 | sed 's/.* dev \\([^ ]*\\).*/\\1/') root tbf rate "+rate+" burst 4mb latency 50ms"))
		if direct, through := measure("link of "+rate, 1<<30, 2); through < 0.75*direct {
			t.Errorf("over a link of %s more than a quarter of the speed is lost", rate)
		}
	}
	must(t, w.command("berth", "ssh", "host3", "tc qdisc del dev $(ip -o route get 10.213.77.1 | sed 's/.* dev \\([^ ]*\\).*/\\1/') root"))
}
