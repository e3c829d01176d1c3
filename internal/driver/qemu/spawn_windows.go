package qemu

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// detached are no arguments: on Windows QEMU does not detach itself.
var detached []string

// spawn starts a program that goes on without us.
func spawn(cmd *exec.Cmd) error { return spawnAlone(cmd) }

func spawnAlone(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
