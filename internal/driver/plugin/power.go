package plugin

import (
	"context"

	"berth/internal/machine"
)

// Start implements machine.Power.
func (d *Driver) Start(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	return d.on(ctx, i, "Start")
}

// Restart implements machine.Power.
func (d *Driver) Restart(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	return d.on(ctx, i, "Restart")
}

// Stop implements machine.Power.
func (d *Driver) Stop(ctx context.Context, i machine.Instance) error { return d.off(ctx, i, "Stop") }

// Kill implements machine.Power.
func (d *Driver) Kill(ctx context.Context, i machine.Instance) error { return d.off(ctx, i, "Kill") }

func (d *Driver) on(ctx context.Context, i machine.Instance, method string) (machine.Instance, error) {
	s, err := d.resume(ctx, i)
	if err != nil {
		return i, err
	}
	defer s.close(ctx)
	if err := s.call(ctx, method); err != nil {
		return i, err
	}
	if err := s.reach(ctx, machine.StateRunning); err != nil {
		return i, err
	}
	return s.settle(ctx, i)
}

// off ends in Saved where a plugin suspends a machine in place of shutting it down.
func (d *Driver) off(ctx context.Context, i machine.Instance, method string) error {
	s, err := d.resume(ctx, i)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	if err := s.call(ctx, method); err != nil {
		return err
	}
	return s.reach(ctx, machine.StateStopped, machine.StateSaved)
}
