package main

import (
	"cmp"
	"os"

	"github.com/spf13/pflag"

	"berth/internal/term"
)

// progressFlags say how the steps of long work are shown.
type progressFlags struct {
	style string
	quiet bool
}

func (f *progressFlags) define(fs *pflag.FlagSet) {
	fs.StringVar(&f.style, "progress", cmp.Or(os.Getenv("BERTH_PROGRESS"), string(term.Auto)), "How to show what goes on: auto, plain or json [$BERTH_PROGRESS]")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Show nothing but errors")
}

// parse is the style that was asked for. Who reads docker-machine's output by program gets lines.
func (f *progressFlags) parse(p *program) (term.Style, error) {
	if f.quiet {
		return term.Quiet, nil
	}
	style, err := term.ParseStyle(f.style)
	if style == term.Auto && p.dropIn() {
		style = term.Plain
	}
	return style, err
}

// showing does work on the named things and shows its steps. What else is said meanwhile stands above them.
func (p *program) showing(style term.Style, names []string, work func(*term.Progress) error) error {
	steps := term.Show(p.out, names, style)
	p.setSteps(steps)
	defer p.setSteps(nil)
	return steps.During(func() error { return work(steps) })
}

func (p *program) setSteps(steps *term.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps = steps
}
