package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inside is the name of the box's own end of its cable.
const inside = "eth0"

// connect gives the box its place on the network: bridge, rules, namespace, address and cable. What is there already is
// kept, so it also brings back what a reboot or a firewall's restart took away. fixed is the address wanted, if any; a box
// that has one already keeps it.
func (b *box) connect(ctx context.Context, fixed netip.Addr) error {
	unlock, err := lockNetwork(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := checkRange(b.Subnet, b.Bridge); err != nil {
		return err
	}
	if err := b.forgetStale(ctx); err != nil {
		return err
	}
	if b.Address.IsValid() {
		fixed = b.Address
	}
	taken, err := b.takenAddresses()
	if err != nil {
		return err
	}
	address, err := pickAddress(b.Subnet, fixed, taken)
	if err != nil {
		return err
	}
	bridge, err := b.ensureBridge()
	if err != nil {
		return err
	}
	if err := errors.Join(switchForwardingOn(), addRules(b.Bridge, b.Subnet)); err != nil {
		return err
	}
	b.Address = address
	return b.plugIn(bridge)
}

// disconnect takes the box's place on the network away, and the bridge's if it was the last box there.
func (b *box) disconnect(ctx context.Context) error {
	unlock, err := lockNetwork(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := deleteLink(b.HostVeth); err != nil {
		return err
	}
	if err := deleteNetNS(b.NetNS); err != nil {
		return err
	}
	return b.removeIdleBridge()
}

func (b *box) ensureBridge() (netlink.Link, error) {
	link, there, err := findLink(b.Bridge)
	if err != nil {
		return nil, err
	}
	if !there {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = b.Bridge
		// Its own address, or it would change with the boxes that come and go.
		attrs.HardwareAddr = hardwareAddr(b.Bridge)
		link = &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(link); err != nil {
			return nil, fmt.Errorf("make bridge %s: %w", b.Bridge, err)
		}
	}
	address := &netlink.Addr{IPNet: ipNet(gateway(b.Subnet), b.Subnet.Bits())}
	if err := netlink.AddrReplace(link, address); err != nil {
		return nil, fmt.Errorf("give bridge %s the address %s: %w", b.Bridge, address.IPNet, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("switch bridge %s on: %w", b.Bridge, err)
	}
	return link, nil
}

func (b *box) removeIdleBridge() error {
	links, err := listLinks()
	if err != nil {
		return err
	}
	index := 0
	for _, l := range links {
		if l.Attrs().Name == b.Bridge {
			index = l.Attrs().Index
		}
	}
	for _, l := range links {
		if index != 0 && l.Attrs().MasterIndex == index {
			return nil // another box's
		}
	}
	// The bridge goes last: as long as it is there, one can see that there may be rules.
	if err := removeRules(b.Bridge, b.Subnet); err != nil {
		return err
	}
	return deleteLink(b.Bridge)
}

// plugIn makes the namespace and the cable from it to the bridge.
func (b *box) plugIn(bridge netlink.Link) error {
	ns, err := ensureNetNS(b.NetNS)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	in, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", b.NetNS, err)
	}
	defer in.Close()
	host, err := b.ensureCable(bridge, ns, in)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetAlias(host, b.alias()); err != nil {
		return fmt.Errorf("mark %s: %w", b.HostVeth, err)
	}
	if err := netlink.LinkSetMaster(host, bridge); err != nil {
		return fmt.Errorf("plug %s into %s: %w", b.HostVeth, b.Bridge, err)
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("switch %s on: %w", b.HostVeth, err)
	}
	return b.configure(in)
}

// ensureCable keeps a cable that has both its ends where they belong, and replaces any other.
func (b *box) ensureCable(bridge netlink.Link, ns netns.NsHandle, in *netlink.Handle) (netlink.Link, error) {
	host, plugged, err := findLink(b.HostVeth)
	if err != nil {
		return nil, err
	}
	end, err := in.LinkByName(inside)
	if err != nil && !notFound(err) {
		return nil, fmt.Errorf("look for %s in %s: %w", inside, b.NetNS, err)
	}
	if plugged && end != nil && host.Attrs().ParentIndex == end.Attrs().Index && end.Attrs().ParentIndex == host.Attrs().Index {
		return host, nil
	}
	if plugged {
		if err := deleteLink(b.HostVeth); err != nil {
			return nil, err
		}
	}
	// The two may have been one cable: look again.
	if end, err = in.LinkByName(inside); err == nil {
		if err := in.LinkDel(end); err != nil {
			return nil, fmt.Errorf("remove the old %s in %s: %w", inside, b.NetNS, err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = b.HostVeth
	cable := netlink.NewVeth(attrs)
	cable.PeerName = inside
	cable.PeerNamespace = netlink.NsFd(int(ns))
	// The same one whenever the machine starts, so that nobody's ARP table is wrong.
	cable.PeerHardwareAddr = hardwareAddr(b.ID)
	if err := netlink.LinkAdd(cable); err != nil {
		return nil, fmt.Errorf("make cable %s to %s: %w", b.HostVeth, bridge.Attrs().Name, err)
	}
	return cable, nil
}

// configure sets the box's own interfaces up.
func (b *box) configure(in *netlink.Handle) error {
	for _, name := range []string{"lo", inside} {
		link, err := in.LinkByName(name)
		if err == nil && name == inside {
			err = in.AddrReplace(link, &netlink.Addr{IPNet: ipNet(b.Address, b.Subnet.Bits())})
		}
		if err == nil {
			err = in.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("set %s in %s up: %w", name, b.NetNS, err)
		}
	}
	if err := in.RouteReplace(&netlink.Route{Gw: net.IP(gateway(b.Subnet).AsSlice())}); err != nil {
		return fmt.Errorf("route of %s: %w", b.NetNS, err)
	}
	return nil
}

// forgetStale unplugs the boxes whose machine's directory is gone and in which nothing runs: nobody can remove them by name.
func (b *box) forgetStale(ctx context.Context) error {
	claims, err := listClaims()
	if err != nil {
		return err
	}
	for _, c := range claims {
		if c.id == b.ID || c.dir == "" {
			continue
		}
		if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		other := &box{ID: c.id, Subnet: b.Subnet}
		other.derive()
		if pids, err := other.pids(); err != nil || len(pids) > 0 {
			continue // it lives, though this process cannot see its directory
		}
		if err := errors.Join(other.end(ctx), deleteLink(other.HostVeth), deleteNetNS(other.NetNS)); err != nil {
			return fmt.Errorf("forget %s: %w", c.owner(), err)
		}
	}
	return nil
}

func hardwareAddr(seed string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(seed))
	return append(net.HardwareAddr{0x02, 0xbe}, sum[:4]...) // 02: given locally
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}

func findLink(name string) (link netlink.Link, there bool, err error) {
	link, err = netlink.LinkByName(name)
	if notFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look for interface %s: %w", name, err)
	}
	return link, true, nil
}

func deleteLink(name string) error {
	link, there, err := findLink(name)
	if err != nil || !there {
		return err
	}
	// It may have gone with its other end.
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

func notFound(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}

func listLinks() ([]netlink.Link, error) {
	links, err := retry(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return links, nil
}

// retry takes a listing again that was disturbed by a change, a few times at most.
func retry[T any](list func() ([]T, error)) ([]T, error) {
	for n := 0; ; n++ {
		all, err := list()
		if n == 10 || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}
