package qemu

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"

	"berth/internal/machine"
)

// Ports are taken from below those that systems give to outgoing connections, so that a machine that was off finds its own again.
const (
	firstPort = 20000
	lastPort  = 32000
)

// onLoopback tells whether the machine is reached by ports of this computer.
func (v vm) onLoopback() bool { return parseNetwork(v.Network).kind == userNetwork }

// givePorts has new ports lead to the machine's sshd and engine.
func (v vm) givePorts(i machine.Instance) (machine.Instance, error) {
	taken := map[int]bool{}
	for _, f := range v.Forwards {
		taken[f.Host] = true
	}
	var err error
	i.IPAddress, i.InnerPort = loopback, enginePort
	if i.SSHPort, err = freePort(taken); err != nil {
		return i, err
	}
	taken[i.SSHPort] = true
	i.EnginePort, err = freePort(taken)
	return i, err
}

func freePort(taken map[int]bool) (int, error) {
	const tries = 200
	for range tries {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // no secret
		if !taken[port] && portFree(port) == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port was found on %s from %d to %d", loopback, firstPort, lastPort)
}

// portFree is an error if something listens there.
func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port))) //nolint:noctx // it does not wait
	if err != nil {
		return err
	}
	return l.Close()
}

// keepPorts sees to it that the machine's ports can be had. Those that berth chose are replaced if something else has them by now;
// those that the user named are the user's to free.
func (v vm) keepPorts(i machine.Instance) (machine.Instance, error) {
	if !v.onLoopback() {
		return i, nil
	}
	for _, f := range v.Forwards {
		if err := portFree(f.Host); err != nil {
			return i, fmt.Errorf("port %d, which --%s leads into the machine, cannot be had: %w", f.Host, flagForward, err)
		}
	}
	if errors.Join(portFree(i.SSHPort), portFree(i.EnginePort)) == nil {
		return i, nil
	}
	return v.givePorts(i)
}
