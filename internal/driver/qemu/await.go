package qemu

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"berth/internal/machine"
	"berth/internal/vmlogin"
)

// How long a machine may take to boot, and its engine to answer then.
const (
	bootTime           = 5 * time.Minute
	emulatedBootTime   = 20 * time.Minute
	engineTime         = 30 * time.Second
	emulatedEngineTime = 5 * time.Minute
)

// await returns when the machine has booted as far as its sshd, if the driver is to wait at all, and when its engine answers, too, if it had
// one before.
func (d Driver) await(ctx context.Context, i machine.Instance, v vm, progress func(string), provisioned bool) (machine.Instance, error) {
	boot := vmlogin.Boot{Limit: bootTime, EngineLimit: engineTime}
	address := addressTime
	if how, err := chooseAccelerator(v.Accel, v.Arch); err == nil && how.name == tcg {
		boot.Limit, boot.EngineLimit, address = emulatedBootTime, emulatedEngineTime, emulatedAddressTime
	}
	if !v.onLoopback() && v.Static == "" {
		progress("Waiting for the machine's address...")
		var err error
		if i, err = awaitAddress(ctx, i, v, address); err != nil {
			return i, err
		}
	}
	if !d.AwaitBoot {
		return i, nil
	}
	progress("Waiting for the machine to boot...")
	boot.SSH = net.JoinHostPort(i.IPAddress, strconv.Itoa(i.SSHPort))
	boot.Engine = net.JoinHostPort(i.IPAddress, strconv.Itoa(cmp.Or(i.EnginePort, enginePort)))
	boot.Lives = func(context.Context) error { return mustLive(i) }
	boot.Console = func() string { return consoleEnd(i) }
	if err := boot.AwaitSSH(ctx); err != nil || !provisioned {
		return i, err
	}
	return i, boot.AwaitEngine(ctx)
}

// mustLive is an error if the machine's process has ended.
func mustLive(i machine.Instance) error {
	if p, err := findProcess(i); err != nil || p.runs() {
		return err
	}
	return fmt.Errorf("the machine has switched itself off, or its QEMU ended: %s", tail(i, logFile))
}

// consoleEnd is what the machine wrote last, and where the rest is; "" if it wrote nothing.
func consoleEnd(i machine.Instance) string {
	text := tail(i, serialFile)
	if text == "" {
		return ""
	}
	return text + "\n(all of it is in " + file(i, serialFile) + ")"
}
