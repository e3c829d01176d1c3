//go:build !windows

package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

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

// runOnTerminal runs a program on this computer on a terminal of its own, joined with the streams of s.
func runOnTerminal(cmd *exec.Cmd, s ssh.Session) error {
	near, far, err := openPair()
	if err != nil {
		return err
	}
	defer near.Close()
	err = resize(near, s.Terminal.Size)
	if err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = far, far, far
		err = cmd.Start()
	}
	if err := errors.Join(err, far.Close()); err != nil {
		return err
	}
	ended, drawn := make(chan struct{}), make(chan struct{})
	go func() {
		io.Copy(near, s.Stdin) //nolint:errcheck // nobody waits for keys that nobody reads
	}()
	go func() {
		defer close(drawn)
		draw(s.Stdout, near, ended)
	}()
	go func() {
		for {
			select {
			case size := <-s.Terminal.Resized:
				resize(near, size) //nolint:errcheck // the program may have ended just now
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	err = errors.Join(err, near.SetReadDeadline(time.Now().Add(lastWords)))
	<-drawn
	return err
}

// lastWords is how long the terminal of a program that has ended is still read: what it left running may keep it open.
const lastWords = 100 * time.Millisecond

// draw copies what a program draws, up to its end.
func draw(to io.Writer, from *os.File, ended <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, writeErr := to.Write(buf[:n]); writeErr != nil {
				return // the user's terminal is gone, which ends the program as well
			}
		}
		select {
		case <-ended: // there may be more than one buffer of it
			err = errors.Join(err, from.SetReadDeadline(time.Now().Add(lastWords)))
		default:
		}
		if err != nil {
			return
		}
	}
}

// resize goes around (*os.File).Fd, which would take the file's deadlines away.
func resize(f *os.File, s ssh.Size) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(s.Columns), Row: uint16(s.Rows)})
	})
	return errors.Join(err, failed)
}

// openPair makes a terminal: near is ours and has deadlines, far the program's.
func openPair() (near, far *os.File, err error) {
	opened, far, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.FcntlInt(opened.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true) // before it becomes a file of Go's, which then waits for it as for a socket
	}
	if err = errors.Join(err, opened.Close()); err != nil {
		return nil, nil, errors.Join(err, far.Close())
	}
	return os.NewFile(uintptr(fd), "terminal"), far, nil
}
