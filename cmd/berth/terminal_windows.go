package main

import (
	"errors"
	"os/exec"

	"berth/internal/ssh"
)

// watchSize tells nothing: Windows has no signal for it.
func watchSize(func() ssh.Size) (resized <-chan ssh.Size, stop func()) { return nil, func() {} }

// runOnTerminal is for machines on this computer, which there are only on Linux.
func runOnTerminal(*exec.Cmd, ssh.Session) error {
	return errors.New("no program of this computer gets a terminal on Windows")
}
