package term_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"go.uber.org/goleak"

	"berth/internal/term"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen is what a person at a terminal sees of the bytes that were written: just enough of one.
type screen struct {
	lines [][]rune
	y, x  int
}

var escape = regexp.MustCompile(`^\x1b\[([0-9]*)([A-Za-z])`)

func (s *screen) write(t *testing.T, b []byte) {
	t.Helper()
	for len(b) > 0 {
		if m := escape.FindSubmatch(b); m != nil {
			n, _ := strconv.Atoi(string(m[1]))
			s.control(t, m[2][0], n)
			b = b[len(m[0]):]
			continue
		}
		r, size := utf8.DecodeRune(b)
		b = b[size:]
		s.put(t, r)
	}
}

func (s *screen) control(t *testing.T, code byte, n int) {
	t.Helper()
	switch code {
	case 'A':
		if s.y -= n; s.y < 0 {
			t.Fatalf("the cursor goes %d lines above the screen", -s.y)
		}
	case 'K':
		s.row()
		s.lines[s.y] = s.lines[s.y][:min(s.x, len(s.lines[s.y]))]
	case 'J':
		s.row()
		s.lines[s.y] = s.lines[s.y][:min(s.x, len(s.lines[s.y]))]
		s.lines = s.lines[:s.y+1]
	case 'm':
	default:
		t.Fatalf("the terminal is told %q", code)
	}
}

func (s *screen) row() {
	for len(s.lines) <= s.y {
		s.lines = append(s.lines, nil)
	}
}

func (s *screen) put(t *testing.T, r rune) {
	t.Helper()
	switch r {
	case '\r':
		s.x = 0
	case '\n':
		s.y++
	case 0x1b:
		t.Fatal("an escape sequence that no step of ours writes")
	default:
		s.row()
		for len(s.lines[s.y]) <= s.x {
			s.lines[s.y] = append(s.lines[s.y], ' ')
		}
		s.lines[s.y][s.x] = r
		s.x++
	}
}

func (s *screen) text() string {
	var lines []string
	for _, l := range s.lines {
		lines = append(lines, strings.TrimRight(string(l), " "))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// terminal is a real one, of which the test is the person.
type terminal struct {
	tty  *os.File
	read chan []byte // closed at the end
}

func openTerminal(t *testing.T, columns, rows uint16) *terminal {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Cols: columns, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	x := &terminal{tty, make(chan []byte)}
	go func() {
		defer close(x.read)
		defer master.Close() //nolint:errcheck // read only
		for {
			b := make([]byte, 1<<16)
			n, err := master.Read(b)
			if n > 0 {
				x.read <- b[:n]
			}
			if err != nil { // EIO once the other side is closed
				return
			}
		}
	}()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	return x
}

// seen runs show on the terminal and gives all screens that were to be seen on the way, and every byte.
func (x *terminal) seen(t *testing.T, show func(out io.Writer)) (screens []string, raw string) {
	t.Helper()
	go func() {
		show(x.tty)
		x.tty.Close() //nolint:errcheck // that is the end of it
	}()
	s := &screen{}
	var all, rest []byte
	for b := range x.read {
		all = append(all, b...)
		rest = append(rest, b...)
		end := bytes.LastIndexAny(rest, "JK\n") // whole sequences and characters
		if end < 0 {
			continue
		}
		s.write(t, rest[:end+1])
		rest = bytes.Clone(rest[end+1:])
		screens = append(screens, s.text())
	}
	s.write(t, rest)
	return append(screens, s.text()), string(all)
}

// noTimes makes the times all the same.
func noTimes(s string) string {
	return regexp.MustCompile(` +[0-9]+\.[0-9]s`).ReplaceAllString(s, " Ns")
}

func TestManyThingsHaveALineEachThatIsDrawnAnew(t *testing.T) {
	x := openTerminal(t, 80, 24)
	screens, raw := x.seen(t, func(out io.Writer) {
		p := term.Show(out, []string{"web1", "database2"}, term.Auto)
		_ = p.During(func() error {
			p.Line("web1", "Creating machine...")
			p.Line("database2", "Creating machine...")
			p.Above(func() { fmt.Fprint(out, "a warning\n") })
			p.Line("web1", "Starting the engine...\x1b[2J\r")
			p.Done("web1", nil)
			p.Line("database2", "Starting the engine...")
			p.Done("database2", errors.New("no"))
			return nil
		})
	})
	last := noTimes(screens[len(screens)-1])
	want := "a warning\n" +
		"web1       Starting the engine...[2J done Ns\n" +
		"database2  Starting the engine... failed Ns"
	if got := regexp.MustCompile(` +(done|failed)`).ReplaceAllString(last, " $1"); got != want {
		t.Errorf("the screen at the end:\n%s\nwant\n%s", got, want)
	}
	if !strings.Contains(raw, "\x1b[31m") {
		t.Error("a failure has no colour")
	}
	for _, s := range screens {
		if strings.Count(s, "web1") > 1 || strings.Count(s, "database2") > 1 {
			t.Fatalf("a machine has several lines:\n%s", s)
		}
	}
}

func TestOneThingKeepsItsSteps(t *testing.T) {
	x := openTerminal(t, 80, 24)
	t.Setenv("NO_COLOR", "1")
	screens, raw := x.seen(t, func(out io.Writer) {
		p := term.Show(out, []string{"web1"}, term.Auto)
		_ = p.During(func() error {
			p.Line("web1", "one\ntwo")
			p.Line("web1", "three")
			p.Done("web1", nil)
			return nil
		})
	})
	last := regexp.MustCompile(` +Ns`).ReplaceAllString(noTimes(screens[len(screens)-1]), " Ns")
	if want := "web1  one Ns\nweb1  two Ns\nweb1  three Ns"; last != want {
		t.Errorf("the screen at the end:\n%s\nwant\n%s", last, want)
	}
	if regexp.MustCompile(`\x1b\[[0-9]*m`).MatchString(raw) {
		t.Error("there are colours in spite of NO_COLOR")
	}
}

// The time that passes is seen although nothing happens.
func TestTheTimeGoesOn(t *testing.T) {
	x := openTerminal(t, 80, 24)
	enough := make(chan struct{})
	go func() {
		p := term.Show(x.tty, []string{"web1"}, term.Auto)
		_ = p.During(func() error {
			p.Line("web1", "waiting")
			<-enough
			return nil
		})
		x.tty.Close() //nolint:errcheck // that is the end of it
	}()
	var all []byte
	seen := false
	for b := range x.read {
		if all = append(all, b...); !seen && bytes.Contains(all, []byte("0.2s")) {
			seen = true
			close(enough)
		}
	}
	if !seen {
		t.Errorf("it ended with %q", all)
	}
}

func TestABarFitsTheScreen(t *testing.T) {
	for columns, want := range map[uint16]string{
		80: `^web1  layer [ ]*\[=========>          \]  45% 45\.0MB/100\.0MB +Ns$`,
		40: `^web1  layer +45% +Ns$`,
	} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			x := openTerminal(t, columns, 24)
			screens, _ := x.seen(t, func(out io.Writer) {
				p := term.Show(out, []string{"web1"}, term.Auto)
				_ = p.During(func() error {
					p.Bar("web1", "layer", 1, 100e6)
					p.Bar("web1", "layer", 45e6, 100e6)
					p.Above(nil)
					return nil
				})
			})
			found := false
			for _, s := range screens {
				found = found || regexp.MustCompile(want).MatchString(noTimes(s))
				for l := range strings.SplitSeq(s, "\n") {
					if utf8.RuneCountInString(l) >= int(columns) {
						t.Fatalf("a line as wide as the screen or wider wraps: %q", l)
					}
				}
			}
			if !found {
				t.Errorf("no screen like %s in\n%s", want, strings.Join(screens, "\n---\n"))
			}
		})
	}
}

// On a low screen the work that goes on is shown; at the end all of it is.
func TestMoreThingsThanLines(t *testing.T) {
	x := openTerminal(t, 80, 5)
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("m%02d", i))
	}
	screens, _ := x.seen(t, func(out io.Writer) {
		p := term.Show(out, names, term.Auto)
		_ = p.During(func() error {
			for i, n := range names {
				p.Line(n, "working")
				if i < 18 {
					p.Done(n, nil)
				}
			}
			return nil
		})
	})
	before, last := screens[len(screens)-2], screens[len(screens)-1]
	for _, s := range screens {
		if n := strings.Count(s, "\n") + 1; n > 4 && strings.Contains(s, "more") {
			t.Fatalf("%d lines on a screen of 5:\n%s", n, s)
		}
	}
	if n := strings.Count(last, "working"); n != 20 {
		t.Errorf("%d lines at the end, want 20:\n%s\nbefore:\n%s", n, last, before)
	}
	if !strings.Contains(strings.Join(screens, "\n===\n"), "m18  working") {
		t.Error("what goes on is not shown")
	}
}

func TestPlainBarsAreToldOfNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		p := term.Show(&b, []string{"web1"}, term.Auto) // a buffer is no terminal
		_ = p.During(func() error {
			for i := range int64(101) {
				p.Bar("web1", "image", i*1e6, 100e6)
				time.Sleep(100 * time.Millisecond)
			}
			p.Bar("web1", "image", 100e6, 100e6) // once more is not said again
			p.Bar("web1", "unknown", 5, 0)
			p.Done("web1", nil)
			return nil
		})
		want := `(web1)   0.0s  image:   0% 0B/100.0MB
(web1)   5.0s  image:  50% 50.0MB/100.0MB
(web1)  10.0s  image: 100% 100.0MB/100.0MB
(web1)  10.1s  unknown: 5B
`
		if b.String() != want {
			t.Errorf("progress =\n%swant\n%s", b.String(), want)
		}
	})
}

func TestJSONIsAnObjectPerEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		p := term.Show(&b, []string{"a", "b"}, term.JSON)
		p.Line("a", "Creating <machine>...")
		time.Sleep(1500 * time.Millisecond)
		p.Bar("a", "image", 5, 10)
		p.Bar("a", "image", 6, 10)
		p.Done("a", nil)
		p.Done("b", errors.New("no"))
		want := `{"time":"2000-01-01T00:00:00Z","name":"a","step":"Creating <machine>...","seconds":0}
{"time":"2000-01-01T00:00:01.5Z","name":"a","step":"image","done":5,"total":10,"seconds":1.5}
{"time":"2000-01-01T00:00:01.5Z","name":"a","status":"done","seconds":1.5}
{"time":"2000-01-01T00:00:01.5Z","name":"b","status":"failed","error":"no","seconds":1.5}
`
		if b.String() != want {
			t.Errorf("progress =\n%swant\n%s", b.String(), want)
		}
		for line := range strings.Lines(b.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s is no JSON", line)
			}
		}
	})
}

func TestQuietIsQuiet(t *testing.T) {
	var b strings.Builder
	p := term.Show(&b, []string{"a"}, term.Quiet)
	wrote := false
	err := p.During(func() error {
		p.Line("a", "x")
		p.Bar("a", "x", 1, 2)
		p.Above(func() { wrote = true })
		p.Done("a", nil)
		return io.EOF
	})
	if b.Len() > 0 || !wrote || !errors.Is(err, io.EOF) {
		t.Errorf("wrote %q, above %v, error %v", b.String(), wrote, err)
	}
}

func TestParseStyle(t *testing.T) {
	for _, s := range []string{"auto", "plain", "json"} {
		if got, err := term.ParseStyle(s); string(got) != s || err != nil {
			t.Errorf("ParseStyle(%s) = %s, %v", s, got, err)
		}
	}
	if _, err := term.ParseStyle("tty"); err == nil || !strings.Contains(err.Error(), "want auto, plain or json") {
		t.Errorf("ParseStyle(tty) = %v", err)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1.0kB", 999_960: "1.0MB", 45_000_000: "45.0MB", 7e12: "7.0TB"} {
		if got := term.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
}
