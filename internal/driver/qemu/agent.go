package qemu

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"berth/internal/machine"
)

// agentTime bounds a question to the machine's guest agent, which may not be installed, or not run yet.
const agentTime = 5 * time.Second

// askAgent gives one command to the guest agent.
func askAgent(ctx context.Context, i machine.Instance, name string, args map[string]any, result any) error {
	m, err := openSocket(ctx, file(i, gaSocket), agentTime)
	if err != nil {
		return err
	}
	return errors.Join(m.run(name, args, result), m.Close())
}

// setClock has the clock of a machine that was saved go right again, if its agent is there: else the machine's own time service has to.
func setClock(ctx context.Context, i machine.Instance) {
	_ = askAgent(ctx, i, "guest-set-time", map[string]any{"time": time.Now().UnixNano()}, nil)
}

// agentAddress is the machine's own word for its address.
func agentAddress(ctx context.Context, i machine.Instance, mac string) netip.Addr {
	var nics []struct {
		MAC       string `json:"hardware-address"`
		Addresses []struct {
			Address string `json:"ip-address"`
		} `json:"ip-addresses"`
	}
	if err := askAgent(ctx, i, "guest-network-get-interfaces", nil, &nics); err != nil {
		return netip.Addr{}
	}
	best := netip.Addr{}
	for _, n := range nics {
		if !strings.EqualFold(n.MAC, mac) {
			continue
		}
		for _, a := range n.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if err == nil && ip.IsGlobalUnicast() && (!best.IsValid() || ip.Is4() && best.Is6()) {
				best = ip
			}
		}
	}
	return best
}

// onBridge are the addresses of this computer on a bridge: the machine's neighbours.
func onBridge(name string) []netip.Prefix {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	addresses, err := nic.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			out = append(out, p)
		}
	}
	return out
}
