//go:build linux

package libvirt

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	rpc "github.com/digitalocean/go-libvirt"

	"berth/internal/driver/drivertest"
	"berth/internal/hostkvm"
	"berth/internal/machine"
)

func TestDriver(t *testing.T) {
	uri := session(t)
	image := guestImage(t)
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		t.Helper()
		return drivertest.Subject{Driver: Driver{}, Spec: spec(t, uri, image, nil)}
	})
	if left := volumes(t, uri); len(left) != 0 {
		t.Errorf("volumes are left: %v", left)
	}
}

func TestMachines(t *testing.T) {
	uri := session(t)
	image := guestImage(t)
	d := Driver{}
	t.Run("share their image", func(t *testing.T) {
		a, b := running(t, spec(t, uri, image, nil)), running(t, spec(t, uri, image, nil))
		if got := volumes(t, uri); len(got) != 2+2*2 {
			t.Errorf("volumes = %v, want an image with its mark, and two of each machine", got)
		}
		if err := d.Remove(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if got := volumes(t, uri); len(got) != 2+2 {
			t.Errorf("volumes = %v, want the image still", got)
		}
		wantState(t, b, machine.StateRunning)
	})
	t.Run("are saved and paused", func(t *testing.T) {
		i := running(t, spec(t, uri, image, nil))
		if err := d.Save(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		wantState(t, i, machine.StateSaved)
		fails(t, "stop", d.Stop(t.Context(), i), "saved")
		fails(t, "save", d.Save(t.Context(), i), "does not run")
		if _, err := d.Start(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		wantState(t, i, machine.StateRunning)
		err := with(t.Context(), uri, askTime, func(c conn) error {
			dom, err := c.DomainLookupByName(i.Name)
			if err != nil {
				return err
			}
			return c.DomainSuspend(dom)
		})
		if err != nil {
			t.Fatal(err)
		}
		wantState(t, i, machine.StatePaused)
		if err := d.Stop(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		wantState(t, i, machine.StateStopped)
	})
	t.Run("keep their ports", func(t *testing.T) {
		i := running(t, spec(t, uri, image, nil))
		if i.IPAddress != loopback || i.InnerPort != enginePort {
			t.Errorf("instance = %+v", i)
		}
		if err := d.Kill(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		again, err := d.Start(t.Context(), i)
		if err != nil || again.SSHPort != i.SSHPort || again.EnginePort != i.EnginePort {
			t.Errorf("it starts at %d and %d, want %d and %d: %v", again.SSHPort, again.EnginePort, i.SSHPort, i.EnginePort, err)
		}
		if err := d.Kill(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(i.EnginePort)))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // the end of the test
		again, err = d.Start(t.Context(), i)
		if err != nil || again.EnginePort == i.EnginePort {
			t.Errorf("with port %d taken it starts with %d: %v", i.EnginePort, again.EnginePort, err)
		}
	})
	t.Run("are checked before they are made", func(t *testing.T) {
		i := running(t, spec(t, uri, image, nil))
		for what, tt := range map[string]struct {
			given map[string]any
			name  string
			want  string
		}{
			"a name that is taken": {nil, i.Name, "already"},
			"no such pool":         {map[string]any{flagPool: "nowhere"}, "x", "no such pool"},
			"no such network":      {map[string]any{flagNetwork: "default"}, "x", "--libvirt-network user"},
			"no such image":        {map[string]any{flagImage: "nowhere"}, "x", "neither a file"},
			"too much memory":      {map[string]any{flagMemory: 1 << 30}, "x", "MB left"},
		} {
			s := spec(t, uri, image, tt.given)
			s.Name = tt.name
			fails(t, what, d.PreCreateCheck(t.Context(), s), tt.want)
		}
		s := spec(t, uri, image, map[string]any{flagType: typeKVM})
		if why := hostkvm.Missing(); why != nil {
			_, err := d.Create(t.Context(), s)
			fails(t, "kvm", err, "no KVM")
			fails(t, "kvm, before anything is made", d.PreCreateCheck(t.Context(), s), "no KVM")
		}
	})
	t.Run("are not made of an upload that broke off", func(t *testing.T) {
		s := spec(t, uri, image, nil)
		i := running(t, s)
		v, err := readVM(i)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		err = with(t.Context(), uri, askTime, func(c conn) error {
			p, err := c.pool(defaultPool)
			if err != nil {
				return err
			}
			_, err = c.StorageVolCreateXML(p, "<volume><name>"+v.Base+"</name><capacity>512</capacity><target><format type='raw'/></target></volume>", 0)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		again := running(t, spec(t, uri, image, nil))
		if err := d.Stop(t.Context(), again); err != nil { // which a machine without a system does not
			t.Error(err)
		}
		if got := volumes(t, uri); !slices.Contains(got, v.Base+wholeEnd) {
			t.Errorf("volumes = %v, want the image marked as whole", got)
		}
	})
}

func TestWithoutLibvirt(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	for uri, want := range map[string]string{
		"qemu:///system?socket=" + socket:  "apt-get install libvirt-daemon-system",
		"qemu:///session?socket=" + socket: "virsh -c qemu:///session",
		"qemu+ssh://far/system":            "on this computer",
		"xen:///system":                    "want qemu:///system",
	} {
		fails(t, uri, Driver{}.PreCreateCheck(t.Context(), spec(t, uri, guestImage(t), nil)), want)
	}
}

// TestALibvirtThatHangs: whoever waits for it may go.
func TestALibvirtThatHangs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the end of the test
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- with(ctx, "qemu:///system?socket="+socket, askTime, func(conn) error { return nil })
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the end of the test
	cancel()
	if err := <-ended; err == nil {
		t.Error("it was reached")
	}
}

func TestFreeAddress(t *testing.T) {
	const text = `<network><name>default</name><forward mode='nat'/><ip family='ipv6' address='fd00::1' prefix='64'><dhcp><range start='fd00::2' end='fd00::9'/></dhcp></ip>
<ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' end='192.168.122.5'/><host mac='52:54:00:00:00:01' ip='192.168.122.2'/></dhcp></ip></network>`
	at, ip, err := freeAddress(text, map[string]bool{"192.168.122.3": true})
	if err != nil || at != 1 || ip != "192.168.122.4" {
		t.Errorf("= %d, %s, %v, want 192.168.122.4 of family 1", at, ip, err)
	}
	_, _, err = freeAddress(text, map[string]bool{"192.168.122.3": true, "192.168.122.4": true, "192.168.122.5": true})
	fails(t, "of a full network", err, "no free address")
	if _, ip, err := freeAddress("<network><forward mode='bridge'/><bridge name='br0'/></network>", nil); ip != "" || err != nil {
		t.Errorf("of a bridge = %q, %v, want none", ip, err)
	}
}

func TestPickAddress(t *testing.T) {
	nics := []rpc.DomainInterface{
		{Name: "lo", Addrs: []rpc.DomainIPAddr{{Addr: "127.0.0.1"}}},
		{Name: "docker0", Hwaddr: rpc.OptString{"02:42:00:00:00:01"}, Addrs: []rpc.DomainIPAddr{{Addr: "172.17.0.1"}}},
		{Name: "eth0", Hwaddr: rpc.OptString{"52:54:00:00:00:01"}, Addrs: []rpc.DomainIPAddr{{Addr: "fe80::1"}, {Addr: "fd00::5"}, {Addr: "10.0.0.5"}}},
	}
	if got := pick(nics, "52:54:00:00:00:01"); got.String() != "10.0.0.5" {
		t.Errorf("= %s, want 10.0.0.5", got)
	}
	if got := pick(nics, "52:54:00:00:00:02"); got.IsValid() {
		t.Errorf("= %s, want none", got)
	}
}

func TestDescribeQuotes(t *testing.T) {
	text := describe(vm{UUID: "u", MAC: "m", Network: "it's <mine>", Type: typeKVM}, machine.Instance{Name: "vm1"}, "/a&b/'c'", "/s")
	for _, bad := range []string{"it's <mine>", "/a&b/'c'"} {
		if i := slices.Index([]string{text}, bad); i >= 0 {
			t.Errorf("%q stands in %s", bad, text)
		}
	}
}
