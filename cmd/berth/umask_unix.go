//go:build unix

package main

import "syscall"

// ownFilesOnly makes new files, sockets too, their owner's alone until restore is called.
func ownFilesOnly() (restore func()) {
	old := syscall.Umask(0o177)
	return func() { syscall.Umask(old) }
}
