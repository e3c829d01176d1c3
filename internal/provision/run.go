package provision

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
)

// prelude goes before every script. `run` shows a command before it runs it, so that an error can name it and progress can show it.
const prelude = `set -e
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
LC_ALL=C
DEBIAN_FRONTEND=noninteractive
NEEDRESTART_SUSPEND=1
export PATH LC_ALL DEBIAN_FRONTEND NEEDRESTART_SUSPEND
run() { printf '$ %s\n' "$*"; "$@"; }
`

// runMark begins the lines of `run`.
const runMark = "$ "

// sh runs a script as root and returns what it said.
func (h *host) sh(ctx context.Context, script string, stdin io.Reader) (string, error) {
	return h.exec(ctx, h.root(prelude+script), stdin)
}

// exec runs a script as it is.
func (h *host) exec(ctx context.Context, script string, stdin io.Reader) (string, error) {
	out := &output{shown: func(command string) { h.say("  " + command) }}
	err := h.runner.Run(ctx, script, stdin, out)
	said := out.String()
	if err != nil {
		return said, h.failed(ctx, said, err)
	}
	return said, nil
}

// root wraps a script so that root runs it.
func (h *host) root(script string) string {
	if h.become == "" {
		return script
	}
	return "exec " + h.become + " sh -c " + quote(script)
}

// output keeps what a script says, and tells of its commands as they begin. Of a very long text the middle is lost.
type output struct {
	shown func(command string)

	mu    sync.Mutex
	text  bytes.Buffer
	lines int // bytes of text that whole lines end at
}

// maxOutput is far more than any script here says in good faith.
const maxOutput = 1 << 20

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(p)
	if over := o.text.Len() + len(p) - maxOutput; over > 0 {
		kept := o.text.Bytes()
		cut := min(len(kept), over+maxOutput/2)
		o.text = *bytes.NewBuffer(bytes.Clone(kept[cut:]))
		o.lines = max(0, o.lines-cut)
		p = p[max(0, len(p)-maxOutput):]
	}
	o.text.Write(p)
	o.tell()
	return n, nil
}

func (o *output) tell() {
	for {
		rest := o.text.Bytes()[o.lines:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return
		}
		o.lines += end + 1
		if command, ok := strings.CutPrefix(string(rest[:end]), runMark); ok {
			o.shown(command)
		}
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.ToValidUTF8(o.text.String(), "\uFFFD")
}

// lastLine is the answer of scripts that end with one word.
func lastLine(said string) string {
	said = strings.TrimSpace(said)
	return strings.TrimSpace(said[strings.LastIndexByte(said, '\n')+1:])
}

// failed makes a StepError of a script that failed.
func (h *host) failed(ctx context.Context, said string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	e := &StepError{Err: err}
	e.Command, e.Output = lastCommand(said)
	e.Advice = h.advice(said)
	return e
}

// lastCommand is the command that ran last, and what it said.
func lastCommand(said string) (command, output string) {
	at := strings.LastIndex("\n"+said, "\n"+runMark)
	if at < 0 {
		return "", said
	}
	command, output, _ = strings.Cut(said[at+len(runMark):], "\n")
	return command, output
}
