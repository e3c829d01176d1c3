package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"berth/internal/machine"
)

const shareTime = 10 * time.Second

// startShares starts a virtiofsd for each folder that needs one. It ends when QEMU does, whose connection it serves.
func startShares(ctx context.Context, i machine.Instance, v vm) error {
	for n, m := range v.Mounts {
		if m.Type != mountVirtiofs {
			continue
		}
		if err := startShare(ctx, i, m, file(i, fmt.Sprintf(shareSock, n+1))); err != nil {
			return fmt.Errorf("serve %s to the machine: %w", m.Host, err)
		}
	}
	return nil
}

func startShare(ctx context.Context, i machine.Instance, m share, socket string) error {
	program := virtiofsd()
	if program == "" {
		return errors.New("virtiofsd is not installed: apt-get install virtiofsd, or --" + flagMountType + " 9p")
	}
	if !exists(m.Host) {
		return errors.New("it is not there any more")
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(file(i, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // virtiofsd writes it
	// Both the old virtiofsd, in C, and the new one take these.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, "--socket-path="+socket, "-o", "source="+m.Host, "-o", "cache=auto")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	if err := spawnAlone(cmd); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, shareTime)
	defer cancel()
	for !exists(socket) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for virtiofsd: %w: %s", ctx.Err(), tail(i, logFile))
		case <-time.After(lookTime):
		}
	}
	return nil
}
