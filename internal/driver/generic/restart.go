package generic

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"berth/internal/machine"
)

const (
	// bootCommand prints what is another with each boot. A container shares its kernel's boot with all others; there, the time at
	// which its first process started tells.
	bootCommand = `cat /proc/sys/kernel/random/boot_id && sed 's/.*) //' /proc/1/stat | cut -d ' ' -f 20`

	// restartCommand lets the session end before the host does.
	restartCommand = `become=; [ "$(id -u)" = 0 ] || become="sudo -n"; ` +
		`$become true || exit 1; ` +
		`if [ -d /run/systemd/system ]; then $become systemctl --no-block reboot; else $become reboot; fi`

	// restartTime is for a big server with its self test.
	restartTime = 10 * time.Minute
)

// Restart implements machine.Restarter: it returns when the host has booted anew.
func (d *Driver) Restart(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	before, err := d.shell.Run(ctx, i, bootCommand)
	if err != nil {
		return i, fmt.Errorf("ask for the time of its boot: %w", err)
	}
	// The host may be gone before the command has ended: that it restarted shows below, or does not.
	_, asked := d.shell.Run(ctx, i, restartCommand)
	ctx, cancel := context.WithTimeoutCause(ctx, restartTime, fmt.Errorf("it is not back after %s", restartTime))
	defer cancel()
	answered := 0 // how often the old boot was still there
	for {
		now, err := d.shell.Run(ctx, i, bootCommand)
		if err == nil && strings.TrimSpace(now) != strings.TrimSpace(before) {
			return i, nil
		}
		if err == nil && asked != nil {
			if answered++; answered > 3 {
				return i, fmt.Errorf("it was told to restart and did not: %w", asked)
			}
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New("it still runs as it was booted before")
			}
			return i, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(d.pace):
		}
	}
}
