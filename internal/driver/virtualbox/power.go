package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/internal/machine"
	"berth/internal/vmlogin"
)

// How long a machine may take. Between two presses of its power button is pressTime, since one that is just booting does not feel it.
const (
	bootTime   = 10 * time.Minute // in a VirtualBox that is itself in a virtual machine
	engineTime = 30 * time.Second
	stopTime   = 5 * time.Minute
	pressTime  = 10 * time.Second
	pollTime   = time.Second
)

// Start implements machine.Power. A saved machine goes on where it was.
func (d Driver) Start(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	m, _, state, err := d.look(ctx, i)
	if err != nil {
		return i, err
	}
	v, err := readVM(i)
	if err != nil {
		return i, err
	}
	i.SSHHost = loopback
	switch state {
	case machine.StateRunning:
		return i, nil
	case machine.StatePaused:
		_, err := m.run(ctx, "controlvm", v.handle(i), "resume")
		return i, err
	case machine.StateNotFound:
		return i, errors.New("VirtualBox does not know it any more")
	}
	if i, err = d.boot(ctx, m, i, silent); err != nil {
		return i, err
	}
	if i, err = d.await(ctx, m, i, silent); err != nil || !d.AwaitBoot {
		return i, err
	}
	return i, d.coming(i, v).AwaitEngine(ctx)
}

func silent(string) {}

// boot switches a machine on that is off or saved. Its network and its port are seen to first: what it had may be gone by now.
func (d Driver) boot(ctx context.Context, m manager, i machine.Instance, progress func(string)) (machine.Instance, error) {
	v, err := readVM(i)
	if err != nil {
		return i, err
	}
	unlock, err := lock(ctx)
	if err != nil {
		return i, err
	}
	defer unlock()
	info, err := m.info(ctx, v.handle(i))
	if err != nil {
		return i, err
	}
	if state, err := stateOf(info["VMState"]); err != nil {
		return i, err
	} else if state == machine.StateStopped {
		progress("Checking the host-only network...")
		if err := joinNetwork(ctx, m, i, v); err != nil {
			return i, err
		}
	}
	if i, err = keepPort(ctx, m, i, v, info); err != nil {
		return i, err
	}
	if _, err := m.work(ctx, nil, "startvm", v.handle(i), "--type", v.UIType); err != nil {
		return i, explainStart(ctx, err, info["LogFldr"])
	}
	return i, nil
}

// joinNetwork plugs the machine's second interface into its host-only network, which is made anew if it is gone.
func joinNetwork(ctx context.Context, m manager, i machine.Instance, v vm) error {
	cidr, err := parseCIDR(v.HostOnlyCIDR)
	if err != nil {
		return fmt.Errorf("host-only network %q: %w", v.HostOnlyCIDR, err)
	}
	a, err := ensureAdapter(ctx, m, cidr, !v.HostOnlyNoDHCP)
	if err != nil {
		return err
	}
	return m.modify(ctx, v.handle(i), []string{
		"--nic2", "hostonly", "--nictype2", v.HostOnlyNicType, "--nicpromisc2", v.HostOnlyPromiscMode, "--hostonlyadapter2", a.name, "--cableconnected2", "on",
	})
}

// keepPort has a port of this computer lead to the machine's sshd: the one that it had, unless something else has it by now.
func keepPort(ctx context.Context, m manager, i machine.Instance, v vm, info map[string]string) (machine.Instance, error) {
	led := false
	for _, f := range parseForwards(info) {
		if f.name == sshRule {
			i.SSHPort, led = f.hostPort, true
		}
	}
	if led && vmlogin.PortFree(i.SSHPort) == nil {
		return i, nil
	}
	port, err := vmlogin.FreePort()
	if err != nil {
		return i, err
	}
	if led {
		if err := m.modify(ctx, v.handle(i), []string{"--natpf1", "delete", sshRule}); err != nil {
			return i, err
		}
	}
	rule := fmt.Sprintf("%s,tcp,%s,%d,,%d", sshRule, loopback, port, sshPort)
	i.SSHPort = port
	return i, m.modify(ctx, v.handle(i), []string{"--natpf1", rule})
}

// What stands in the way of a start, by the code that VirtualBox gives it.
var startTroubles = []struct{ code, help string }{
	{"VERR_VMX_IN_VMX_ROOT_MODE", "another hypervisor has the CPU's virtualization: end its machines, or unload it: sudo modprobe -r kvm_intel kvm"},
	{"VERR_SVM_IN_USE", "another hypervisor has the CPU's virtualization: end its machines, or unload it: sudo modprobe -r kvm_amd kvm"},
	{"VERR_VMX_NO_VMX", noVTX}, {"VERR_SVM_NO_SVM", noVTX}, {"VERR_VMX_MSR_ALL_VMX_DISABLED", noVTX}, {"VERR_VMX_MSR_VMXON_DISABLED", noVTX},
	{"VERR_SVM_DISABLED", noVTX},
	{"VERR_NEM_NOT_AVAILABLE", "Hyper-V has the CPU's virtualization and does not share it: switch it off (bcdedit /set hypervisorlaunchtype off, then restart), or use a plugin for Hyper-V"},
	{"VERR_VM_DRIVER_NOT_INSTALLED", "VirtualBox's kernel module is not loaded: sudo /sbin/vboxconfig"},
	{"VERR_NO_MEMORY", "this computer has too little memory left: give the machine less with --" + flagMemory},
	{"VERR_DISK_FULL", "the disk is full"},
}

// explainStart says what can be done about a machine that does not start, and what its log ended with.
func explainStart(ctx context.Context, err error, logs string) error {
	if ctx.Err() != nil {
		return err
	}
	log := ""
	if logs != "" {
		text, readErr := os.ReadFile(filepath.Join(logs, "VBox.log"))
		if readErr == nil {
			log = string(text)
		}
	}
	for _, t := range startTroubles {
		if said(err, t.code) || strings.Contains(log, t.code) {
			return fmt.Errorf("%w\n%s", err, t.help)
		}
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if end := lines[len(lines)-1]; end != "" {
		return fmt.Errorf("%w\nThe end of its log (%s):\n%s", err, filepath.Join(logs, "VBox.log"), end)
	}
	return err
}

// await returns when the machine has booted, if the driver is to wait, with its address.
func (d Driver) await(ctx context.Context, m manager, i machine.Instance, progress func(string)) (machine.Instance, error) {
	v, err := readVM(i)
	if err != nil || !d.AwaitBoot {
		return i, err
	}
	progress("Waiting for the machine to boot...")
	if err := d.coming(i, v).AwaitSSH(ctx); err != nil || v.Address != "" {
		return i, err
	}
	progress("Waiting for an IP...")
	return d.awaitAddress(ctx, m, i, v)
}

// coming is the machine, as one that is waited for.
func (d Driver) coming(i machine.Instance, v vm) vmlogin.Boot {
	return vmlogin.Boot{
		SSH:    net.JoinHostPort(loopback, strconv.Itoa(i.SSHPort)),
		Engine: net.JoinHostPort(i.IPAddress, strconv.Itoa(enginePort)),
		Limit:  bootTime, EngineLimit: engineTime,
		Console: func() string { return console(i) },
		Lives: func(ctx context.Context) error {
			_, _, state, err := d.look(ctx, i)
			if err == nil && state != machine.StateRunning && state != machine.StateStarting {
				err = fmt.Errorf("the machine is %s, and was to boot", strings.ToLower(state.String()))
			}
			return err
		},
	}
}

// Stop implements machine.Power: it presses the machine's power button.
func (d Driver) Stop(ctx context.Context, i machine.Instance) error {
	m, _, state, err := d.look(ctx, i)
	if err != nil {
		return err
	}
	v, err := readVM(i)
	if err != nil {
		return err
	}
	switch state {
	case machine.StateStopped:
		return nil
	case machine.StateSaved:
		return errors.New("it is saved: start it first, or kill it to throw its memory away")
	case machine.StateNotFound:
		return errors.New("VirtualBox does not know it any more")
	case machine.StatePaused: // one that is paused feels nothing
		if _, err := m.run(ctx, "controlvm", v.handle(i), "resume"); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stopTime, fmt.Errorf("it did not shut down within %s in answer to its power button: kill it", stopTime))
	defer cancel()
	var pressed time.Time
	for {
		if time.Since(pressed) > pressTime {
			_, err := m.run(ctx, "controlvm", v.handle(i), "acpipowerbutton")
			if err != nil && !said(err, saysNotRunning) {
				return err
			}
			pressed = time.Now()
		}
		if _, _, state, err := d.look(ctx, i); err != nil || state == machine.StateStopped {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollTime):
		}
	}
}

// Kill implements machine.Power. It also throws a saved memory away.
func (d Driver) Kill(ctx context.Context, i machine.Instance) error {
	m, info, _, err := d.look(ctx, i)
	if info == nil {
		return err
	}
	v, err := readVM(i)
	if err != nil {
		return err
	}
	return m.powerOff(ctx, v.handle(i))
}

// powerOff takes a machine's power away, and returns when it is off.
func (m manager) powerOff(ctx context.Context, id string) error {
	const offTime = time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, offTime, errors.New("VirtualBox did not switch it off"))
	defer cancel()
	for {
		info, err := m.info(ctx, id)
		if err != nil || info == nil {
			return err
		}
		state, stateErr := stateOf(info["VMState"])
		switch {
		case state == machine.StateStopped:
			return nil
		case state == machine.StateSaved:
			_, err = m.run(ctx, "discardstate", id)
		case stateErr == nil || state == machine.StateError:
			_, err = m.run(ctx, "controlvm", id, "poweroff")
		}
		if err != nil && !said(err, saysNotRunning) && !said(err, saysLocked) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
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
	m, _, state, err := d.look(ctx, i)
	if err != nil {
		return err
	}
	if state != machine.StateRunning && state != machine.StatePaused {
		return errors.New("it does not run")
	}
	v, err := readVM(i)
	if err != nil {
		return err
	}
	_, err = m.work(ctx, nil, "controlvm", v.handle(i), "savestate")
	return err
}
