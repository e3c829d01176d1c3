package virtualbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"berth/internal/machine"
)

// awaitAddress waits until the machine says which address it has on the host-only network.
func (d Driver) awaitAddress(ctx context.Context, m manager, i machine.Instance, v vm) (machine.Instance, error) {
	if d.Shell == nil {
		return i, nil
	}
	const limit = time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not after %s", limit))
	defer cancel()
	for {
		info, err := m.info(ctx, v.handle(i))
		if err != nil {
			return i, err
		}
		a, err := d.ask(ctx, i, info)
		if err == nil {
			i.IPAddress = a.String()
			return i, nil
		}
		select {
		case <-ctx.Done():
			return i, fmt.Errorf("wait for its address on the host-only network: %w: %w", context.Cause(ctx), err)
		case <-time.After(pollTime):
		}
	}
}

// ask asks the machine for the address of its interface on the host-only network.
func (d Driver) ask(ctx context.Context, i machine.Instance, info map[string]string) (netip.Addr, error) {
	mac := hostOnlyMAC(info)
	if mac == "" {
		return netip.Addr{}, errors.New("it has no interface on a host-only network")
	}
	out, err := d.Shell.Run(ctx, i, "ip addr show")
	if err != nil {
		return netip.Addr{}, err
	}
	a := findAddress(out, mac)
	if !a.IsValid() {
		return a, fmt.Errorf("its interface %s has no address", mac)
	}
	return a, nil
}

// hostOnlyMAC is of the machine's interface on the host-only network; "" if it has none.
func hostOnlyMAC(info map[string]string) string {
	const most = 8
	for n := 1; n <= most; n++ {
		if info[fmt.Sprintf("hostonlyadapter%d", n)] != "" {
			return colons(info[fmt.Sprintf("macaddress%d", n)])
		}
	}
	return ""
}

// findAddress reads `ip addr show`: the IPv4 address of the interface with that MAC.
func findAddress(text, mac string) netip.Addr {
	here := false
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) < 2:
		case strings.HasPrefix(f[0], "link/"):
			here = strings.EqualFold(f[1], mac)
		case here && f[0] == "inet":
			if p, err := netip.ParsePrefix(f[1]); err == nil {
				return p.Addr()
			}
		}
	}
	return netip.Addr{}
}
