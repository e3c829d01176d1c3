package virtualbox

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
)

// docker-machine's network, and the one for where VirtualBox does not allow it any more, which is minikube's.
const (
	oldCIDR = "192.168.99.1/24"
	newCIDR = "192.168.59.1/24"
)

// Sizes of a network that machines, a DHCP server and this computer find room in.
const (
	widest   = 8
	smallest = 28
)

func parseCIDR(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || !p.Addr().Is4():
		return netip.Prefix{}, errors.New("want this computer's address with its network's length, as " + oldCIDR)
	case p.Bits() < widest || p.Bits() > smallest:
		return netip.Prefix{}, fmt.Errorf("want a network of a length from %d to %d", widest, smallest)
	case p.Masked().Addr() == p.Addr():
		return netip.Prefix{}, errors.New("the address is the network's own: want this computer's, as " + p.Addr().Next().String())
	case last(p) == p.Addr():
		return netip.Prefix{}, errors.New("the address is the network's broadcast: want this computer's, as " + p.Masked().Addr().Next().String())
	}
	return p, nil
}

// at is the network's address with that number.
func at(p netip.Prefix, n uint32) netip.Addr {
	base := p.Masked().Addr().As4()
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], binary.BigEndian.Uint32(base[:])+n)
	return netip.AddrFrom4(out)
}

func size(p netip.Prefix) uint32     { return 1 << (32 - p.Bits()) }
func last(p netip.Prefix) netip.Addr { return at(p, size(p)-1) }

func mask(p netip.Prefix) string { return net.IP(net.CIDRMask(p.Bits(), 32)).String() }

// layout says who gets which addresses of a host-only network, in docker-machine's proportions: of 256, the DHCP server one below 25 and
// its guests those from 100 on. Machines have fixed ones in between, which docker-machine gave to nobody.
type layout struct {
	server    netip.Addr
	low, high netip.Addr // of DHCP
	first     uint32     // of machines, by number
	end       uint32     // the first that is not a machine's any more
}

func layoutOf(p netip.Prefix) layout {
	n := size(p)
	scale := func(of256 uint32) uint32 { return uint32(uint64(n) * uint64(of256) / 256) } //nolint:gosec // at most n
	l := layout{low: at(p, scale(100)), high: at(p, n-2), first: max(scale(25), 3), end: scale(100)}
	l.server = at(p, 2)
	if l.server == p.Addr() {
		l.server = at(p, 1)
	}
	return l
}

// Since 6.1.28, VirtualBox on systems other than Windows gives its interfaces only these addresses, unless a file allows others.
const (
	allowFile    = "/etc/vbox/networks.conf"
	allowDefault = "192.168.56.0/21"
)

// allowed tells whether VirtualBox gives an interface that address.
func allowed(v version, file string, p netip.Prefix) (bool, error) {
	if runtime.GOOS == "windows" || v.before(6, 1, 28) {
		return true, nil
	}
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return netip.MustParsePrefix(allowDefault).Contains(p.Addr()), nil
	case err != nil:
		return false, err
	}
	for _, r := range parseAllowed(string(text)) {
		if r.Contains(p.Addr()) {
			return true, nil
		}
	}
	return false, nil
}

// parseAllowed reads networks.conf: lines of an asterisk and networks. One that holds nothing allows nothing; "* " alone, everything.
func parseAllowed(text string) []netip.Prefix {
	var all []netip.Prefix
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) == 0 || f[0] != "*" {
			continue
		}
		if len(f) == 1 {
			all = append(all, netip.MustParsePrefix("0.0.0.0/0"))
		}
		for _, word := range f[1:] {
			if r, err := netip.ParsePrefix(strings.TrimSuffix(word, ",")); err == nil {
				all = append(all, r)
			}
		}
	}
	return all
}

func notAllowed(p netip.Prefix) error {
	return fmt.Errorf("VirtualBox does not allow %s for its host-only networks: since 6.1.28 it wants addresses of %s, or those that %s names.\n"+
		"Give another network with --%s, as %s; or add this line to %s:\n* %s", p, allowDefault, allowFile, flagCIDR, newCIDR, allowFile, p.Masked())
}
