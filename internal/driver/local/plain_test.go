package local

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"pgregory.net/rapid"

	"berth/internal/machine"
)

func TestPreCreateCheck(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "taken0"}}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr("10.55.1.1"), 24)}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Index, Dst: ipNet(netip.MustParseAddr("10.56.0.0"), 16)}); err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "dockerd")
	if err := os.WriteFile(alone, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*machine.Spec)
		want   string // part of the error; "" for none
	}{
		"all is well":                {func(*machine.Spec) {}, ""},
		"a name of 63":               {func(s *machine.Spec) { s.Name = strings.Repeat("a", 63) }, ""},
		"a name too long":            {func(s *machine.Spec) { s.Name = strings.Repeat("a", 64) }, "host name"},
		"a name with a slash":        {func(s *machine.Spec) { s.Name = "../m" }, "host name"},
		"a name ending in a dash":    {func(s *machine.Spec) { s.Name = "m-" }, "host name"},
		"no such engine":             {func(s *machine.Spec) { s.Values[flagEngine] = "/nowhere/dockerd" }, "--local-engine"},
		"an engine that is none":     {func(s *machine.Spec) { s.Values[flagEngine] = alone }, "not a program"},
		"no range":                   {func(s *machine.Spec) { s.Values[flagSubnet] = "10.1" }, "is not a range"},
		"a range too small":          {func(s *machine.Spec) { s.Values[flagSubnet] = "10.1.1.0/31" }, "between /8 and /30"},
		"an IPv6 range":              {func(s *machine.Spec) { s.Values[flagSubnet] = "fd00::/64" }, "not an IPv4 range"},
		"loopback":                   {func(s *machine.Spec) { s.Values[flagSubnet] = "127.0.0.0/8" }, "cannot have addresses"},
		"a range on an interface":    {func(s *machine.Spec) { s.Values[flagSubnet] = "10.55.0.0/16" }, "10.55.1.0/24 on taken0"},
		"a range that is routed":     {func(s *machine.Spec) { s.Values[flagSubnet] = "10.56.7.0/24" }, "10.56.0.0/16 on taken0"},
		"a range beside it":          {func(s *machine.Spec) { s.Values[flagSubnet] = "10.57.0.0/24" }, ""},
		"no address":                 {func(s *machine.Spec) { s.Values[flagAddress] = "x" }, "is not an IP address"},
		"an address elsewhere":       {func(s *machine.Spec) { s.Values[flagAddress] = "10.1.1.1" }, "is not in 10.213.77.0/24"},
		"the bridge's address":       {func(s *machine.Spec) { s.Values[flagAddress] = "10.213.77.1" }, "own address"},
		"the range's broadcast":      {func(s *machine.Spec) { s.Values[flagAddress] = "10.213.77.255" }, "stands for the whole"},
		"the range's last":           {func(s *machine.Spec) { s.Values[flagAddress] = "10.213.77.254" }, ""},
		"flags that were left empty": {func(s *machine.Spec) { s.Values = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			spec := s.spec(t, "m")
			tt.change(&spec)
			err := Driver{}.PreCreateCheck(t.Context(), spec)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("check: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("check = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestMissingPrograms(t *testing.T) {
	saved := systemPath
	t.Cleanup(func() { systemPath = saved })
	systemPath = []string{t.TempDir()}
	t.Setenv("PATH", systemPath[0])
	if _, err := findEngine(""); err == nil || !strings.Contains(err.Error(), "apt-get install docker.io") || !strings.Contains(err.Error(), "--local-engine") {
		t.Errorf("no dockerd = %v", err)
	}
	runc := filepath.Join(systemPath[0], "runc")
	if err := os.WriteFile(runc, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkPrograms("/opt/dockerd"); err == nil || !strings.HasSuffix(err.Error(), "apt-get install containerd iptables") {
		t.Errorf("no containerd, no iptables = %v", err)
	}
}

func TestPickAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(24, 30).Draw(t, "bits")
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 7, 9, byte(rapid.IntRange(0, 255).Draw(t, "low"))}), bits).Masked()
		taken := map[netip.Addr]string{}
		size := 1 << (32 - bits)
		for range rapid.IntRange(0, size).Draw(t, "number") {
			a := subnet.Addr()
			for range rapid.IntRange(0, size-1).Draw(t, "taken") {
				a = a.Next()
			}
			taken[a] = "m"
		}
		got, err := pickAddress(subnet, netip.Addr{}, taken)
		if err != nil {
			for a, n := gateway(subnet).Next(), 3; n < size; a, n = a.Next(), n+1 {
				if _, ok := taken[a]; !ok {
					t.Fatalf("%s is free in %s, but: %v", a, subnet, err)
				}
			}
			return
		}
		if _, err := parseAddress(got.String(), subnet); err != nil || taken[got] != "" {
			t.Fatalf("picked %s in %s of %v: %v", got, subnet, taken, err)
		}
	})
}

func TestRangesInUse(t *testing.T) {
	subnet := netip.MustParsePrefix("10.213.77.0/24")
	names := map[int]string{1: "lo", 2: "eth0", 3: "boxes"}
	for name, tt := range map[string]struct {
		use  use
		want string
	}{
		"another range":                {use{netip.MustParsePrefix("10.213.78.0/24"), 2}, ""},
		"the boxes' bridge":            {use{subnet, 3}, ""},
		"a link":                       {use{netip.MustParsePrefix("10.213.0.0/16"), 2}, "(10.213.0.0/16 on eth0)"},
		"a link that has gone since":   {use{subnet, 4}, ""},
		"a route that leads to no one": {use{subnet, 0}, "(10.213.77.0/24 on )"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := refuseUsed(subnet, "boxes", []use{tt.use}, names); err != nil {
				got = err.Error()
			}
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("refused with %q, want %q", got, tt.want)
			}
		})
	}
}

func TestClaimIsReadBackFromItsAlias(t *testing.T) {
	for name, dir := range map[string]string{"plain": "/root/.docker/machine/machines/m", "spaces": "/a b/ c/m", "too long": "/" + strings.Repeat("x", 300)} {
		t.Run(name, func(t *testing.T) {
			b := newBox(machine.Spec{Name: "m", StoreID: "s", Dir: dir}, settings{subnet: netip.MustParsePrefix(defaultSubnet)})
			b.Address = netip.MustParseAddr("10.213.77.9")
			if n := len(b.alias()); n > 255 {
				t.Errorf("the alias has %d bytes", n)
			}
			c, ok := parseClaim(b.HostVeth, b.alias())
			if !ok || c.id != b.ID || c.address != b.Address || (c.dir != dir && name != "too long") {
				t.Errorf("claim = %+v, %v", c, ok)
			}
		})
	}
	for _, other := range [][2]string{{"eth0", "berth 10.0.0.1 /x"}, {"bv0123456789", "mine"}, {"bvpeer", "berth 10.0.0.1"}, {"bv0123456789", "berth nowhere"}} {
		if c, ok := parseClaim(other[0], other[1]); ok {
			t.Errorf("%v is taken for %+v", other, c)
		}
	}
}

func TestNamesFitAndDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		draw := func(n string) *box {
			return newBox(machine.Spec{Name: text.Draw(t, "name"+n), StoreID: text.Draw(t, "store"+n)}, settings{subnet: netip.MustParsePrefix(defaultSubnet)})
		}
		a, b := draw("a"), draw("b")
		for _, name := range []string{a.Bridge, a.HostVeth} {
			if len(name) > 15 {
				t.Fatalf("interface name %q is longer than 15", name)
			}
		}
		if a.Bridge != b.Bridge {
			t.Fatalf("one subnet has the bridges %s and %s", a.Bridge, b.Bridge)
		}
	})
	// The two parts of a box's identity are not confused.
	one := newBox(machine.Spec{StoreID: "ab", Name: "c"}, settings{})
	if two := newBox(machine.Spec{StoreID: "a", Name: "bc"}, settings{}); one.ID == two.ID {
		t.Errorf("both have the ID %s", one.ID)
	}
}

func TestRecordIsReadBack(t *testing.T) {
	dir := t.TempDir()
	spec := machine.Spec{Name: "m", StoreID: "s", Dir: dir}
	b := newBox(spec, settings{subnet: netip.MustParsePrefix(defaultSubnet), engine: "/usr/sbin/dockerd"})
	for _, address := range []netip.Addr{{}, netip.MustParseAddr("10.213.77.2")} {
		b.Address = address
		if err := b.save(); err != nil {
			t.Fatal(err)
		}
		for name, i := range map[string]machine.Instance{"instance": b.instance(), "file": {Name: "m", Dir: dir}} {
			got, err := loadBox(i)
			if err != nil || !reflect.DeepEqual(got, b) {
				t.Errorf("from the %s: %+v, %v, want %+v", name, got, err, b)
			}
		}
	}
	// Names in a record that somebody changed are not believed.
	i := b.instance()
	i.Raw = []byte(strings.Replace(string(i.Raw), b.NetNS, "../../etc", 1))
	if got, err := loadBox(i); err != nil || got.NetNS != b.NetNS {
		t.Errorf("from a changed record: %+v, %v", got, err)
	}
	for _, raw := range []string{`{"BoxID":"../../../x","Subnet":"10.0.0.0/24"}`, `{"BoxID":"0123456789"}`, `{"BoxID":7}`, `[]`} {
		i.Raw = []byte(raw)
		if got, err := loadBox(i); err == nil {
			t.Errorf("%s is taken for %+v", raw, got)
		}
	}
}

func TestHierarchies(t *testing.T) {
	for line, want := range map[string]string{
		"31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct v2=false cpu=true 0:27",
		"30 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate":      "/sys/fs/cgroup v2=true cpu=false 0:26",
		"32 30 0:28 /docker/ab /sys/fs/cgroup/memory ro master:1 - cgroup cgroup rw,memory":         "/sys/fs/cgroup/memory v2=false cpu=false 0:28",
		"33 30 0:29 / /odd\\040place rw - cgroup cgroup rw,cpu":                                     "/odd place v2=false cpu=true 0:29",
		"23 28 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw":                                     "none",
		"28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro,cgroup":          "none",
		"": "none",
	} {
		got := "none"
		if h, device, ok := parseHierarchy(line); ok {
			got = fmt.Sprintf("%s v2=%v cpu=%v %s", h.dir, h.v2, h.has("cpu"), device)
		}
		if got != want {
			t.Errorf("%s\n= %s, want %s", line, got, want)
		}
	}
}

func TestResolversOnLoopbackAreLeftOut(t *testing.T) {
	for name, tt := range map[string]struct {
		text, want string
		servers    int
	}{
		"others stay":     {"search lan\nnameserver 192.0.2.1\noptions edns0\n", "search lan\nnameserver 192.0.2.1\noptions edns0\n", 1},
		"one of two":      {"nameserver 127.0.0.1\nnameserver 192.0.2.1", "nameserver 192.0.2.1\n", 1},
		"systemd's":       {"nameserver 127.0.0.53\noptions trust-ad\n", "options trust-ad\n", 0},
		"IPv6":            {"nameserver ::1\nnameserver fe80::1%eth0\n", "nameserver fe80::1%eth0\n", 1},
		"no line is cut":  {"# nameserver 127.0.0.1\n", "# nameserver 127.0.0.1\n", 0},
		"nothing remains": {"", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, servers := withoutLoopback([]byte(tt.text))
			if string(got) != tt.want || servers != tt.servers {
				t.Errorf("= %q, %d, want %q, %d", got, servers, tt.want, tt.servers)
			}
		})
	}
}

func TestEngineArgs(t *testing.T) {
	b := newBox(machine.Spec{Name: "m", StoreID: "s"}, settings{})
	args, err := b.engineArgs(engineRecord{
		Options: machine.EngineOptions{
			Labels: []string{"size=xxl", "note=two words; and $more"}, StorageDriver: "overlay2", RegistryMirror: []string{"https://m"},
			InsecureRegistry: []string{"r:5000"}, ArbitraryFlags: []string{"log-driver=journald", "experimental", "log-opt=a=b"},
			Dns: []string{"192.0.2.3"}, Ipv6: true, SelinuxEnabled: true, LogLevel: "warn",
		},
		Labels: []string{"provider=local"},
	})
	want := []string{
		"--host=unix:///var/run/docker.sock", "--host=tcp://0.0.0.0:2376",
		"--tlsverify", "--tlscacert=/etc/docker/ca.pem", "--tlscert=/etc/docker/server.pem", "--tlskey=/etc/docker/server-key.pem",
		"--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent=/berth-" + b.ID,
		"--label=size=xxl", "--label=note=two words; and $more", "--label=provider=local", "--insecure-registry=r:5000", "--registry-mirror=https://m", "--dns=192.0.2.3",
		"--storage-driver=overlay2", "--log-level=warn", "--ipv6", "--selinux-enabled",
		"--log-driver=journald", "--experimental", "--log-opt=a=b",
	}
	if diff := cmp.Diff(want, args); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := b.engineArgs(engineRecord{Options: machine.EngineOptions{Env: []string{"NOVALUE"}}}); err == nil {
		t.Error("NOVALUE is taken for an environment")
	}
	env := engineEnv("/opt/d/dockerd", []string{"HTTP_PROXY=http://p", "HOME=/h"})
	wantEnv := []string{"PATH=/opt/d:" + strings.Join(systemPath, ":"), "LANG=C.UTF-8", "HTTP_PROXY=http://p", "HOME=/h"}
	if diff := cmp.Diff(wantEnv, env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestStagesRefuseStrangers(t *testing.T) {
	if InitMain([]string{"berth"}) || InitMain([]string{"berth", "ls", launchArg}) {
		t.Error("an ordinary command is taken for a stage of a box")
	}
}
