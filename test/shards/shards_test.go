package shards

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestDivide(t *testing.T) {
	parts := []Part{{"TestA", "", 50, ""}, {"TestB", "1", 40, ""}, {"TestB", "2", 30, ""}, {"TestB", "3", 25, ""}, {"TestC", "", 5, ""}}
	sharing := slices.Clone(parts)
	sharing[0].Shares, sharing[2].Shares = "x", "x"
	for name, tt := range map[string]struct {
		parts []Part
		limit int
		want  string
	}{
		"one does it all":                  {parts, 1, "[TestA TestB/1 TestB/2 TestB/3 TestC]"},
		"the longest first, to the idlest": {parts, 2, "[TestA TestB/3] [TestB/1 TestB/2 TestC]"},
		"not more than are worth it":       {parts, 9, "[TestA] [TestB/1 TestC] [TestB/2 TestB/3]"},
		"what shares something":            {sharing, 2, "[TestA TestB/2] [TestB/1 TestB/3 TestC]"},
		"few":                              {parts[:1], 9, "[TestA]"},
		"none":                             {nil, 9, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range Divide(tt.parts, tt.limit, 50) {
				var names []string
				for test, subs := range s.subs {
					for _, sub := range subs {
						names = append(names, strings.TrimSuffix(test+"/"+sub, "/"))
					}
				}
				slices.Sort(names)
				got = append(got, fmt.Sprint(names))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("divided into %s, want %s", strings.Join(got, " "), tt.want)
			}
		})
	}
}

// Every part is done by one shard: it is skipped by all of the others.
func TestSkip(t *testing.T) {
	var parts []Part
	for i := range 40 {
		parts = append(parts, Part{fmt.Sprintf("Test%d", i), "", float64(i), ""}, Part{"TestChecks", fmt.Sprintf("%02d_what_is_(a+b)|c", i), float64(i % 7), ""})
	}
	shards := Divide(parts, 3, 1)
	for _, p := range parts {
		var done []int
		for i := range shards {
			if !skipped(t, Skip(shards, i), p) {
				done = append(done, i)
			}
		}
		if len(done) != 1 {
			t.Errorf("%v is done by shards %v, want one", p, done)
		}
	}
	if skip := Skip(Divide(parts, 1, 1), 0); skip != "" {
		t.Errorf("the only shard skips %q", skip)
	}
	if fmt.Sprint(Divide(parts, 3, 1)) != fmt.Sprint(shards) {
		t.Error("the same parts are divided otherwise the next time")
	}
}

// skipped reads a pattern as testing does: a pattern with fewer elements than the name skips all that is below.
func skipped(t *testing.T, pattern string, p Part) bool {
	t.Helper()
	for _, alternative := range split(pattern, '|') {
		elems := split(alternative, '/')
		all := pattern != ""
		for i, e := range elems {
			all = all && regexp.MustCompile(e).MatchString([]string{p.Test, p.Sub}[i])
		}
		if all {
			return true
		}
	}
	return false
}

func TestSelects(t *testing.T) {
	for _, tt := range []struct {
		pattern, test, sub string
		want               bool
	}{
		{"", "TestA", "", true},
		{"A", "TestA", "", true},
		{"^A", "TestA", "", false},
		{"TestA/x", "TestA", "", true},
		{"TestA/07", "TestA", "07_seven", true},
		{"TestA/08", "TestA", "07_seven", false},
		{"TestA/08|TestA/seven", "TestA", "07_seven", true},
		{"Test(A|B)$/07 s/x", "TestB", "07_seven", true},
		{"Test[A|/]/07", "TestC", "07_seven", false},
		{`Test\(/07`, "TestA", "07_seven", false},
		{"Test(", "TestA", "", true},
	} {
		if got := Selects(tt.pattern, Part{Test: tt.test, Sub: tt.sub}); got != tt.want {
			t.Errorf("-run %s selects %s/%s: %t, want %t", tt.pattern, tt.test, tt.sub, got, tt.want)
		}
	}
}

func TestTimes(t *testing.T) {
	times, err := Times("TestA 1.5\nTestB/07_seven 20\n")
	if want := map[string]float64{"TestA": 1.5, "TestB/07_seven": 20}; err != nil || !maps.Equal(times, want) {
		t.Errorf("times are %v, %v, want %v", times, err, want)
	}
	for _, text := range []string{"TestA\n", "TestA x\n", "\n"} {
		if _, err := Times(text); err == nil {
			t.Errorf("%q is taken for a record", text)
		}
	}
}

func TestPrinter(t *testing.T) {
	print := func(o *Output, text string) {
		if _, err := o.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	shown := func(want string) {
		t.Helper()
		if out.String() != want {
			t.Fatalf("printed %q, want %q", out.String(), want)
		}
	}
	p := NewPrinter(&out, 3)
	print(p.Output(1), "b1\nb")
	print(p.Output(0), "a1\n")
	shown("a1\n")
	print(p.Output(2), nothing+"PASS\n")
	p.Output(2).End()
	print(p.Output(0), "a2\nPASS\n")
	p.Output(0).End()
	shown("a1\na2\nb1\n")
	print(p.Output(1), "2\n    FAIL\nFAIL\nlast words")
	shown("a1\na2\nb1\nb2\n    FAIL\n")
	p.Output(1).End()
	if err := p.Verdict(false); err != nil {
		t.Fatal(err)
	}
	shown("a1\na2\nb1\nb2\n    FAIL\nlast words\nFAIL\n")

	out.Reset()
	p = NewPrinter(&out, 1)
	print(p.Output(0), nothing+"\x16PASS\n")
	p.Output(0).End()
	if err := p.Verdict(true); err != nil {
		t.Fatal(err)
	}
	shown(nothing + "\x16PASS\n")
}
