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

const (
	shareTime = 20 * time.Second
	againTime = 2 * time.Second
)

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
	if virtiofsd() == "" {
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
	ctx, cancel := context.WithTimeout(ctx, shareTime)
	defer cancel()
	// The one before may still hold its lock: its QEMU ended a moment ago. A second one that starts in vain ends by itself.
	for again := time.NewTimer(0); ; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for virtiofsd: %w: %s", ctx.Err(), tail(i, logFile))
		case <-again.C:
			if err := serveShare(ctx, m, socket, log); err != nil {
				return err
			}
			again.Reset(againTime)
		case <-time.After(lookTime):
		}
		if exists(socket) {
			return nil
		}
	}
}

// serveShare starts a virtiofsd. Both the old one, in C, and the new one take these arguments.
func serveShare(ctx context.Context, m share, socket string, log *os.File) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), virtiofsd(), "--socket-path="+socket, "-o", "source="+m.Host, "-o", "cache=auto")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	return spawnAlone(cmd)
}
