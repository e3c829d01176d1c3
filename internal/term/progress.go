package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// colours are for telling machines apart that are made at the same time.
var colours = [...]string{"36", "33", "35", "32", "34", "31"}

// Progress prints a line per step of work on several things at once, each with the time since the work began.
type Progress struct {
	began  time.Time
	width  int
	colour map[string]string // by name; empty where nobody sees colours

	mu  sync.Mutex
	out io.Writer
}

// NewProgress is for work on the named things.
func NewProgress(out io.Writer, names []string) *Progress {
	p := &Progress{began: time.Now(), out: out, colour: map[string]string{}}
	paint := IsTerminal(out) && os.Getenv("NO_COLOR") == ""
	for i, n := range names {
		p.width = max(p.width, len(n))
		if paint {
			p.colour[n] = colours[i%len(colours)]
		}
	}
	return p
}

// Line says what now begins, or is done, on name. It may be called from several goroutines.
func (p *Progress) Line(name, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	label := "(" + name + ")"
	if c := p.colour[name]; c != "" {
		label = "\x1b[" + c + "m" + label + "\x1b[0m"
	}
	pad := strings.Repeat(" ", max(0, p.width-len(name)))
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		// A terminal that is gone is no reason to stop the work.
		fmt.Fprintf(p.out, "%s%s %5.1fs  %s\n", label, pad, time.Since(p.began).Seconds(), clean(line)) //nolint:errcheck
	}
}

// For is Line for one name.
func (p *Progress) For(name string) func(text string) {
	return func(text string) { p.Line(name, text) }
}

// clean takes out what would move the cursor or change the colour: lines come from drivers and engines.
func clean(line string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, line)
}

// IsTerminal tells whether a person is at the other end of a stream.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
