package local

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

const forwarding = "/proc/sys/net/ipv4/ip_forward"

// rule is one firewall rule of a bridge.
type rule struct {
	table, chain string
	spec         []string
}

// rulesFor lets boxes reach each other and the world, under this computer's address, and answers come back, also where the
// chain's policy is to drop, as a Docker Engine on this computer sets it. Who else may reach a box is left to that policy.
func rulesFor(bridge string, subnet netip.Prefix) []rule {
	mark := []string{"-m", "comment", "--comment", "berth " + bridge}
	with := func(spec ...string) []string { return append(spec, mark...) }
	return []rule{
		{"filter", "FORWARD", append(with("-i", bridge), "-j", "ACCEPT")},
		{"filter", "FORWARD", append(with("-o", bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"), "-j", "ACCEPT")},
		{"nat", "POSTROUTING", append(with("-s", subnet.String(), "!", "-d", subnet.String(), "!", "-o", bridge), "-j", "MASQUERADE")},
	}
}

func openIptables() (*iptables.IPTables, error) {
	path, err := lookPath("iptables", strings.Join(systemPath, ":")+":"+os.Getenv("PATH"))
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install iptables", err)
	}
	ipt, err := iptables.New(iptables.Path(path), iptables.Timeout(10))
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	return ipt, nil
}

// addRules puts in the rules that are missing, before whatever else is in the chains.
func addRules(bridge string, subnet netip.Prefix) error {
	ipt, err := openIptables()
	if err != nil {
		return err
	}
	rules := rulesFor(bridge, subnet)
	for i := len(rules) - 1; i >= 0; i-- { // each is put first, so the last one goes first
		r := rules[i]
		there, err := ipt.Exists(r.table, r.chain, r.spec...)
		if err == nil && !there {
			err = ipt.Insert(r.table, r.chain, 1, r.spec...)
		}
		if err != nil {
			return fmt.Errorf("firewall rule for %s: %w", bridge, err)
		}
	}
	return nil
}

func removeRules(bridge string, subnet netip.Prefix) error {
	ipt, err := openIptables()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range rulesFor(bridge, subnet) {
		if err := ipt.DeleteIfExists(r.table, r.chain, r.spec...); err != nil {
			errs = append(errs, fmt.Errorf("firewall rule for %s: %w", bridge, err))
		}
	}
	return errors.Join(errs...)
}

// switchForwardingOn: boxes reach the world through this computer. It is never switched off again, since nobody can tell
// who else has come to need it.
func switchForwardingOn() error {
	on, err := os.ReadFile(forwarding)
	if err == nil && strings.TrimSpace(string(on)) != "1" {
		err = os.WriteFile(forwarding, []byte("1"), 0)
	}
	if err != nil {
		return fmt.Errorf("switch IPv4 forwarding on: %w", err)
	}
	return nil
}
