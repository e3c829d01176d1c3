package virtualbox

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// block is one thing of a list, as "Key: value" lines. Keys are in lower case and without spaces: versions spell them differently.
type block map[string]string

// parseBlocks reads what `VBoxManage list` writes of interfaces and DHCP servers: things apart by empty lines. A key that comes a
// second time, of a nested list, is passed by.
func parseBlocks(text string) []block {
	var all []block
	now := block{}
	end := func() {
		if len(now) > 0 {
			all = append(all, now)
			now = block{}
		}
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			end()
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key = strings.ToLower(strings.ReplaceAll(key, " ", ""))
		if _, again := now[key]; !again {
			now[key] = strings.TrimSpace(value)
		}
	}
	end()
	return all
}

// adapter is a host-only interface of this computer.
type adapter struct {
	name, network string
	address       netip.Prefix // its own address; invalid if it has none
}

func parseAdapters(text string) []adapter {
	var all []adapter
	for _, b := range parseBlocks(text) {
		if b["name"] == "" {
			continue
		}
		a := adapter{name: b["name"], network: b["vboxnetworkname"]}
		if ip, err := netip.ParseAddr(b["ipaddress"]); err == nil && ip.Is4() {
			if bits, ok := maskBits(b["networkmask"]); ok {
				a.address = netip.PrefixFrom(ip, bits)
			}
		}
		if a.network == "" {
			a.network = networkPrefix + a.name
		}
		all = append(all, a)
	}
	return all
}

// networkPrefix is before an adapter's name in its network's.
const networkPrefix = "HostInterfaceNetworking-"

// maskBits reads a network mask, dotted or, as some versions wrote it on Windows, as bytes in hexadecimal, at times in the wrong order.
func maskBits(text string) (int, bool) {
	if text == "0f000000" { // of 255.255.255.0, on macOS
		return 24, true
	}
	ip := net.ParseIP(text).To4()
	if ip == nil {
		return 0, false
	}
	ones, bits := net.IPMask(ip).Size()
	return ones, bits == 32 && ones > 0
}

// server is a DHCP server of VirtualBox's.
type server struct {
	network            string
	address, low, high netip.Addr
	enabled            bool
}

// parseServers knows both spellings: up to 6.0 IP, lowerIPAddress; from 6.1 on Dhcpd IP, LowerIPAddress.
func parseServers(text string) []server {
	var all []server
	for _, b := range parseBlocks(text) {
		if b["networkname"] == "" {
			continue
		}
		s := server{network: b["networkname"], enabled: strings.EqualFold(b["enabled"], "yes")}
		for _, key := range []string{"dhcpdip", "ip"} {
			if a, err := netip.ParseAddr(b[key]); err == nil {
				s.address = a
			}
		}
		if a, err := netip.ParseAddr(b["loweripaddress"]); err == nil {
			s.low = a
		}
		if a, err := netip.ParseAddr(b["upperipaddress"]); err == nil {
			s.high = a
		}
		all = append(all, s)
	}
	return all
}

// parseInfo reads `showvminfo --machinereadable`: key="value" lines, of which keys may be quoted too. Values hold no quotes but \" and \\.
func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		key, value, ok := cutKey(line)
		if !ok {
			continue
		}
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = unescape(value[1 : len(value)-1])
		}
		if _, again := info[key]; !again {
			info[key] = value
		}
	}
	return info
}

func cutKey(line string) (key, value string, ok bool) {
	if rest, quoted := strings.CutPrefix(line, `"`); quoted {
		return strings.Cut(rest, `"=`)
	}
	key, value, ok = strings.Cut(line, "=")
	return key, value, ok && key != ""
}

var escapes = strings.NewReplacer(`\\`, `\`, `\"`, `"`)

func unescape(s string) string { return escapes.Replace(s) }

// forwardRule is a NAT rule of the first interface.
type forwardRule struct {
	name, proto, host string
	hostPort, port    int
}

// parseForwards reads the NAT rules of a machine: Forwarding(0)="ssh,tcp,127.0.0.1,2222,,22".
func parseForwards(info map[string]string) []forwardRule {
	var all []forwardRule
	for n := 0; ; n++ {
		text, ok := info[fmt.Sprintf("Forwarding(%d)", n)]
		if !ok {
			return all
		}
		f := strings.Split(text, ",")
		if len(f) != 6 {
			continue
		}
		outer, err := strconv.Atoi(f[3])
		inner, innerErr := strconv.Atoi(f[5])
		if err == nil && innerErr == nil {
			all = append(all, forwardRule{f[0], f[1], f[2], outer, inner})
		}
	}
}

// machineList reads `list vms`: "name" {uuid} lines. Names may hold anything but a line's end.
func machineList(text string) map[string]string {
	names := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		at := strings.LastIndex(line, `" {`)
		if at < 2 || line[0] != '"' || !strings.HasSuffix(line, "}") {
			continue
		}
		names[line[at+3:len(line)-1]] = line[1:at]
	}
	return names
}
