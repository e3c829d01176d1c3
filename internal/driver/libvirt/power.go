package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"berth/internal/machine"
	"berth/internal/vmlogin"
)

// How long a machine may take; one that is emulated needs more. Between two presses of its power button is pressTime, since one that is
// just booting does not feel it.
const (
	bootTime           = 5 * time.Minute
	emulatedBootTime   = 20 * time.Minute
	engineTime         = 30 * time.Second
	emulatedEngineTime = 5 * time.Minute
	stopTime           = 5 * time.Minute
	pressTime          = 10 * time.Second
	pollTime           = time.Second
)

func silent(string) {}

// Start implements machine.Power. A saved machine goes on where it was.
func (d Driver) Start(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	v, err := readVM(i)
	if err != nil {
		return i, err
	}
	running := false
	err = with(ctx, v.URI, workTime, func(c conn) error {
		var err error
		running, i, err = c.start(v, i)
		return err
	})
	if err != nil || running {
		return i, err
	}
	if i, err = d.await(ctx, i, v, silent); err != nil || !d.AwaitBoot {
		return i, err
	}
	return i, d.coming(i, v).AwaitEngine(ctx)
}

// start switches the machine on; running says that it was on already.
func (c conn) start(v vm, i machine.Instance) (running bool, _ machine.Instance, err error) {
	dom, err := c.domain(v)
	if missing(err) {
		return false, i, errors.New("libvirt does not know it any more")
	}
	if err != nil {
		return false, i, err
	}
	state, err := c.state(v)
	if err != nil && state != machine.StateError {
		return false, i, err
	}
	switch state { //nolint:exhaustive // the rest is off
	case machine.StateRunning:
		return true, i, nil
	case machine.StatePaused:
		if n, _, err := c.DomainGetState(dom, 0); err == nil && rpc.DomainState(n) == rpc.DomainPmsuspended {
			return true, i, c.DomainPmWakeup(dom, 0)
		}
		return true, i, c.DomainResume(dom)
	}
	if v.named() {
		if _, err := c.network(v.Network, silent); err != nil {
			return false, i, err
		}
	}
	if v.Network == userNetwork && state == machine.StateStopped {
		if i, err = c.keepPorts(v, i); err != nil {
			return false, i, err
		}
	}
	return false, i, c.DomainCreate(dom)
}

// keepPorts sees to it that the machine's ports can be had, and gives it others if something else has them by now.
func (c conn) keepPorts(v vm, i machine.Instance) (machine.Instance, error) {
	if errors.Join(vmlogin.PortFree(i.SSHPort), vmlogin.PortFree(i.EnginePort)) == nil {
		return i, nil
	}
	i, err := givePorts(i, i.SSHPort, i.EnginePort)
	if err != nil {
		return i, err
	}
	text, err := c.domainXML(v, i)
	if err != nil {
		return i, err
	}
	_, err = c.DomainDefineXML(text)
	return i, err
}

// await returns when the machine has an address and, if the driver is to wait, has booted.
func (d Driver) await(ctx context.Context, i machine.Instance, v vm, progress func(string)) (machine.Instance, error) {
	if v.Network != userNetwork && v.Address == "" {
		progress("Waiting for the machine's address...")
		var err error
		if i, err = awaitAddress(ctx, i, v); err != nil {
			return i, err
		}
	}
	if !d.AwaitBoot {
		return i, nil
	}
	progress("Waiting for the machine to boot...")
	return i, d.coming(i, v).AwaitSSH(ctx)
}

func (v vm) patience() time.Duration {
	if v.Type == typeQEMU {
		return emulatedBootTime
	}
	return bootTime
}

func awaitAddress(ctx context.Context, i machine.Instance, v vm) (machine.Instance, error) {
	limit := v.patience()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it has no address after %s", limit))
	defer cancel()
	for {
		err := with(ctx, v.URI, askTime, func(c conn) error {
			if a := c.address(v); a.IsValid() {
				i.IPAddress = a.String()
				return nil
			}
			return c.mustLive(v)
		})
		if i.IPAddress != "" {
			return i, nil
		}
		if err != nil && ctx.Err() == nil {
			return i, err
		}
		select {
		case <-ctx.Done():
			return i, fmt.Errorf("wait for its address on %s: %w (is there a DHCP server, and does the image have qemu-guest-agent?)", v.Network, context.Cause(ctx))
		case <-time.After(pollTime):
		}
	}
}

// mustLive is an error if the machine is not on.
func (c conn) mustLive(v vm) error {
	state, err := c.state(v)
	if err == nil && state != machine.StateRunning {
		err = fmt.Errorf("the machine is %s, and was to boot: see the end of libvirt's log of it, and its console with virsh console", strings.ToLower(state.String()))
	}
	return err
}

// coming is the machine, as one that is waited for.
func (d Driver) coming(i machine.Instance, v vm) vmlogin.Boot {
	b := vmlogin.Boot{
		SSH:    net.JoinHostPort(i.IPAddress, strconv.Itoa(i.SSHPort)),
		Engine: net.JoinHostPort(i.IPAddress, strconv.Itoa(cmp.Or(i.EnginePort, enginePort))),
		Limit:  v.patience(), EngineLimit: engineTime,
		Lives: func(ctx context.Context) error {
			return with(ctx, v.URI, askTime, func(c conn) error { return c.mustLive(v) })
		},
	}
	if v.Type == typeQEMU {
		b.EngineLimit = emulatedEngineTime
	}
	return b
}

// Stop implements machine.Power: it presses the machine's power button.
func (d Driver) Stop(ctx context.Context, i machine.Instance) error {
	v, err := readVM(i)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stopTime, fmt.Errorf("it did not shut down within %s in answer to its power button: kill it", stopTime))
	defer cancel()
	var pressed time.Time
	for {
		off := false
		err := with(ctx, v.URI, askTime, func(c conn) error {
			var err error
			off, err = c.press(v, &pressed)
			return err
		})
		if off || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollTime / 2):
		}
	}
}

// press presses the power button, if it is time to, and tells whether the machine is off.
func (c conn) press(v vm, pressed *time.Time) (off bool, err error) {
	state, err := c.state(v)
	switch {
	case err != nil:
		return false, err
	case state == machine.StateStopped:
		return true, nil
	case state == machine.StateSaved:
		return false, errors.New("it is saved: start it first, or kill it to throw its memory away")
	case state == machine.StateNotFound:
		return false, errors.New("libvirt does not know it any more")
	}
	dom, err := c.domain(v)
	if err != nil {
		return false, err
	}
	if state == machine.StatePaused { // one that is paused feels nothing
		return false, c.DomainResume(dom)
	}
	if state != machine.StateRunning || time.Since(*pressed) < pressTime {
		return false, nil
	}
	*pressed = time.Now()
	err = c.DomainShutdownFlags(dom, rpc.DomainShutdownAcpiPowerBtn)
	if now, again := c.state(v); again == nil && now == machine.StateStopped { // meanwhile
		return true, nil
	}
	return false, err
}

// Kill implements machine.Power. It also throws a saved memory away.
func (d Driver) Kill(ctx context.Context, i machine.Instance) error {
	v, err := readVM(i)
	if err != nil {
		return err
	}
	return with(ctx, v.URI, workTime, func(c conn) error {
		dom, err := c.domain(v)
		if err != nil {
			return unlessMissing(err)
		}
		return c.off(dom)
	})
}

// off takes the machine's power away, and a saved memory.
func (c conn) off(dom rpc.Domain) error {
	n, _, err := c.DomainGetState(dom, 0)
	if err != nil {
		return unlessMissing(err)
	}
	if rpc.DomainState(n) != rpc.DomainShutoff {
		err := c.DomainDestroyFlags(dom, rpc.DomainDestroyDefault)
		now, _, again := c.DomainGetState(dom, 0)
		if err != nil && (again != nil || rpc.DomainState(now) != rpc.DomainShutoff) { // it may have ended meanwhile
			return err
		}
	}
	saved, err := c.DomainHasManagedSaveImage(dom, 0)
	if err == nil && saved != 0 {
		err = c.DomainManagedSaveRemove(dom, 0)
	}
	return err
}

// Restart implements machine.Power.
func (d Driver) Restart(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	state, err := d.State(ctx, i)
	if err != nil {
		return i, err
	}
	if state == machine.StateRunning || state == machine.StatePaused {
		if err := d.Stop(ctx, i); err != nil {
			return i, err
		}
	}
	return d.Start(ctx, i)
}

// Save implements machine.Saver.
func (d Driver) Save(ctx context.Context, i machine.Instance) error {
	v, err := readVM(i)
	if err != nil {
		return err
	}
	return with(ctx, v.URI, workTime, func(c conn) error {
		state, err := c.state(v)
		if err != nil {
			return err
		}
		if state != machine.StateRunning && state != machine.StatePaused {
			return errors.New("it does not run")
		}
		dom, err := c.domain(v)
		if err != nil {
			return err
		}
		return c.DomainManagedSave(dom, uint32(rpc.DomainSaveRunning))
	})
}
