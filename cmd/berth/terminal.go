package main

import (
	"cmp"
	"errors"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"berth/internal/ssh"
)

// screen is the user's terminal while a program elsewhere draws on it: keys go through as they are, Ctrl-C too.
type screen struct {
	ssh.Terminal
	restore func() error
}

// takeScreen hands the terminal over, if stdin is one. restore gives it back.
func takeScreen(in io.Reader) (*screen, error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, errors.New("stdin is not a terminal")
	}
	before, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	size := func() ssh.Size {
		columns, rows, err := term.GetSize(int(f.Fd()))
		if err != nil || columns <= 0 || rows <= 0 {
			return ssh.Size{Columns: 80, Rows: 24}
		}
		return ssh.Size{Columns: columns, Rows: rows}
	}
	resized, stop := watchSize(size)
	return &screen{
		ssh.Terminal{Type: cmp.Or(os.Getenv("TERM"), "xterm"), Size: size(), Resized: resized},
		func() error { stop(); return term.Restore(int(f.Fd()), before) },
	}, nil
}

// runOnTerminal runs a program on this computer on a terminal of its own, joined with the streams of s.
func runOnTerminal(cmd *exec.Cmd, s ssh.Session) error {
	near, far, err := pty.Open()
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

func resize(f *os.File, s ssh.Size) error {
	return pty.Setsize(f, &pty.Winsize{Cols: uint16(s.Columns), Rows: uint16(s.Rows)})
}

// keys reads the user's keys and calls leave for ~. at the beginning of a line, as ssh has it: the way out of a session that
// hangs. Two tildes there are one.
type keys struct {
	from    io.Reader
	leave   func()
	state   keyState
	pending []byte // typed, and not read yet
}

type keyState int

const (
	lineBegins keyState = iota // nothing on this line yet
	inLine
	tilde // one is held back, at a line's beginning
)

func (k *keys) Read(p []byte) (int, error) {
	for len(k.pending) == 0 {
		n, err := k.from.Read(p)
		for _, b := range p[:n] {
			k.pending = k.key(k.pending, b)
		}
		if err != nil && len(k.pending) == 0 {
			return 0, err
		}
	}
	n := copy(p, k.pending)
	k.pending = k.pending[n:]
	return n, nil
}

// key appends what one key comes to.
func (k *keys) key(out []byte, b byte) []byte {
	switch {
	case k.state == lineBegins && b == '~':
		k.state = tilde
		return out
	case k.state == tilde && b == '.':
		k.leave()
		return out
	case k.state == tilde && b != '~':
		out = append(out, '~')
	}
	k.state = inLine
	if b == '\r' || b == '\n' {
		k.state = lineBegins
	}
	return append(out, b)
}
