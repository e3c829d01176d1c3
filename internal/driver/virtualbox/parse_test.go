package virtualbox

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What VBoxManage of several versions wrote on users' computers.
const (
	adaptersOf52 = `Name:            vboxnet0
GUID:            786f6276-656e-4074-8000-0a0027000000
DHCP:            Disabled
IPAddress:       192.168.99.1
NetworkMask:     255.255.255.0
IPV6Address:
IPV6NetworkMaskPrefixLength: 0
HardwareAddress: 0a:00:27:00:00:00
MediumType:      Ethernet
Status:          Up
VBoxNetworkName: HostInterfaceNetworking-vboxnet0

Name:            vboxnet1
IPAddress:       192.168.56.1
NetworkMask:     0f000000
VBoxNetworkName: HostInterfaceNetworking-vboxnet1
`
	serversOf52 = `NetworkName:    HostInterfaceNetworking-vboxnet0
IP:             192.168.99.6
NetworkMask:    255.255.255.0
lowerIPAddress: 192.168.99.100
upperIPAddress: 192.168.99.254
Enabled:        Yes
`
	serversOf61 = `NetworkName:    HostInterfaceNetworking-VirtualBox Host-Only Ethernet Adapter
Dhcpd IP:       192.168.56.100
LowerIPAddress: 192.168.56.101
UpperIPAddress: 192.168.56.254
NetworkMask:    255.255.255.0
Enabled:        No
Global Configuration:
    minLeaseTime:     default
    Forced options:   None
        1/legacy: 255.255.255.0
Groups:               None
`
)

func TestParseLists(t *testing.T) {
	adapters := parseAdapters(adaptersOf52)
	want := []adapter{
		{"vboxnet0", "HostInterfaceNetworking-vboxnet0", netip.MustParsePrefix("192.168.99.1/24")},
		{"vboxnet1", "HostInterfaceNetworking-vboxnet1", netip.MustParsePrefix("192.168.56.1/24")},
	}
	compare := cmp.AllowUnexported(adapter{}, server{}, version{}, forwardRule{})
	addresses := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	prefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, adapters, compare, addresses, prefixes); diff != "" {
		t.Error(diff)
	}
	servers := parseServers(serversOf52 + "\n" + serversOf61)
	a := netip.MustParseAddr
	wanted := []server{
		{"HostInterfaceNetworking-vboxnet0", a("192.168.99.6"), a("192.168.99.100"), a("192.168.99.254"), true},
		{"HostInterfaceNetworking-VirtualBox Host-Only Ethernet Adapter", a("192.168.56.100"), a("192.168.56.101"), a("192.168.56.254"), false},
	}
	if diff := cmp.Diff(wanted, servers, compare, addresses); diff != "" {
		t.Error(diff)
	}
}

func TestParseInfo(t *testing.T) {
	info := parseInfo("name=\"it's \\\"mine\\\"\"\n\"SATA-1-0\"=\"C:\\\\vm\\\\disk.vmdk\"\r\nmemory=1024\nVMState=\"poweroff\"\nForwarding(0)=\"ssh,tcp,127.0.0.1,2222,,22\"\nForwarding(1)=\"x,udp,,99999,10.0.2.15,x\"\nForwarding(2)=\"web,tcp,,8080,,80\"\ndescription=\nVMState=\"running\"\n=x\n")
	for key, want := range map[string]string{"name": `it's "mine"`, "SATA-1-0": `C:\vm\disk.vmdk`, "memory": "1024", "VMState": "poweroff", "description": ""} {
		if info[key] != want {
			t.Errorf("%s = %q, want %q", key, info[key], want)
		}
	}
	got := parseForwards(info)
	want := []forwardRule{{"ssh", "tcp", "127.0.0.1", 2222, 22}, {"web", "tcp", "", 8080, 80}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(forwardRule{})); diff != "" {
		t.Error(diff)
	}
}

func TestParseMachineList(t *testing.T) {
	got := machineList("\"web1\" {0a1b}\n\"it's \"mine\" {x}\" {2c}\n<inaccessible> {3d}\n\"\" {4}\n")
	if diff := cmp.Diff(map[string]string{"0a1b": "web1", "2c": `it's "mine" {x}`}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"7.0.20r163906\n": "7.0.20", "6.1.50_Ubuntur161033": "6.1.50", "5.2.44_SUSEr139111\r\n": "5.2.44",
		"WARNING: The character device /dev/vboxdrv does not exist.\n\t Please install\n7.1.0_BETA1r163425": "7.1.0", "": "none", "7.0": "none", "99999999999999999999.1.1": "none",
	} {
		got := "none"
		if v, ok := parseVersion(text); ok {
			got = v.String()
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestComplaint(t *testing.T) {
	text := "VBoxManage: error: Machine settings file '/x' already exists\nVBoxManage: error: Details: code VBOX_E_FILE_ERROR (0x80bb0004), component MachineWrap\nVBoxManage: error: Context: \"CreateMachine(x)\" at line 1\n"
	if got, want := complaint(text), "Machine settings file '/x' already exists; Details: code VBOX_E_FILE_ERROR (0x80bb0004), component MachineWrap"; got != want {
		t.Errorf("= %q, want %q", got, want)
	}
	if got := complaint("Segmentation fault\n"); got != "Segmentation fault" {
		t.Errorf("= %q", got)
	}
}

func TestLayout(t *testing.T) {
	for cidr, want := range map[string]string{
		"192.168.99.1/24":  "server 192.168.99.2, machines 192.168.99.25-192.168.99.99, guests 192.168.99.100-192.168.99.254",
		"192.168.99.2/24":  "server 192.168.99.1, machines 192.168.99.25-192.168.99.99, guests 192.168.99.100-192.168.99.254",
		"10.1.0.1/16":      "server 10.1.0.2, machines 10.1.25.0-10.1.99.255, guests 10.1.100.0-10.1.255.254",
		"192.168.99.17/28": "server 192.168.99.18, machines 192.168.99.19-192.168.99.21, guests 192.168.99.22-192.168.99.30",
	} {
		p, err := parseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		l := layoutOf(p)
		got := "server " + l.server.String() + ", machines " + at(p, l.first).String() + "-" + at(p, l.end-1).String() + ", guests " + l.low.String() + "-" + l.high.String()
		if got != want {
			t.Errorf("%s = %s, want %s", cidr, got, want)
		}
	}
}

func TestAllowedRanges(t *testing.T) {
	got := []string{}
	for _, p := range parseAllowed("# comment\n* 10.0.0.0/8 192.168.0.0/16\n* 2001::/64\n\n*\n10.9.9.9/8\n* nonsense\n") {
		got = append(got, p.String())
	}
	if diff := cmp.Diff([]string{"10.0.0.0/8", "192.168.0.0/16", "2001::/64", "0.0.0.0/0"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCollisions(t *testing.T) {
	p := netip.MustParsePrefix
	all := []adapter{{"vboxnet0", "", p("10.7.0.1/16")}, {"vboxnet1", "", netip.Prefix{}}}
	if _, err := pick(all, p("10.7.3.1/24")); err == nil || !strings.Contains(err.Error(), "vboxnet0") {
		t.Errorf("= %v, want that vboxnet0 overlaps", err)
	}
	if a, err := pick(all, p("10.7.0.1/16")); err != nil || a.name != "vboxnet0" {
		t.Errorf("= %v, %v, want vboxnet0", a, err)
	}
	taken := map[netip.Addr]bool{netip.MustParseAddr("10.7.25.0"): true}
	servers := []server{{"n", netip.MustParseAddr("10.7.25.3"), netip.MustParseAddr("10.7.25.1"), netip.MustParseAddr("10.7.25.2"), true}}
	if ip, err := freeAddress(adapter{"vboxnet0", "n", p("10.7.0.1/16")}, servers, taken); err != nil || ip.String() != "10.7.25.4" {
		t.Errorf("= %v, %v, want 10.7.25.4", ip, err)
	}
	servers[0].low, servers[0].high = netip.MustParseAddr("10.7.0.2"), netip.MustParseAddr("10.7.255.254")
	if _, err := freeAddress(adapter{"vboxnet0", "n", p("10.7.0.1/16")}, servers, taken); err == nil {
		t.Error("an address was found where DHCP gives all away")
	}
}

// FuzzParse: whatever VBoxManage writes, nothing breaks, and what is understood is well-formed.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{adaptersOf52, serversOf52, serversOf61, "\"a\"=\"b\"\nForwarding(0)=\"ssh,tcp,,1,,22\"", "\"web1\" {0a1b}", "7.0.20r1", "VBoxManage: error: x", "* 10.0.0.0/8"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range parseAdapters(text) {
			if a.name == "" || a.address.IsValid() && !a.address.Addr().Is4() {
				t.Errorf("adapter %+v", a)
			}
		}
		for _, s := range parseServers(text) {
			if s.network == "" {
				t.Errorf("server %+v", s)
			}
		}
		parseForwards(parseInfo(text))
		for id, name := range machineList(text) {
			if name == "" || strings.ContainsAny(id, "\n") {
				t.Errorf("machine %q %q", id, name)
			}
		}
		parseVersion(text)
		parseAllowed(text)
		findAddress(text, "0a:00:27:00:00:00")
		colons(text)
		_ = complaint(text)
		if p, err := parseCIDR(text); err == nil {
			l := layoutOf(p)
			for _, a := range []netip.Addr{l.server, l.low, l.high, at(p, l.first), at(p, l.end-1)} {
				if !p.Contains(a) || a == last(p) || a == p.Masked().Addr() {
					t.Errorf("%s: %s is not to be given", p, a)
				}
			}
		}
	})
}
