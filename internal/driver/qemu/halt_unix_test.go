//go:build unix

package qemu

import (
	"syscall"
	"testing"
)

func halt(t *testing.T, pid int32) {
	t.Helper()
	if err := syscall.Kill(int(pid), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}
