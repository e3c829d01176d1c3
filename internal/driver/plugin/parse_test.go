package plugin

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"berth/internal/machine"
)

// split is what lines makes of text that comes in pieces of a size.
func split(text string, size int) []string {
	var got []string
	l := &lines{line: func(s string) { got = append(got, s) }}
	for len(text) > 0 {
		n := min(size, len(text))
		_, _ = l.Write([]byte(text[:n]))
		text = text[n:]
	}
	l.end()
	return got
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"nothing":                     {"", nil},
		"ends and no end":             {"a\nb\n\nc", []string{"a", "b", "", "c"}},
		"ends of Windows":             {"a\r\nb\r\n", []string{"a", "b"}},
		"the longest line":            {long + "\na\n", []string{long, "a"}},
		"one longer, in pieces":       {long + "y\na\n", []string{long, "y", "a"}},
		"the longest line at the end": {"a\n" + long, []string{"a", long}},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			if got := split(tt.text, size); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("%s, in pieces of %d: %d lines %.100q, want %d", name, size, len(got), got, len(tt.want))
			}
		}
	}
}

// However the text is cut, the lines are the same, none is too long, and nothing is lost.
func FuzzLines(f *testing.F) {
	f.Add("a\nb\r\n\nc", 2)
	f.Add(strings.Repeat("x", maxLine+1)+"\n", 1000)
	f.Fuzz(func(t *testing.T, text string, size int) {
		if size < 1 {
			return
		}
		got := split(text, size)
		if whole := split(text, len(text)+1); fmt.Sprint(got) != fmt.Sprint(whole) {
			t.Errorf("%q in pieces of %d = %q, want %q", text, size, got, whole)
		}
		chars := 0
		for _, l := range got {
			chars += len(l)
			if len(l) > maxLine {
				t.Errorf("a line of %d", len(l))
			}
		}
		if ends := strings.Count(text, "\n") + strings.Count(text, "\r"); chars > len(text) || chars < len(text)-ends {
			t.Errorf("%d characters became %d", len(text), chars)
		}
	})
}

func TestParseAddress(t *testing.T) {
	for line, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80", " 127.0.0.1:80\r": "127.0.0.1:80", "[::1]:80": "[::1]:80",
		"": "", "127.0.0.1": "", "127.0.0.1:0": "", "127.0.0.1:99999": "", "192.0.2.1:80": "", "localhost:80": "", "127.0.0.1:80 x": "", "0.0.0.0:80": "",
	} {
		if got, err := parseAddress(line); got != want || (err == nil) != (want != "") {
			t.Errorf("address in %q = %q %v, want %q", line, got, err, want)
		}
	}
}

// Whatever the first line is, it is an address of this computer or an error.
func FuzzParseAddress(f *testing.F) {
	f.Add("127.0.0.1:80")
	f.Add("[::1%lo]:80")
	f.Fuzz(func(t *testing.T, line string) {
		got, err := parseAddress(line)
		if err != nil {
			return
		}
		a, err := netip.ParseAddrPort(got)
		if err != nil || !a.Addr().IsLoopback() || a.Port() == 0 {
			t.Errorf("address in %q = %q", line, got)
		}
	})
}

func TestFlagsOverTheWire(t *testing.T) {
	for name, tt := range map[string]struct {
		wire any
		want string
	}{
		"with a short form": {&intFlag{Name: "size, s", Value: 4}, "size 4"},
		"by value":          {stringFlag{Name: "x"}, ""},
		"no name":           {&boolFlag{}, ""},
		"an option's name":  {&boolFlag{Name: "-x"}, ""},
		"a name with =":     {&stringFlag{Name: "a=b"}, ""},
		"nothing":           {nil, ""},
	} {
		f, err := fromWire(tt.wire)
		got := fmt.Sprintf("%s %v", f.Name, f.Default)
		if err != nil {
			got = ""
		}
		if got != tt.want {
			t.Errorf("%s: %s (%v), want %s", name, got, err, tt.want)
		}
	}
	twice, err := fromWires([]any{&intFlag{Name: "a", Value: 1}, &boolFlag{Name: "a"}, &intFlag{Name: "b"}})
	if err != nil || len(twice) != 2 || twice[0].Default != 1 {
		t.Errorf("a flag that is there twice = %v %v, want the first", twice, err)
	}
	if w, err := toWire(machine.Flag{Name: "x", Default: 1.5}); err == nil {
		t.Errorf("a flag of a type that the protocol has not = %v, want an error", w)
	}
}

// Whatever name a plugin gives a flag: it is refused, or it can stand on a command line.
func FuzzFlagName(f *testing.F) {
	f.Add("hetzner-image-id, i")
	f.Fuzz(func(t *testing.T, name string) {
		flag, err := fromWire(&stringFlag{Name: name})
		if err == nil && (flag.Name == "" || strings.ContainsAny(flag.Name, " =,\n\t/") || strings.HasPrefix(flag.Name, "-")) {
			t.Errorf("%q became the flag %q", name, flag.Name)
		}
	})
}

func TestStatesOverTheWire(t *testing.T) {
	for n, want := range map[int]machine.State{0: machine.StateNone, 1: machine.StateRunning, 4: machine.StateStopped, 9: machine.StateNotFound} {
		if got, err := fromWireState(n); err != nil || got != want {
			t.Errorf("state %d = %s %v, want %s", n, got, err, want)
		}
	}
	for _, n := range []int{-1, 10} {
		if got, err := fromWireState(n); err == nil {
			t.Errorf("state %d = %s, want an error", n, got)
		}
	}
}

func TestAPanicsStackIsForDebugging(t *testing.T) {
	var said []string
	s := &session{debug: func(line string) { said = append(said, line) }}
	for text, want := range map[string]string{
		"Panic in the driver: no\ngoroutine 1\nmain": "Panic in the driver: no",
		"two\nlines": "two\nlines",
	} {
		err := s.refusal(text)
		var refused *serverError
		if !errors.As(err, &refused) || err.Error() != want {
			t.Errorf("refusal %q = %q, want %q", text, err, want)
		}
	}
	if got, want := strings.Join(said, "|"), "goroutine 1|main"; got != want {
		t.Errorf("debugging got %s, want %s", got, want)
	}
}
