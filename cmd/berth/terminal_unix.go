//go:build !windows

package main

import (
	"os"
	"os/signal"
	"syscall"

	"berth/internal/ssh"
)

// watchSize tells of every new size of the terminal until stop.
func watchSize(size func() ssh.Size) (resized <-chan ssh.Size, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	sizes, done := make(chan ssh.Size), make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			select {
			case sizes <- size():
			case <-done:
				return
			}
		}
	}()
	return sizes, func() { signal.Stop(signals); close(done) }
}
