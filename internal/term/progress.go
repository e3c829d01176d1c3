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

// Style is how progress is shown.
type Style string

// The styles there are.
const (
	Auto  Style = "auto"  // lines that are redrawn where somebody sees them, else Plain
	Plain Style = "plain" // a line per step
	JSON  Style = "json"  // an object per step, for programs
	Quiet Style = "quiet" // nothing
)

// ParseStyle reads a style as users write it.
func ParseStyle(s string) (Style, error) {
	switch style := Style(s); style {
	case Auto, Plain, JSON, Quiet:
		return style, nil
	}
	return "", fmt.Errorf("progress %q: want auto, plain or json", s)
}

// Progress shows the steps of work on several things at once, with the time they take. Its methods may be called from several
// goroutines.
type Progress struct {
	mu   sync.Mutex
	view view
}

// view is one style. Calls come one at a time.
type view interface {
	// step says what begins, or is done, on name.
	step(name, text string)
	// bar says how far the step what on name has come; total is 0 where nobody knows it.
	bar(name, what string, done, total int64)
	// done says that work on name has ended.
	done(name string, err error)
	// redraw shows the time that has passed, above the lines of others, if any were written by write.
	redraw(write func())
	// every is how often to redraw; 0 is never.
	every() time.Duration
	// end leaves on the screen what is to stay.
	end()
}

// NewProgress is a line per step, for work on the named things.
func NewProgress(out io.Writer, names []string) *Progress { return Show(out, names, Plain) }

// Show is for work on the named things. Nothing is drawn anew before During.
func Show(out io.Writer, names []string, style Style) *Progress {
	began := time.Now()
	switch style {
	case Quiet:
		return &Progress{view: quietView{}}
	case JSON:
		return &Progress{view: &jsonView{out: out, began: began}}
	case Auto:
		if screen, ok := out.(*os.File); ok && IsTerminal(screen) && os.Getenv("TERM") != "dumb" {
			return &Progress{view: newLiveView(screen, names)}
		}
	}
	return &Progress{view: newPlainView(out, names, began)}
}

// Line says what now begins, or is done, on name.
func (p *Progress) Line(name, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.step(name, text)
}

// For is Line for one name.
func (p *Progress) For(name string) func(text string) {
	return func(text string) { p.Line(name, text) }
}

// Bar says how far a download or a copy on name has come, in bytes. total is 0 where it is not known.
func (p *Progress) Bar(name, what string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.bar(name, what, done, total)
}

// Done says that work on name has ended, well or not.
func (p *Progress) Done(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.done(name, err)
}

// Above writes, on what may be the same terminal, without spoiling what is drawn there.
func (p *Progress) Above(write func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.redraw(write)
}

// During does the work and shows how it goes on until it has ended.
func (p *Progress) During(work func() error) error {
	if every := p.view.every(); every > 0 {
		stop := make(chan struct{})
		var drawing sync.WaitGroup
		drawing.Go(func() { p.keepDrawing(every, stop) })
		defer func() {
			close(stop)
			drawing.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.view.end()
		}()
	}
	return work()
}

func (p *Progress) keepDrawing(every time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			p.Above(nil)
		}
	}
}

// quietView shows nothing.
type quietView struct{}

func (quietView) step(string, string)              {}
func (quietView) bar(string, string, int64, int64) {}
func (quietView) done(string, error)               {}
func (quietView) every() time.Duration             { return 0 }
func (quietView) end()                             {}
func (quietView) redraw(write func()) {
	if write != nil {
		write()
	}
}

// clean takes out what would move the cursor or change the colour: lines come from drivers and engines.
func clean(line string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
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
