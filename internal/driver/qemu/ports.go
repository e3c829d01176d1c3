package qemu

import (
	"errors"
	"fmt"

	"berth/internal/machine"
	"berth/internal/vmlogin"
)

// onLoopback tells whether the machine is reached by ports of this computer.
func (v vm) onLoopback() bool { return parseNetwork(v.Network).kind == userNetwork }

// givePorts has new ports lead to the machine's sshd and engine.
func (v vm) givePorts(i machine.Instance) (machine.Instance, error) {
	var taken []int
	for _, f := range v.Forwards {
		taken = append(taken, f.Host)
	}
	var err error
	i.IPAddress, i.InnerPort = loopback, enginePort
	if i.SSHPort, err = vmlogin.FreePort(taken...); err != nil {
		return i, err
	}
	i.EnginePort, err = vmlogin.FreePort(append(taken, i.SSHPort)...)
	return i, err
}

// keepPorts sees to it that the machine's ports can be had. Those that berth chose are replaced if something else has them by now;
// those that the user named are the user's to free.
func (v vm) keepPorts(i machine.Instance) (machine.Instance, error) {
	if !v.onLoopback() {
		return i, nil
	}
	for _, f := range v.Forwards {
		if err := vmlogin.PortFree(f.Host); err != nil {
			return i, fmt.Errorf("port %d, which --%s leads into the machine, cannot be had: %w", f.Host, flagForward, err)
		}
	}
	if errors.Join(vmlogin.PortFree(i.SSHPort), vmlogin.PortFree(i.EnginePort)) == nil {
		return i, nil
	}
	return v.givePorts(i)
}
