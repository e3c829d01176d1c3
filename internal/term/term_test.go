package term_test

import (
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"berth/internal/term"
)

type row struct {
	Name, URL string
	Labels    []string
}

func TestTable(t *testing.T) {
	columns := term.Columns{"Name": "NAME", "URL": "URL", "Labels": "LABELS"}
	rows := []row{{"a", "tcp://1<2", []string{"x", "y"}}, {"host10", "", nil}}
	for name, tt := range map[string]struct{ format, want string }{
		"table":           {`table {{.Name}}\t{{.URL}}`, "NAME     URL\na        tcp://1<2\nhost10   \n"},
		"tabs are real":   {"table {{.Name}}\t{{.URL}}", "NAME     URL\na        tcp://1<2\nhost10   \n"},
		"no header":       {`{{.Name}}={{.URL}}`, "a=tcp://1<2\nhost10=\n"},
		"lines":           {`{{.Name}}\n-`, "a\n-\nhost10\n-\n"},
		"json":            {"json", `{"Name":"a","URL":"tcp://1<2","Labels":["x","y"]}` + "\n" + `{"Name":"host10","URL":"","Labels":null}` + "\n"},
		"json of a field": {`{{json .Labels}}`, `["x","y"]` + "\nnull\n"},
		"functions":       {`{{upper .Name}} {{join .Labels ","}}`, "A x,y\nHOST10 \n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := term.Table(&b, tt.format, columns, rows); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("table(%q) =\n%swant\n%s", tt.format, b.String(), tt.want)
			}
		})
	}
}

func TestBadTemplates(t *testing.T) {
	for name, tt := range map[string]struct{ format, want string }{
		"not closed":       {"{{.Name", "--format: 1: unclosed action"},
		"unknown field":    {"{{.Nme}}", "can't evaluate field Nme"},
		"unknown function": {"{{foo .Name}}", `function "foo" not defined`},
		"join of a word":   {`{{join .Name ","}}`, "join: string is no list"},
	} {
		t.Run(name, func(t *testing.T) {
			err := term.Table(io.Discard, tt.format, term.Columns{}, []row{{Name: "a"}})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "--format: ") {
				t.Errorf("table(%q) = %v, want --format: … %s", tt.format, err, tt.want)
			}
		})
	}
}

func TestPrintPrintsNothingWhenItFails(t *testing.T) {
	var b strings.Builder
	if err := term.Print(&b, "{{.Name}} {{.Nope}}", row{Name: "a"}); err == nil || b.Len() > 0 {
		t.Errorf("print = %v and wrote %q", err, b.String())
	}
	if err := term.Print(&b, "{{prettyjson .}}", map[string]any{"a": 1}); err != nil || b.String() != "{\n    \"a\": 1\n}\n" {
		t.Errorf("print = %v and wrote %q", err, b.String())
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{
		"y\n": true, "Y\n": true, "yes\n": true, " y \n": true, "y": true,
		"n\n": false, "\n": false, "": false, "no y\n": false, "1\n": false,
	} {
		var b strings.Builder
		got, err := term.Confirm(strings.NewReader(answer), &b, "Are you sure?")
		if err != nil || got != want {
			t.Errorf("answer %q = %v, %v, want %v", answer, got, err, want)
		}
		if !strings.HasPrefix(b.String(), "Are you sure? (y/n): ") {
			t.Errorf("asked %q", b.String())
		}
	}
}

func TestProgress(t *testing.T) {
	var b strings.Builder
	p := term.NewProgress(&b, []string{"a", "host10"})
	p.Line("a", "one\ntwo \x1b[31m\n")
	p.For("host10")("three")
	got := regexp.MustCompile(` +[0-9.]+s`).ReplaceAllString(b.String(), " Ns")
	if want := "(a) Ns  one\n(a) Ns  two [31m\n(host10) Ns  three\n"; got != want {
		t.Errorf("progress =\n%swant\n%s", got, want)
	}
}

func TestProgressOfManyKeepsLinesWhole(t *testing.T) {
	var b strings.Builder
	p := term.NewProgress(&b, []string{"a", "b"})
	var wg sync.WaitGroup
	for _, n := range []string{"a", "b"} {
		wg.Go(func() {
			for range 100 {
				p.Line(n, "a step of "+n)
			}
		})
	}
	wg.Wait()
	whole := regexp.MustCompile(`^(\(a\) +[0-9.]+s  a step of a|\(b\) +[0-9.]+s  a step of b)$`)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 200 {
		t.Errorf("%d lines, want 200", len(lines))
	}
	for _, l := range lines {
		if !whole.MatchString(l) {
			t.Fatalf("torn line %q", l)
		}
	}
}

func TestIsTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close() //nolint:errcheck // read only
	if term.IsTerminal(null) || term.IsTerminal(&strings.Builder{}) {
		t.Error("neither /dev/null nor a buffer is a terminal")
	}
}
