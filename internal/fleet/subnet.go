package fleet

import (
	"encoding/json"
	"net/netip"
	"strconv"
)

// Subnets are the ranges of addresses that the network's containers have.
func (n *Network) Subnets() []netip.Prefix {
	var row struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
	if json.Unmarshal(n.Row, &row) != nil {
		return nil // a row that says nothing
	}
	var all []netip.Prefix
	for _, c := range row.IPAM.Config {
		if p, err := netip.ParsePrefix(c.Subnet); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

// MTU is the largest packet of the network as its options say; 0 if they do not.
func (n *Network) MTU() int {
	var row struct{ Options map[string]string }
	if json.Unmarshal(n.Row, &row) != nil {
		return 0
	}
	mtu, _ := strconv.Atoi(row.Options["com.docker.network.driver.mtu"])
	return mtu
}
