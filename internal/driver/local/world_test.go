package local

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// world is another computer: a namespace with one address, which knows no way back to the boxes.
const world = "198.51.100.1"

// worldName is the namespace's, for the tests that a process runs.
func worldName(runner int) string { return fmt.Sprintf("btest-%d", runner) }

func newWorld(t *testing.T) netns.NsHandle {
	t.Helper()
	const near = "world0"
	name := worldName(os.Getppid())
	ns, err := ensureNetNS(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ns.Close(), deleteLink(near), deleteNetNS(name)); err != nil {
			t.Error(err)
		}
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name = near
	cable := netlink.NewVeth(attrs)
	cable.PeerName, cable.PeerNamespace = "eth0", netlink.NsFd(int(ns))
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	there, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	end, err := there.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		netlink.AddrAdd(cable, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr("198.51.100.2"), 24)}), netlink.LinkSetUp(cable),
		there.AddrAdd(end, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr(world), 24)}), there.LinkSetUp(end),
	)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// listenIn listens in another namespace.
func listenIn(t *testing.T, ns netns.NsHandle, address string) net.Listener {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", address)
	if back := netns.Set(home); back != nil {
		t.Fatal(back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestBoxesReachTheWorldAndEachOther also where the computer forwards nothing by itself, as with a Docker Engine of its own.
func TestBoxesReachTheWorldAndEachOther(t *testing.T) {
	needEngine(t)
	for _, policy := range []string{"DROP", "ACCEPT"} {
		if out, err := exec.Command("iptables", "-P", "FORWARD", policy).CombinedOutput(); err != nil {
			t.Fatalf("iptables: %v\n%s", err, out)
		}
		if policy == "DROP" {
			defer func() { _ = exec.Command("iptables", "-P", "FORWARD", "ACCEPT").Run() }()
		}
		t.Run("policy "+policy, testReach)
	}
}

func testReach(t *testing.T) {
	listener := listenIn(t, newWorld(t), world+":8000")
	served := make(chan struct{})
	go func() { // answers each caller with its own address
		defer close(served)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host) // the container's output shows whether it came
			_ = c.Close()
		}
	}()
	defer func() { _ = listener.Close(); <-served }()

	s := newStore(t)
	a := newHost(t, s, s.spec(t, "a"))
	a.load()
	call := []string{"run", "--rm", "box", "busybox", "timeout", "20", "busybox"}
	if got, want := a.docker(append(call, "nc", world, "8000")...), "198.51.100.2"; got != want {
		t.Errorf("the world is called by %q, want this computer's %s", got, want)
	}
	b := newHost(t, s, s.spec(t, "b"))
	b.load()
	b.docker("run", "-d", "-p", "7000:80", "box", "sh", "-c", "echo b >/name; httpd -f -h /")
	b.eventually("b listens", func() bool {
		c, err := net.Dial("tcp", b.instance.IPAddress+":7000")
		return err == nil && c.Close() == nil
	})
	if got := a.docker(append(call, "wget", "-qO-", "http://"+b.instance.IPAddress+":7000/name")...); got != "b" {
		t.Errorf("a container of a hears %q from one of b, want b", got)
	}
}
