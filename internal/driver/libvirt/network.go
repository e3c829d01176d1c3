package libvirt

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
)

// netXML is what matters of a network.
type netXML struct {
	Name    string `xml:"name"`
	Forward struct {
		Mode string `xml:"mode,attr"`
	} `xml:"forward"`
	IPs []struct {
		Family  string `xml:"family,attr"`
		Address string `xml:"address,attr"`
		DHCP    struct {
			Ranges []struct {
				Start string `xml:"start,attr"`
				End   string `xml:"end,attr"`
			} `xml:"range"`
			Hosts []hostXML `xml:"host"`
		} `xml:"dhcp"`
	} `xml:"ip"`
}

// hostXML is an address that is reserved.
type hostXML struct {
	XMLName xml.Name `xml:"host"`
	MAC     string   `xml:"mac,attr"`
	Name    string   `xml:"name,attr,omitempty"`
	IP      string   `xml:"ip,attr"`
}

// named tells whether the machine is on one of libvirt's networks.
func (v vm) named() bool {
	return v.Network != userNetwork && !strings.HasPrefix(v.Network, bridgeStart)
}

// network is the machine's, running.
func (c conn) network(name string, progress func(string)) (rpc.Network, error) {
	n, err := c.NetworkLookupByName(name)
	if missing(err) {
		how := ""
		if name == "default" {
			how = ": virsh -c " + string(c.name) + " net-define /usr/share/libvirt/networks/default.xml (of libvirt-daemon-config-network)"
		}
		if c.session {
			how += "; a session has none, as a rule: --" + flagNetwork + " user"
		}
		return n, fmt.Errorf("--%s %s: libvirt has no such network%s", flagNetwork, name, how)
	}
	if err != nil {
		return n, err
	}
	active, err := c.NetworkIsActive(n)
	if err == nil && active == 0 {
		progress("Starting network " + name + "...")
		if err = c.NetworkCreate(n); err != nil {
			err = fmt.Errorf("start network %s: %w", name, err)
		}
	}
	return n, err
}

// reserve takes an address for the machine for good, where libvirt's network gives addresses; "" elsewhere.
func (c conn) reserve(v vm, name string, progress func(string)) (string, error) {
	if !v.named() {
		return "", nil
	}
	n, err := c.network(v.Network, progress)
	if err != nil {
		return "", err
	}
	text, err := c.NetworkGetXMLDesc(n, 0)
	if err != nil {
		return "", err
	}
	leases, _, err := c.NetworkGetDhcpLeases(n, nil, 1, 0)
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, l := range leases {
		taken[l.Ipaddr] = true
	}
	at, ip, err := freeAddress(text, taken)
	if err != nil || ip == "" {
		return "", err
	}
	host, err := xml.Marshal(hostXML{MAC: v.MAC, Name: name, IP: ip})
	if err != nil {
		return "", err
	}
	if err := c.changeHost(n, rpc.NetworkUpdateCommandAddLast, at, string(host)); err != nil {
		return "", fmt.Errorf("reserve %s on network %s: %w", ip, v.Network, err)
	}
	return ip, nil
}

// changeHost changes the reservations of a network, in its record and, if it runs, at once.
func (c conn) changeHost(n rpc.Network, command rpc.NetworkUpdateCommand, at int, host string) error {
	flags := rpc.NetworkUpdateAffectCurrent
	active, err := c.NetworkIsActive(n)
	if err != nil {
		return err
	}
	persistent, err := c.NetworkIsPersistent(n)
	if err != nil {
		return err
	}
	if active != 0 {
		flags |= rpc.NetworkUpdateAffectLive
	}
	if persistent != 0 {
		flags |= rpc.NetworkUpdateAffectConfig
	}
	return c.NetworkUpdateCompat(n, command, rpc.NetworkSectionIPDhcpHost, int32(at), host, flags) //nolint:gosec // a small number
}

// freeAddress finds an address that the network would give and nobody has; "" if it gives none. at is the number of the network's
// family that it is of.
func freeAddress(text string, taken map[string]bool) (at int, ip string, err error) {
	var net netXML
	if err := xml.Unmarshal([]byte(text), &net); err != nil {
		return 0, "", err
	}
	gives := false
	for at, family := range net.IPs {
		if family.Family == "ipv6" {
			continue
		}
		used := map[string]bool{family.Address: true}
		for _, h := range family.DHCP.Hosts {
			used[h.IP] = true
		}
		for _, r := range family.DHCP.Ranges {
			start, startErr := netip.ParseAddr(r.Start)
			end, endErr := netip.ParseAddr(r.End)
			if err := errors.Join(startErr, endErr); err != nil {
				return 0, "", err
			}
			gives = true
			for a := start; a.IsValid() && !end.Less(a); a = a.Next() {
				if !used[a.String()] && !taken[a.String()] {
					return at, a.String(), nil
				}
			}
		}
	}
	if gives {
		return 0, "", fmt.Errorf("network %s has no free address", net.Name)
	}
	return 0, "", nil
}

// release gives the machine's address back.
func (c conn) release(v vm) error {
	if !v.named() {
		return nil
	}
	n, err := c.NetworkLookupByName(v.Network)
	if err != nil {
		return unlessMissing(err)
	}
	text, err := c.NetworkGetXMLDesc(n, 0)
	if err != nil {
		return unlessMissing(err)
	}
	var net netXML
	if err := xml.Unmarshal([]byte(text), &net); err != nil {
		return err
	}
	for at, family := range net.IPs {
		for _, h := range family.DHCP.Hosts {
			if !strings.EqualFold(h.MAC, v.MAC) {
				continue
			}
			host, err := xml.Marshal(h)
			if err != nil {
				return err
			}
			if err := c.changeHost(n, rpc.NetworkUpdateCommandDelete, at, string(host)); err != nil {
				return err
			}
		}
	}
	return nil
}

// address is the machine's, as libvirt knows it: from its lease, from the machine's agent, or from this computer's neighbours. Invalid if
// nobody knows.
func (c conn) address(v vm) netip.Addr {
	dom, err := c.domain(v)
	if err != nil {
		return netip.Addr{}
	}
	for _, source := range []rpc.DomainInterfaceAddressesSource{rpc.DomainInterfaceAddressesSrcLease, rpc.DomainInterfaceAddressesSrcAgent, rpc.DomainInterfaceAddressesSrcArp} {
		nics, err := c.DomainInterfaceAddresses(dom, uint32(source), 0) //nolint:gosec // a small number
		if err != nil {
			continue // it knows none
		}
		if a := pick(nics, v.MAC); a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// pick takes the address of the machine's own interface: an IPv4 one if there is one.
func pick(nics []rpc.DomainInterface, mac string) netip.Addr {
	best := netip.Addr{}
	for _, n := range nics {
		if len(n.Hwaddr) == 0 || !strings.EqualFold(n.Hwaddr[0], mac) {
			continue
		}
		for _, a := range n.Addrs {
			ip, err := netip.ParseAddr(a.Addr)
			if err == nil && ip.IsGlobalUnicast() && (!best.IsValid() || ip.Is4() && best.Is6()) {
				best = ip
			}
		}
	}
	return best
}
