package shards

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
)

// Printer prints what shards print, each whole and in their order: one as it comes, the others when it is their turn. The verdicts are
// left out, since there is one for all of them.
type Printer struct {
	to      io.Writer
	outputs []*Output

	mu     sync.Mutex
	turn   int
	marker string // with which testing begins its own lines, if they are to be read by a program
	ran    bool   // a test
	err    error
}

// NewPrinter prints what n shards print.
func NewPrinter(to io.Writer, n int) *Printer {
	p := &Printer{to: to}
	for range n {
		p.outputs = append(p.outputs, &Output{printer: p})
	}
	return p
}

// Output is where a shard prints to.
func (p *Printer) Output(shard int) *Output { return p.outputs[shard] }

// Verdict ends it as testing does, once all shards have ended.
func (p *Printer) Verdict(passed bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.marker + "PASS\n"
	if !passed {
		text = p.marker + "FAIL\n"
	}
	if !p.ran {
		text = nothing + text
	}
	_, err := io.WriteString(p.to, text)
	return errors.Join(p.err, err)
}

// nothing is what testing says of a run without a test.
const nothing = "testing: warning: no tests to run\n"

// Output is what one shard prints.
type Output struct {
	printer *Printer
	line    []byte // that has no end yet
	held    bytes.Buffer
	idle    bool
	ended   bool
}

// Write takes lines, and keeps what is none yet.
func (o *Output) Write(b []byte) (int, error) {
	o.printer.mu.Lock()
	defer o.printer.mu.Unlock()
	o.line = append(o.line, b...)
	for {
		i := bytes.IndexByte(o.line, '\n')
		if i < 0 {
			return len(b), o.printer.err
		}
		o.take(o.line[:i+1])
		o.line = o.line[i+1:]
	}
}

func (o *Output) take(line []byte) {
	switch text := strings.TrimLeft(string(line), "\x16"); text {
	case "PASS\n", "FAIL\n":
		o.printer.marker = strings.TrimSuffix(string(line), text)
	case nothing:
		o.idle = true
	default:
		o.print(line)
	}
}

func (o *Output) print(b []byte) {
	p := o.printer
	if p.outputs[p.turn] != o {
		o.held.Write(b)
		return
	}
	if _, err := p.to.Write(b); err != nil && p.err == nil {
		p.err = err
	}
}

// End says that the shard has ended, so that the next one gets its turn.
func (o *Output) End() {
	p := o.printer
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(o.line) > 0 {
		o.print(append(o.line, '\n'))
		o.line = nil
	}
	o.ended = true
	p.ran = p.ran || !o.idle
	for p.outputs[p.turn].ended && p.turn < len(p.outputs)-1 {
		p.turn++
		next := p.outputs[p.turn]
		next.print(next.held.Bytes())
		next.held.Reset()
	}
}
