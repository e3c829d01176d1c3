// Package local is the driver whose machines are boxes on this Linux computer: a Docker Engine in network, mount, PID, UTS and
// IPC namespaces of its own, with its own address on a bridge, its own data, its own containerd, and mutual TLS on port 2376.
//
// It decides how a box is made, found and ended. It promises that whatever it makes can be found again from the machine's
// directory alone, so that a create which broke off anywhere, or a reboot, leaves nothing that Remove or Start cannot deal
// with. It knows nothing of the store, of certificates (it hands files on) and of the fleet.
//
// What it changes on the computer: a bridge for each subnet, three iptables rules for it, and IPv4 forwarding, which is
// switched on and stays on, since others may come to rely on it. The rest goes with the machine.
//
// A box's first process is this program itself, executed again: main and every TestMain call InitMain first.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"berth/internal/machine"
)

const (
	flagEngine    = "local-engine"
	flagSubnet    = "local-subnet"
	flagAddress   = "local-address"
	defaultSubnet = "10.213.77.0/24"
	enginePort    = 2376
)

// Driver makes boxes. Its zero value is ready for use.
type Driver struct{}

var (
	_ machine.Driver        = Driver{}
	_ machine.Power         = Driver{}
	_ machine.PreChecker    = Driver{}
	_ machine.EngineRunner  = Driver{}
	_ machine.ServiceRunner = Driver{}
	_ machine.Flagged       = Driver{}
)

// Flags implements machine.Flagged.
func (Driver) Flags() []machine.Flag {
	return []machine.Flag{
		{Name: flagEngine, EnvVar: "LOCAL_ENGINE", Default: "", Usage: "Another dockerd to run; containerd, runc and the rest are looked for in its folder first"},
		{Name: flagSubnet, EnvVar: "LOCAL_SUBNET", Default: defaultSubnet, Usage: "Range of addresses for the machines' bridge"},
		{Name: flagAddress, EnvVar: "LOCAL_ADDRESS", Default: "", Usage: "The machine's address in that range (default: the first free one)"},
	}
}

// Create makes the box's namespace and its place on the network. No process runs in it until RunEngine.
func (Driver) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	set, err := readSettings(spec)
	if err != nil {
		return machine.Instance{Name: spec.Name, Dir: spec.Dir}, err
	}
	b := newBox(spec, set)
	if err := ctx.Err(); err != nil {
		return b.instance(), fmt.Errorf("make box: %w", err)
	}
	if _, err := os.Stat(b.file(recordFile)); err == nil {
		return b.instance(), fmt.Errorf("make box: %s says that there is one already", b.file(recordFile))
	}
	// The record comes first: from here on, Remove finds everything.
	if err := b.save(); err != nil {
		return b.instance(), err
	}
	spec.Progress(fmt.Sprintf("Making the network namespace %s on %s...", b.NetNS, b.Subnet))
	if err := b.connect(ctx, set.address); err != nil {
		return b.instance(), err
	}
	if err := b.save(); err != nil {
		return b.instance(), err
	}
	spec.Progress(fmt.Sprintf("%s has the address %s", b.name, b.Address))
	return b.instance(), ctx.Err()
}

// State implements machine.Driver. A box without processes is stopped; it is running from RunEngine or Start on, until its
// engine ends for whatever reason. It reads /proc and the cgroups only, so nothing that hangs in a box can hang it.
func (Driver) State(_ context.Context, i machine.Instance) (machine.State, error) {
	b, err := loadBox(i)
	if errors.Is(err, errNoBox) {
		return machine.StateNotFound, nil
	}
	if err != nil {
		return machine.StateError, err
	}
	pid, err := b.initPID()
	switch {
	case err != nil:
		return machine.StateError, err
	case pid != 0:
		return machine.StateRunning, nil
	case b.exists():
		return machine.StateStopped, nil
	}
	return machine.StateNotFound, nil
}

// Remove ends the box at once and takes away all that Create, RunEngine and Start made.
func (Driver) Remove(ctx context.Context, i machine.Instance) error {
	b, err := loadBox(i)
	if errors.Is(err, errNoBox) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := b.end(ctx); err != nil {
		return err
	}
	if err := b.disconnect(ctx); err != nil {
		return err
	}
	return b.removeFiles()
}

// removeFiles leaves the record for the last, so that a removal that broke off can be taken up again.
func (b *box) removeFiles() error {
	entries, err := os.ReadDir(b.file(""))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove files: %w", err)
	}
	for _, e := range entries {
		if e.Name() == recordFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(b.file(""), e.Name())); err != nil {
			return fmt.Errorf("remove files: %w", err)
		}
	}
	if err := os.RemoveAll(b.file("")); err != nil {
		return fmt.Errorf("remove files: %w", err)
	}
	return nil
}
