package virtualbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"berth/internal/hostlock"
	"berth/internal/machine"
)

// lock keeps other berths of this user's from VirtualBox's networks and ports meanwhile: what is free is found out first and taken after.
func lock(ctx context.Context) (unlock func(), err error) { return hostlock.Lock(ctx, "virtualbox") }

// adapters are this computer's host-only interfaces. Two with one name or one address lead nowhere.
func (m manager) adapters(ctx context.Context) ([]adapter, error) {
	out, err := m.run(ctx, "list", "hostonlyifs")
	if err != nil {
		return nil, err
	}
	all := parseAdapters(out)
	names, addresses := map[string]bool{}, map[netip.Prefix]bool{}
	for _, a := range all {
		if names[a.name] || a.address.IsValid() && addresses[a.address] {
			return nil, fmt.Errorf("VirtualBox is configured with multiple host-only adapters with the same name or address (%s, %s): remove one of them, by VBoxManage hostonlyif remove NAME or in its File > Host Network Manager", a.name, a.address)
		}
		names[a.name], addresses[a.address] = true, true
	}
	return all, nil
}

// ensureAdapter has an interface with that address on this computer, and a DHCP server beside it unless there is to be none.
func ensureAdapter(ctx context.Context, m manager, want netip.Prefix, dhcp bool) (adapter, error) {
	all, err := m.adapters(ctx)
	if err != nil {
		return adapter{}, err
	}
	a, err := pick(all, want)
	if err != nil {
		return adapter{}, err
	}
	if a.name == "" {
		if a, err = makeAdapter(ctx, m, want); err != nil {
			return adapter{}, err
		}
		all = append(all, a)
	}
	return a, ensureServer(ctx, m, all, a, dhcp)
}

// pick finds the interface among VirtualBox's; none is no error. One of another network's may not have the address, or two would.
func pick(all []adapter, want netip.Prefix) (adapter, error) {
	ours := map[string]bool{}
	for _, a := range all {
		if a.address == want {
			return a, nil
		}
		if a.address.IsValid() && a.address.Overlaps(want) {
			return adapter{}, fmt.Errorf("host-only network %s overlaps %s, which %s has: name that one with --%s, or another network", want, a.address, a.name, flagCIDR)
		}
		ours[a.name] = true
	}
	return adapter{}, collision(want, ours)
}

// collision is an error if one of this computer's other interfaces has addresses of the network.
func collision(want netip.Prefix, except map[string]bool) error {
	nics, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, n := range nics {
		if n.Flags&net.FlagUp == 0 || except[n.Name] {
			continue
		}
		addresses, err := n.Addrs()
		if err != nil {
			continue // it is gone meanwhile
		}
		for _, a := range addresses {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Overlaps(want) {
				return fmt.Errorf("host-only network %s: this computer's interface %s already has addresses of it (%s): give another with --%s", want, n.Name, p, flagCIDR)
			}
		}
	}
	return nil
}

const createdEnd = "was successfully created"

// makeAdapter makes an interface and gives it its address.
func makeAdapter(ctx context.Context, m manager, want netip.Prefix) (adapter, error) {
	out, err := m.run(ctx, "hostonlyif", "create")
	if err != nil {
		return adapter{}, fmt.Errorf("create a host-only interface: %w", err)
	}
	name := ""
	for _, line := range strings.Split(out, "\n") {
		if f := strings.Split(line, "'"); strings.Contains(line, createdEnd) && len(f) >= 3 {
			name = f[1]
		}
	}
	if name == "" {
		return adapter{}, fmt.Errorf("create a host-only interface: VBoxManage said %q and not its name", strings.TrimSpace(out))
	}
	if err := awaitAdapter(ctx, m, name); err != nil {
		return adapter{}, err
	}
	_, err = m.run(ctx, "hostonlyif", "ipconfig", name, "--ip", want.Addr().String(), "--netmask", mask(want))
	if err != nil {
		if said(err, saysDenied) {
			err = errors.Join(notAllowed(want), err)
		}
		_, undo := m.run(context.WithoutCancel(ctx), "hostonlyif", "remove", name)
		return adapter{}, errors.Join(err, undo)
	}
	return adapter{name: name, network: networkPrefix + name, address: want}, nil
}

// awaitAdapter: a new interface shows a while later, on Windows.
func awaitAdapter(ctx context.Context, m manager, name string) error {
	const tries = 10
	for range tries {
		all, err := m.adapters(ctx)
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.name == name {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollTime):
		}
	}
	return fmt.Errorf("VirtualBox made the host-only interface %s, but does not show it", name)
}

// ensureServer has a DHCP server on the network, for machines that docker-machine made or that have no fixed address. One that is there and
// works is left as it is; those of interfaces that are gone are removed.
func ensureServer(ctx context.Context, m manager, all []adapter, a adapter, dhcp bool) error {
	out, err := m.run(ctx, "list", "dhcpservers")
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, a := range all {
		there[a.network] = true
	}
	command := "add"
	for _, s := range parseServers(out) {
		if strings.HasPrefix(s.network, networkPrefix) && !there[s.network] {
			if _, err := m.run(ctx, "dhcpserver", "remove", "--netname", s.network); err != nil && !said(err, saysNotFound) {
				return err
			}
			continue
		}
		if s.network != a.network {
			continue
		}
		command = "modify"
		fits := a.address.Contains(s.low) && a.address.Contains(s.high) && a.address.Contains(s.address) && s.address != a.address.Addr()
		if !dhcp && !s.enabled || dhcp && s.enabled && fits {
			return nil
		}
	}
	l, enable := layoutOf(a.address), "--enable"
	if !dhcp {
		if command == "add" {
			return nil
		}
		enable = "--disable"
	}
	_, err = m.run(ctx, "dhcpserver", command, "--netname", a.network, "--ip", l.server.String(), "--netmask", mask(a.address),
		"--lowerip", l.low.String(), "--upperip", l.high.String(), enable)
	return err
}

// takeAddress gives the machine a fixed address on its host-only network, if it can be told one, and notes it where other berths see it.
func takeAddress(ctx context.Context, m manager, i machine.Instance, set *settings) (machine.Instance, error) {
	if set.image.ConfigDrive {
		return i, nil
	}
	unlock, err := lock(ctx)
	if err != nil {
		return i, err
	}
	defer unlock()
	a, err := ensureAdapter(ctx, m, set.cidr, !set.HostOnlyNoDHCP)
	if err != nil {
		return i, err
	}
	taken, err := m.addresses(ctx)
	if err != nil {
		return i, err
	}
	out, err := m.run(ctx, "list", "dhcpservers")
	if err != nil {
		return i, err
	}
	ip, err := freeAddress(a, parseServers(out), taken)
	if err != nil {
		return i, err
	}
	if _, err := m.run(ctx, "setextradata", set.UUID, addressKey, ip.String()); err != nil {
		return i, err
	}
	set.Address, i.IPAddress = ip.String(), ip.String()
	i.Raw, err = json.Marshal(set.vm)
	return i, err
}

// freeAddress is one that is neither this computer's, nor a machine's, nor of those that DHCP gives away.
func freeAddress(a adapter, servers []server, taken map[netip.Addr]bool) (netip.Addr, error) {
	l := layoutOf(a.address)
	for n := l.first; n < l.end; n++ {
		ip := at(a.address, n)
		free := ip != a.address.Addr() && !taken[ip]
		for _, s := range servers {
			if s.network == a.network && s.enabled {
				free = free && ip != s.address && (ip.Less(s.low) || s.high.Less(ip))
			}
		}
		if free {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address is free on the host-only network %s: give another with --%s", a.address, flagCIDR)
}

// addresses are those that berth has given to machines, of any store.
func (m manager) addresses(ctx context.Context) (map[netip.Addr]bool, error) {
	out, err := m.run(ctx, "list", "vms")
	if err != nil {
		return nil, err
	}
	taken := map[netip.Addr]bool{}
	for id := range machineList(out) {
		out, err := m.run(ctx, "getextradata", id, addressKey)
		if said(err, saysNoMachine) {
			continue // meanwhile
		}
		if err != nil {
			return nil, err
		}
		_, value, _ := strings.Cut(strings.TrimSpace(out), "Value: ")
		if ip, err := netip.ParseAddr(value); err == nil {
			taken[ip] = true
		}
	}
	return taken, nil
}
