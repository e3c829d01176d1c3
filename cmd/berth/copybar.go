package main

import (
	"fmt"
	"io"
	"path"
	"time"

	"berth/internal/term"
)

// copyBar shows on a terminal how far the copy of a file is. What it copies is a line each, once it is done.
type copyBar struct {
	out   io.Writer // nil shows nothing
	began time.Time
	drawn time.Time
	open  bool // a line was begun
	file  string
}

// drawEvery keeps a fast copy from being slowed down by what it says.
const drawEvery = 100 * time.Millisecond

func newCopyBar(out io.Writer, quiet bool) *copyBar {
	if quiet || !term.IsTerminal(out) {
		out = nil
	}
	return &copyBar{out: out}
}

func (b *copyBar) show(file string, done, size int64) {
	if b.out == nil {
		return
	}
	now := time.Now()
	if file != b.file || !b.open {
		b.file, b.began, b.drawn = file, now, time.Time{}
	}
	if done < size && now.Sub(b.drawn) < drawEvery {
		return
	}
	percent := int64(100)
	if size > 0 {
		percent = done * 100 / size
	}
	b.drawn, b.open = now, done < size
	fmt.Fprintf(b.out, "\r\x1b[K%-40.40s %3d%% %9s %6.1fs", path.Base(file), percent, bytesText(done), now.Sub(b.began).Seconds()) //nolint:errcheck // the copy goes on
	if done >= size {
		fmt.Fprintln(b.out) //nolint:errcheck // the copy goes on
	}
}

// end leaves a line that was cut off as it is.
func (b *copyBar) end() {
	if b.open {
		fmt.Fprintln(b.out) //nolint:errcheck // nothing depends on it
	}
}

func bytesText(n int64) string {
	units := "KMGT"
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	f := float64(n)
	for i := range units {
		f /= 1000
		if f < 1000 || i == len(units)-1 {
			return fmt.Sprintf("%.1f%cB", f, units[i])
		}
	}
	return ""
}
