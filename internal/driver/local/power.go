package local

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/internal/machine"
)

// Start implements machine.Power. It works from the record and the kept configuration alone, so it also starts a machine
// after a reboot of the computer, and one whose engine was killed.
func (Driver) Start(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	b, err := loadBox(i)
	if err != nil {
		return i, fmt.Errorf("start %s: %w", i.Name, err)
	}
	pid, err := b.initPID()
	if err != nil {
		return i, fmt.Errorf("start %s: %w", i.Name, err)
	}
	if pid != 0 {
		// It runs, or is about to, or is about to end: then it is started anew.
		err := awaitEngine(ctx, pid)
		if err == nil || !errors.Is(err, errEnded) {
			return i, err
		}
	}
	if err := b.start(ctx); err != nil {
		return i, err
	}
	if err := b.save(); err != nil {
		return i, err
	}
	return merge(i, b.instance()), nil
}

// Stop implements machine.Power. Containers get the time that they ask for; only ctx ends the wait, and then the machine is
// still stopping.
func (Driver) Stop(ctx context.Context, i machine.Instance) error {
	b, err := loadBox(i)
	if err != nil {
		return fmt.Errorf("stop %s: %w", i.Name, err)
	}
	return b.halt(ctx)
}

// Kill implements machine.Power: as if the plug were pulled.
func (Driver) Kill(ctx context.Context, i machine.Instance) error {
	b, err := loadBox(i)
	if err != nil {
		return fmt.Errorf("kill %s: %w", i.Name, err)
	}
	return b.end(ctx)
}

// Restart implements machine.Power.
func (d Driver) Restart(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	if err := d.Stop(ctx, i); err != nil {
		return i, err
	}
	return d.Start(ctx, i)
}

// halt asks the engine to end and waits for it; nothing of the box runs afterwards.
func (b *box) halt(ctx context.Context) error {
	pid, err := b.initPID()
	if err != nil {
		return fmt.Errorf("stop %s: %w", b.name, err)
	}
	if pid != 0 {
		if err := b.thawOwn(); err != nil {
			return fmt.Errorf("stop %s: %w", b.name, err)
		}
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop %s: %w", b.name, err)
		}
		if err := awaitExit(ctx, pid); err != nil {
			return fmt.Errorf("stop %s: wait for its engine: %w", b.name, err)
		}
	}
	return b.end(ctx)
}

// merge keeps what machine has stored beside the driver's own.
func merge(stored, fresh machine.Instance) machine.Instance {
	stored.IPAddress, stored.EnginePort, stored.Raw = fresh.IPAddress, fresh.EnginePort, fresh.Raw
	return stored
}
