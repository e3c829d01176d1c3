package main

import (
	"cmp"
	"errors"
	"io"
	"os"

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
		k.state = inLine
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
