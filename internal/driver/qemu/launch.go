package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"berth/internal/machine"
)

// launchTime bounds the time until QEMU answers. It makes the machine in well under a second.
const launchTime = time.Minute

// launch starts the machine's process. The instance comes back with the ports that now lead to it.
func (d Driver) launch(ctx context.Context, i machine.Instance, v vm, more ...string) (machine.Instance, error) {
	how, err := chooseAccelerator(v.Accel, v.Arch)
	if err != nil {
		return i, err
	}
	program, err := findQEMU(v.Arch)
	if err != nil {
		return i, err
	}
	if err := prepareRun(i); err != nil {
		return i, err
	}
	const tries = 3 // a port may be taken between the look and its use
	for n := 1; ; n++ {
		if i, err = v.keepPorts(i); err != nil {
			return i, err
		}
		list, err := arguments(i, v, how)
		if err != nil {
			return i, err
		}
		err = d.run(ctx, i, v, program, append(list, more...))
		if err == nil {
			return i, errors.Join(awaitMonitor(ctx, i), ctx.Err())
		}
		if n == tries || ctx.Err() != nil || !strings.Contains(err.Error(), "host forwarding") { // QEMU's words
			return i, err
		}
	}
}

// prepareRun takes away what the run before left, and keeps what was on its console.
func prepareRun(i machine.Instance) error {
	for _, name := range []string{qmpSocket, gaSocket, pidFile, logFile} {
		if err := os.Remove(file(i, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := os.Rename(file(i, serialFile), file(i, oldSerial))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// run starts QEMU, which goes on by itself. It is not broken off by ctx: a QEMU that is killed while it detaches may leave one behind
// that nobody knows of.
func (d Driver) run(ctx context.Context, i machine.Instance, v vm, program string, list []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := startShares(ctx, i, v); err != nil {
		return err
	}
	log, err := os.OpenFile(file(i, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // QEMU writes it
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), launchTime)
	defer cancel()
	cmd := exec.CommandContext(limited, program, list...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = i.Dir, log, log
	if err := spawn(cmd); err != nil {
		return v.explain(fmt.Errorf("start QEMU: %w: %s", err, tail(i, logFile)))
	}
	return nil
}

// explain says what to do about the commonest trouble.
func (v vm) explain(err error) error {
	n := parseNetwork(v.Network)
	switch text := err.Error(); { // QEMU's words are all there is
	case n.kind == bridgeNetwork && strings.Contains(text, "bridge helper"):
		return fmt.Errorf("%w\nAllow it: echo 'allow %s' | sudo tee -a /etc/qemu/bridge.conf, and sudo chmod u+s /usr/lib/qemu/qemu-bridge-helper", err, n.name)
	case strings.Contains(text, "Cannot allocate memory"), strings.Contains(text, "cannot set up guest memory"):
		return fmt.Errorf("%w\nThis computer has no %d MB left: say less with --%s, or stop something", err, v.Memory, flagMemory)
	case strings.Contains(text, `"write" lock`):
		return fmt.Errorf("%w\nAnother QEMU has the machine's disk: one that berth does not know of", err)
	}
	return err
}

// awaitMonitor waits until QEMU answers.
func awaitMonitor(ctx context.Context, i machine.Instance) error {
	ctx, cancel := context.WithTimeout(ctx, launchTime)
	defer cancel()
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for {
		_, err := askStatus(ctx, i)
		if err == nil {
			return nil
		}
		if p, _ := findProcess(i); !p.runs() && exists(file(i, pidFile)) {
			return fmt.Errorf("QEMU has ended: %s", tail(i, logFile))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for QEMU to answer: %w: %s", err, tail(i, logFile))
		case <-tick.C:
		}
	}
}
