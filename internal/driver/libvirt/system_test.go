//go:build linux

package libvirt

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/internal/driver/drivertest"
	"berth/internal/driver/libvirt/libvirttest"
	"berth/internal/machine"
)

// systemScript starts libvirtd as root in namespaces of its own. All that it starts ends with it. The shell stays, to be told of the processes
// that lose their parents: libvirtd waits for some of them to be gone.
const systemScript = `set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
ip link set lo up
(
` + libvirttest.Script + `
) &
wait $!
`

const isolated = `<network><name>default</name><bridge name='virbr0'/><ip address='192.168.122.1' netmask='255.255.255.0'>
<dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>`

// system runs a real libvirtd as the system's, and returns the URI that leads to it.
func system(t *testing.T) string {
	t.Helper()
	if os.Getenv("BERTH_NIGHTLY") == "" {
		t.Skip("it takes minutes: BERTH_NIGHTLY=1 turns it on")
	}
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	for _, program := range []string{"/usr/sbin/libvirtd", "dnsmasq", "iptables", "unshare", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	dir, err := os.MkdirTemp("", "lv")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", systemScript, "sh", dir, "/usr/sbin/libvirtd")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("libvirtd: %s", log.String())
		}
	})
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	socket := filepath.Join(dir, "libvirt-sock")
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("libvirtd does not come up")
		}
	}
	return "qemu:///system?socket=" + socket
}

// TestSystem: with networks of libvirt's, on which addresses are reserved.
func TestSystem(t *testing.T) {
	uri := system(t)
	image := guestImage(t)
	fails(t, "check without a network", Driver{}.PreCreateCheck(t.Context(), spec(t, uri, image, nil)), "net-define")
	err := with(t.Context(), uri, askTime, func(c conn) error {
		_, err := c.NetworkDefineXML(isolated)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("addresses", func(t *testing.T) {
		a, b := running(t, spec(t, uri, image, nil)), running(t, spec(t, uri, image, nil))
		if a.IPAddress != "192.168.122.2" || b.IPAddress != "192.168.122.3" || a.SSHPort != sshPort {
			t.Errorf("they are at %s and %s", a.IPAddress, b.IPAddress)
		}
		again, err := Driver{}.Restart(t.Context(), a)
		if err != nil || again.IPAddress != a.IPAddress {
			t.Errorf("after a restart it is at %s: %v", again.IPAddress, err)
		}
		if now, state, err := (Driver{}).Locate(t.Context(), again); err != nil || state != machine.StateRunning || now.IPAddress != a.IPAddress {
			t.Errorf("it is %s at %s: %v", state, now.IPAddress, err)
		}
	})
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		t.Helper()
		return drivertest.Subject{Driver: Driver{}, Spec: spec(t, uri, image, nil)}
	})
	if left := volumes(t, uri); len(left) != 0 {
		t.Errorf("volumes are left: %v", left)
	}
	err = with(t.Context(), uri, askTime, func(c conn) error {
		n, err := c.NetworkLookupByName("default")
		if err != nil {
			return err
		}
		text, err := c.NetworkGetXMLDesc(n, 0)
		if strings.Contains(text, "<host") {
			t.Errorf("addresses are still reserved: %s", text)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
