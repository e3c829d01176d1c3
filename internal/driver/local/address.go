package local

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// vethPrefix and a box's ID name the host's end of its cable.
	vethPrefix = "bv"
	// aliasPrefix begins the alias of a host's end, which says whose it is: the claim on an address is the cable itself, so it
	// cannot outlive what it stands for.
	aliasPrefix = "berth "
	maxAlias    = 255
)

// pickAddress gives the fixed address, or else the first free one. taken says who has one.
func pickAddress(subnet netip.Prefix, fixed netip.Addr, taken map[netip.Addr]string) (netip.Addr, error) {
	if fixed.IsValid() {
		if owner, ok := taken[fixed]; ok {
			return netip.Addr{}, fmt.Errorf("%s is the address of %s: choose another with --%s", fixed, owner, flagAddress)
		}
		return fixed, nil
	}
	for a := gateway(subnet).Next(); subnet.Contains(a.Next()); a = a.Next() {
		if _, ok := taken[a]; !ok {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("every address of %s is taken: choose another range with --%s", subnet, flagSubnet)
}

// takenAddresses are those of other boxes: of every one that is plugged in here, and of the neighbours in the store, which
// may be waiting for their first start after a reboot.
func (b *box) takenAddresses() (map[netip.Addr]string, error) {
	taken := map[netip.Addr]string{}
	records, err := filepath.Glob(filepath.Join(escapeGlob(filepath.Dir(b.dir)), "*", boxDir, recordFile))
	if err != nil {
		return nil, fmt.Errorf("look for the store's boxes: %w", err)
	}
	for _, path := range records {
		var other box
		text, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(text, &other) != nil {
			continue // on its way out, or damaged; if it is plugged in, its cable says so
		}
		if other.ID != b.ID && other.Address.IsValid() {
			taken[other.Address] = filepath.Base(filepath.Dir(filepath.Dir(path)))
		}
	}
	claims, err := listClaims()
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		if c.id != b.ID {
			taken[c.address] = c.owner()
		}
	}
	return taken, nil
}

// escapeGlob: a store's path is nobody's pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// claim is a cable that is plugged in.
type claim struct {
	id      string
	address netip.Addr
	dir     string // the machine's; "" if it was too long to be written down
}

func (c claim) owner() string {
	if c.dir == "" {
		return "box " + c.id
	}
	return fmt.Sprintf("%s (%s)", filepath.Base(c.dir), c.dir)
}

// alias is what the host's end of the box's cable says.
func (b *box) alias() string {
	long := aliasPrefix + b.Address.String() + " " + b.dir
	if len(long) > maxAlias {
		return aliasPrefix + b.Address.String()
	}
	return long
}

// parseClaim reads a link's name and alias; ok is false where the link is none of ours.
func parseClaim(name, alias string) (claim, bool) {
	id, ours := strings.CutPrefix(name, vethPrefix)
	text, marked := strings.CutPrefix(alias, aliasPrefix)
	if !ours || !marked || !boxID.MatchString(id) {
		return claim{}, false
	}
	address, dir, _ := strings.Cut(text, " ")
	a, err := netip.ParseAddr(address)
	return claim{id: id, address: a, dir: dir}, err == nil
}

func listClaims() ([]claim, error) {
	links, err := listLinks()
	if err != nil {
		return nil, err
	}
	var claims []claim
	for _, l := range links {
		if c, ok := parseClaim(l.Attrs().Name, l.Attrs().Alias); ok {
			claims = append(claims, c)
		}
	}
	return claims, nil
}

// use is a part of the address space that a link of this computer has, or leads to.
type use struct {
	prefix netip.Prefix
	link   int
}

// checkRange refuses a subnet that this computer uses for something else than the boxes' bridge.
func checkRange(subnet netip.Prefix, bridge string) error {
	var uses []use
	addresses, err := retry(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		uses = append(uses, use{prefixOf(a.IPNet), a.LinkIndex})
	}
	routes, err := retry(func() ([]netlink.Route, error) { return netlink.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		// The wide ones are default routes; a VPN splits its own in two.
		if p := prefixOf(r.Dst); p.Bits() >= 8 {
			uses = append(uses, use{p, r.LinkIndex})
		}
	}
	// Names come last: another berth may be making or removing the bridge, and what was in use by a link that is gone is in use no more.
	links, err := listLinks()
	if err != nil {
		return err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return refuseUsed(subnet, bridge, uses, names)
}

func refuseUsed(subnet netip.Prefix, bridge string, uses []use, names map[int]string) error {
	for _, u := range uses {
		name, there := names[u.link]
		gone := u.link != 0 && !there // a route may have no link at all
		if !u.prefix.Overlaps(subnet) || name == bridge || gone {
			continue
		}
		return fmt.Errorf("%s is in use on this computer (%s on %s): choose another range with --%s", subnet, u.prefix, name, flagSubnet)
	}
	return nil
}

// prefixOf is the zero Prefix, which overlaps nothing, where n is no IPv4 network.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP.To4())
	bits, size := n.Mask.Size()
	if !ok || size != 32 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, bits).Masked()
}
