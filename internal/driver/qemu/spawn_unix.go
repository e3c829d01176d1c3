//go:build unix

package qemu

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// detached are the arguments by which QEMU goes on without us. Its complaints still come to its log: without -d it would send
// them to /dev/null.
var detached = []string{"-daemonize", "-d", "unimp"}

// spawn starts a program that detaches itself, and waits until it has.
func spawn(cmd *exec.Cmd) error {
	if err := keepInherited(); err != nil {
		return err
	}
	return cmd.Run()
}

// spawnAlone starts a program that goes on without us.
func spawnAlone(cmd *exec.Cmd) error {
	if err := keepInherited(); err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// keepInherited keeps what the command happened to have open, a lock of the shell's for one, from a process that would hold it for good.
// Go's own files close on exec, so what is left without that mark has come from outside.
func keepInherited() error {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return nil //nolint:nilerr // a system without it
	}
	var failed []error
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 { // the listing's own is closed by now
			continue
		}
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags|unix.FD_CLOEXEC)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
