package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"berth/internal/machine"
)

// stopTime is for an emulated machine that has much to end; pressTime between two presses of its power button, since one that is just
// booting does not feel it.
const (
	stopTime  = 5 * time.Minute
	pressTime = 10 * time.Second
)

// Start implements machine.Power. A saved machine goes on where it was.
func (d Driver) Start(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	v, err := readVM(i)
	if err != nil {
		return i, err
	}
	if !exists(file(i, diskFile)) {
		return i, errors.New("its disk is gone")
	}
	p, err := findProcess(i)
	if err != nil {
		return i, err
	}
	if p.runs() {
		running, err := wake(ctx, i)
		if running || err != nil {
			return i, err
		}
	}
	if exists(file(i, savedFile)) {
		return d.resume(ctx, i, v)
	}
	if i, err = d.launch(ctx, i, v); err != nil {
		return i, err
	}
	return d.await(ctx, i, v, silent, true)
}

func silent(string) {}

// wake has a machine go on whose process is there. It does not where the memory of a save is still on the disk: a save or a resume was
// broken off at its very end, and the machine is to be resumed.
func wake(ctx context.Context, i machine.Instance) (running bool, err error) {
	status, err := askStatus(ctx, i)
	switch {
	case err != nil:
		return false, fmt.Errorf("its QEMU does not answer: %w", err)
	case status == "running":
		return true, nil
	case status == "suspended":
		return true, command(ctx, i, "system_wakeup", nil, nil)
	case exists(file(i, savedFile)):
		return false, endProcess(ctx, i)
	}
	_ = command(ctx, i, "migrate_cancel", nil, nil) // a save that nobody waits for any more would halt it again
	return true, command(ctx, i, "cont", nil, nil)
}

var errSaved = errors.New("it is saved: start it first, or kill it to throw its memory away")

// Stop implements machine.Power: it presses the machine's power button.
func (d Driver) Stop(ctx context.Context, i machine.Instance) error {
	p, err := findProcess(i)
	if err != nil {
		return err
	}
	if !p.runs() {
		if exists(file(i, savedFile)) {
			return errSaved
		}
		return nil
	}
	if running, err := wake(ctx, i); err != nil || !running { // one that is paused feels nothing
		return cmp.Or(err, errSaved)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	for {
		press := command(ctx, i, "system_powerdown", nil, nil)
		err := p.awaitEnd(ctx, pressTime)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("it did not shut down in answer to its power button: %w: kill it", errors.Join(press, ctx.Err()))
		}
	}
}

// Kill implements machine.Power. It also throws a saved memory away.
func (d Driver) Kill(ctx context.Context, i machine.Instance) error {
	return errors.Join(endProcess(ctx, i), dropSaved(i))
}

func dropSaved(i machine.Instance) error {
	if err := os.Remove(file(i, savedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Restart implements machine.Power.
func (d Driver) Restart(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	if p, err := findProcess(i); err != nil {
		return i, err
	} else if p.runs() {
		if err := d.Stop(ctx, i); err != nil {
			return i, err
		}
	}
	return d.Start(ctx, i)
}
