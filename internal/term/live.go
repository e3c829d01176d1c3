package term

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// liveView draws a line per thing and draws it anew as the work on it goes on. Of one thing alone the steps that are over stay on the
// screen, each with the time it took.
type liveView struct {
	out   *os.File
	paint bool
	tasks []*task
	width int // of the widest name
	drawn int // lines on the screen that are ours to draw anew
}

// task is the work on one thing.
type task struct {
	name        string
	began, step time.Time // of the work, of its step
	text        string
	done, total int64 // of its bar
	bar         bool
	ended       bool
	failed      bool
	took        time.Duration // once it has ended
}

const (
	liveEvery = 100 * time.Millisecond
	barWidth  = 20
	lineWidth = 110 // wider ones are hard to read
)

func newLiveView(out *os.File, names []string) *liveView {
	v := &liveView{out: out, paint: os.Getenv("NO_COLOR") == ""}
	for _, n := range names {
		v.add(n)
	}
	return v
}

func (v *liveView) add(name string) *task {
	now := time.Now()
	t := &task{name: name, began: now, step: now}
	v.tasks = append(v.tasks, t)
	v.width = max(v.width, utf8.RuneCountInString(name))
	return t
}

func (v *liveView) task(name string) *task {
	if i := slices.IndexFunc(v.tasks, func(t *task) bool { return t.name == name }); i >= 0 {
		return v.tasks[i]
	}
	return v.add(name)
}

func (v *liveView) every() time.Duration { return liveEvery }

func (v *liveView) step(name, text string) {
	t := v.task(name)
	var over strings.Builder
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		if len(v.tasks) == 1 && t.text != "" {
			over.WriteString(v.line(t, v.columns()) + "\x1b[K\n")
		}
		t.text, t.step, t.bar = oneLine(line), time.Now(), false
	}
	v.draw(over.String())
}

// bar only notes: the next redraw is soon enough.
func (v *liveView) bar(name, what string, done, total int64) {
	t := v.task(name)
	if t.text != oneLine(what) {
		v.step(name, what)
	}
	t.bar, t.done, t.total = true, done, total
}

func (v *liveView) done(name string, err error) {
	t := v.task(name)
	t.ended, t.failed, t.took = true, err != nil, time.Since(t.began)
	v.draw("")
}

func (v *liveView) redraw(write func()) {
	if write != nil {
		v.put(v.erase())
		v.drawn = 0
		write()
	}
	v.draw("")
}

func (v *liveView) end() {
	v.put(v.erase())
	v.drawn = 0
	var b strings.Builder
	for _, t := range v.tasks {
		if t.text != "" {
			b.WriteString(v.line(t, v.columns()) + "\n")
		}
	}
	v.put(b.String())
}

// put writes. A terminal that is gone is no reason to stop the work.
func (v *liveView) put(s string) {
	_, _ = v.out.WriteString(s)
}

// erase takes away what was drawn and leaves the cursor there.
func (v *liveView) erase() string {
	if v.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\r\x1b[J", v.drawn)
}

// draw writes all in one piece, so that nobody sees half of it; over is what has come to its end and stays above.
func (v *liveView) draw(over string) {
	columns, rows := v.size()
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", v.drawn)
	}
	b.WriteString(over)
	lines := v.lines(columns, max(rows-1, 1))
	for _, l := range lines {
		b.WriteString(l + "\x1b[K\n")
	}
	b.WriteString("\x1b[J") // what there was below
	v.drawn = len(lines)
	v.put(b.String())
}

// lines are those of all tasks or, where the screen is too low for them, of the ones that are at work.
func (v *liveView) lines(columns, rows int) []string {
	var shown []*task
	for _, t := range v.tasks {
		if t.text != "" {
			shown = append(shown, t)
		}
	}
	hidden := 0
	if len(shown) > rows {
		slices.SortStableFunc(shown, func(a, b *task) int {
			return cmp.Compare(rank(a), rank(b))
		})
		hidden = len(shown) - (rows - 1)
		shown = shown[:rows-1]
	}
	var lines []string
	for _, t := range shown {
		lines = append(lines, v.line(t, columns))
	}
	if hidden > 0 {
		lines = append(lines, cut(fmt.Sprintf("… and %d more", hidden), columns-1))
	}
	return lines
}

// rank puts what is at work before what has ended.
func rank(t *task) int {
	if t.ended {
		return 1
	}
	return 0
}

// line is a task's: its name, what goes on, and for how long.
func (v *liveView) line(t *task, columns int) string {
	took := time.Since(t.step)
	end := ""
	switch {
	case t.failed:
		end = " failed"
	case t.ended && len(v.tasks) > 1:
		end = " done"
	}
	if t.ended && len(v.tasks) > 1 {
		took = t.took
	}
	clock := fmt.Sprintf("%s %6.1fs", end, took.Seconds())
	room := min(columns-1, lineWidth) - v.width - 2 - len(clock)
	text := t.text
	if t.bar && !t.ended {
		bar := " " + drawBar(t.done, t.total) + " " + amount(t.done, t.total)
		if n := utf8.RuneCountInString(bar); n+8 <= room {
			text = cut(text, room-n) + bar
		} else {
			text = cut(text, room-8) + " " + percent(t.done, t.total)
		}
	}
	text = cut(text, room)
	pad := strings.Repeat(" ", max(0, room-utf8.RuneCountInString(text)))
	name := t.name + strings.Repeat(" ", max(0, v.width-utf8.RuneCountInString(t.name)))
	if room < 8 { // what is left of such a narrow screen is for the step
		return cut(t.name+" "+text, columns-1)
	}
	return v.colour("1", name) + "  " + text + pad + v.colour(endColour(t), clock)
}

func endColour(t *task) string {
	switch {
	case t.failed:
		return "31"
	case t.ended:
		return "32"
	}
	return "2"
}

func (v *liveView) colour(code, s string) string {
	if !v.paint {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (v *liveView) columns() int {
	columns, _ := v.size()
	return columns
}

// size is the screen's: of old a terminal that does not say is 80 by 24.
func (v *liveView) size() (columns, rows int) {
	columns, rows, err := term.GetSize(int(v.out.Fd()))
	if err != nil || columns <= 0 || rows <= 0 {
		return 80, 24
	}
	return columns, rows
}

// cut shortens s to n characters.
func cut(s string, n int) string {
	if n <= 0 {
		return ""
	}
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// oneLine leaves nothing in a text that takes another width than its characters have.
func oneLine(s string) string {
	return strings.TrimRight(strings.ReplaceAll(clean(s), "\t", " "), " ")
}
