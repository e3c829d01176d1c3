//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// machineFact reads a driver's field of a machine.
func (w *world) machineFact(t *testing.T, name, field string) string {
	t.Helper()
	return must(t, w.command("berth", "inspect", "-f", "{{.Driver."+field+"}}", name))
}

// dockerd finds the process of a machine's engine, as the test's process namespace counts it.
func (w *world) dockerd(t *testing.T, name string) int {
	t.Helper()
	out, err := exec.CommandContext(context.Background(), "pgrep", "-x", "dockerd").Output()
	if err != nil {
		t.Fatalf("pgrep: %v", err)
	}
	for _, f := range strings.Fields(string(out)) {
		host, err := exec.CommandContext(context.Background(), "nsenter", "--target", f, "--uts", "hostname").Output()
		if err == nil && strings.TrimSpace(string(host)) == name {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no dockerd of %s", name)
	return 0
}

// Three engines fail in three ways at once: what is left answers within two seconds and says what is wrong, and each is back
// within five seconds of its return, with nothing lost.
func TestTrouble(t *testing.T) {
	w, err := newWorld("trouble")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("berth serve said:\n%s", w.logTail())
		}
		if err := w.down(); err != nil {
			t.Error(err)
		}
	})
	names := []string{"t1", "t2", "t3", "t4"}
	if err := w.up(names, "--local-subnet", "10.213.78.0/24"); err != nil {
		t.Fatal(err)
	}
	if err := w.loadImages("busybox:latest"); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		must(t, w.docker("run", "-d", "--restart", "always", "--label", "test=kept", "--name", fmt.Sprintf("kept%d", i), "busybox", "sleep", "100000"))
	}
	if got := w.nodes(t, "label=test=kept"); len(got) != 4 {
		t.Fatalf("8 containers are on %v", got)
	}

	// t1 is killed, t2 stands still, t3 is cut off.
	if err := syscall.Kill(w.dockerd(t, "t1"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	frozen := w.dockerd(t, "t2")
	if err := syscall.Kill(frozen, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	veth, err := netlink.LinkByName(w.machineFact(t, "t3", "HostVeth"))
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetDown(veth); err != nil {
		t.Fatal(err)
	}
	for i := range 6 { // at once, while nobody knows yet, and later
		for _, args := range [][]string{{"ps"}, {"info"}, {"run", "-d", "--label", "test=after", "--name", fmt.Sprintf("after%d", i), "busybox", "sleep", "100000"}} {
			r := do(t, w.docker(args...))
			if r.code != 0 || r.took > 2*time.Second {
				t.Errorf("round %d: docker %s: exit %d after %s, want 0 within 2s\n%s", i, args[0], r.code, r.took, r.err)
			}
		}
	}
	if got := w.nodes(t, "label=test=after"); got["t4"] != 6 {
		t.Errorf("containers made meanwhile are on %v, want all on t4", got)
	}
	eventually(t, 10*time.Second, "docker info names all three", func() bool {
		r := do(t, w.docker("info"))
		return strings.Count(r.out, "Status: Unhealthy") == 3
	})
	contains(t, "docker ps -a", must(t, w.docker("ps", "-a")), "Host Down")
	contains(t, "docker inspect on a lost node", fails(t, w.docker("inspect", firstOn(t, w, "t2"))), "unhealthy node t2")

	// Each comes back.
	back := func(name string, heal func()) {
		heal()
		eventually(t, 5*time.Second, name+" is healthy again", func() bool {
			out := do(t, w.docker("info", "--format", "{{json .SystemStatus}}")).out
			return healthyIn(t, out, name)
		})
	}
	back("t2", func() {
		if err := syscall.Kill(frozen, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	})
	back("t3", func() {
		if err := netlink.LinkSetUp(veth); err != nil {
			t.Fatal(err)
		}
	})
	must(t, w.command("berth", "start", "t1"))
	back("t1", func() {})
	eventually(t, 20*time.Second, "all eight run again, and the six", func() bool {
		return len(strings.Fields(must(t, w.docker("ps", "-q", "--filter", "status=running")))) == 14
	})
	names14 := strings.Fields(must(t, w.docker("ps", "-a", "--format", "{{.Names}}")))
	if len(names14) != 14 {
		t.Errorf("%d containers in all: %v, want 14 and no double", len(names14), names14)
	}
	for i := range 4 { // spread fills the emptier ones again
		must(t, w.docker("run", "-d", "--label", "test=again", "--name", fmt.Sprintf("again%d", i), "busybox", "sleep", "100000"))
	}
	if got := w.nodes(t, "label=test=again"); got["t4"] != 0 {
		t.Errorf("after the return t4, the fullest, was still chosen: %v", got)
	}
}

func firstOn(t *testing.T, w *world, node string) string {
	t.Helper()
	ids := strings.Fields(must(t, w.docker("ps", "-aq", "--filter", "node="+node)))
	if len(ids) == 0 {
		t.Fatalf("no container on %s", node)
	}
	return ids[0]
}

// healthyIn reads the node table of docker info.
func healthyIn(t *testing.T, table, node string) bool {
	t.Helper()
	var rows [][2]string
	if err := json.Unmarshal([]byte(table), &rows); err != nil {
		t.Fatalf("node table %q: %v", table, err)
	}
	for i, r := range rows {
		if strings.TrimSpace(r[0]) == node && i+2 < len(rows) {
			return rows[i+2][1] == "Healthy"
		}
	}
	return false
}

// Names are unique over the fleet under 64 concurrent creates.
func TestConcurrentCreates(t *testing.T) {
	w := fleet(t)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.socket)
	}}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			body := strings.NewReader(`{"Image":"busybox","Cmd":["true"]}`)
			res, err := client.Post("http://berth/v1.41/containers/create?name=same", "application/json", body)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			codes[res.StatusCode]++
		})
	}
	wg.Wait()
	if codes[201] != 1 || codes[409] != 63 {
		t.Errorf("statuses of 64 creates of one name: %v, want one 201 and 63 times 409", codes)
	}
	if got := strings.Fields(must(t, w.docker("ps", "-aq"))); len(got) != 1 {
		t.Errorf("%d containers exist", len(got))
	}
}
