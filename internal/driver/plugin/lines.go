package plugin

import (
	"bytes"
	"strings"
	"sync"
)

// maxLine is the longest line that is passed on in one piece.
const maxLine = 64 << 10

// lines passes on what is written to it line by line. It is one goroutine's at a time.
type lines struct {
	line    func(string)
	pending []byte
}

func (l *lines) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		take := len(rest)
		if end >= 0 {
			take = end
		}
		take = min(take, maxLine-len(l.pending))
		l.pending = append(l.pending, rest[:take]...)
		rest = rest[take:]
		switch {
		case len(rest) > 0 && rest[0] == '\n':
			rest = rest[1:]
			l.flush()
		case len(l.pending) == maxLine && len(rest) > 0:
			l.flush()
		}
	}
	return len(p), nil
}

// flush passes on what has no end yet.
func (l *lines) flush() {
	text := strings.TrimSuffix(string(l.pending), "\r")
	l.pending = l.pending[:0]
	l.line(text)
}

// end passes on a last line that nothing ends.
func (l *lines) end() {
	if len(l.pending) > 0 {
		l.flush()
	}
}

// lastWords remembers of what a plugin wrote to stderr the line that tells best why it ended: a panic, else the last one.
type lastWords struct {
	mu    sync.Mutex
	text  string
	final bool // nothing better can come
}

func (w *lastWords) note(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.final || strings.TrimSpace(line) == "" {
		return
	}
	w.final = strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
	w.text = strings.TrimSpace(line)
}

// String is "" if nothing was said.
func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text
}
