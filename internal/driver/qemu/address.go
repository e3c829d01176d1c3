package qemu

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"berth/internal/machine"
)

// addressTime is for a machine to boot and to be given an address.
const (
	addressTime         = 5 * time.Minute
	emulatedAddressTime = 20 * time.Minute
)

// findAddress looks for the address of a machine on a bridge or a tap; invalid if it is not to be found.
func findAddress(ctx context.Context, i machine.Instance, v vm) netip.Addr {
	if a := neighbour(v.MAC); a.IsValid() {
		return a
	}
	if a := agentAddress(ctx, i, v.MAC); a.IsValid() {
		return a
	}
	if n := parseNetwork(v.Network); n.kind == bridgeNetwork {
		for _, p := range onBridge(n.name) {
			greet(ctx, p)
		}
	}
	return neighbour(v.MAC)
}

// neighbour looks for the machine among those that this computer has heard of.
func neighbour(mac string) netip.Addr {
	text, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		return netip.Addr{}
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		const complete = "0x2"
		f := strings.Fields(lines.Text())
		if len(f) < 4 || f[2] != complete || !strings.EqualFold(f[3], mac) {
			continue
		}
		if a, err := netip.ParseAddr(f[0]); err == nil {
			return a
		}
	}
	return netip.Addr{}
}

// greet sends a byte to every address of a small network, so that the kernel asks who has it.
func greet(ctx context.Context, p netip.Prefix) {
	const largest = 22 // bits of a network with a thousand addresses
	if p.Bits() < largest {
		return
	}
	for a := p.Masked().Addr().Next(); p.Contains(a) && ctx.Err() == nil; a = a.Next() {
		c, err := (&net.Dialer{}).DialContext(ctx, "udp", netip.AddrPortFrom(a, 9).String()) // discard
		if err != nil {
			return
		}
		_, _ = c.Write([]byte{0}) // nobody need be there
		_ = c.Close()
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Second): // for the answers
	}
}

// awaitAddress waits for a machine on a bridge or a tap to have an address.
func awaitAddress(ctx context.Context, i machine.Instance, v vm, limit time.Duration) (machine.Instance, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it has no address after %s", limit))
	defer cancel()
	for {
		if a := findAddress(ctx, i, v); a.IsValid() {
			i.IPAddress = a.String()
			return i, nil
		}
		if err := mustLive(i); err != nil {
			return i, fmt.Errorf("%w\nThe end of its console:\n%s", err, consoleEnd(i))
		}
		select {
		case <-ctx.Done():
			return i, fmt.Errorf("wait for its address on %s: %w (is there a DHCP server? else give one with --%s)", v.Network, context.Cause(ctx), flagAddress)
		case <-time.After(time.Second):
		}
	}
}
