//go:build unix

package plugin

import (
	"os/exec"
	"syscall"
)

// detach keeps a terminal's Ctrl-C from the plugin: it is berth that ends it, once it is known what was made.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
