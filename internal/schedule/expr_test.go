package schedule

import (
	"strings"
	"testing"
)

func TestParseExpr(t *testing.T) {
	for text, want := range map[string]string{
		"size==xxl":                          "size==xxl",
		"size!=xxl":                          "size!=xxl",
		"size=xxl":                           "size==xxl",
		"size=~xxl":                          "size==~xxl",
		"size==~xxl":                         "size==~xxl",
		"size!=~xxl":                         "size!=~xxl",
		"a==b":                               "a==b",
		"_x.y-z9==1":                         "_x.y-z9==1",
		"size===x":                           "size===x", // a value may begin with =, as it could
		"size==!x":                           "size==!x",
		"image==nginx@sha256:00ff":           "image==nginx@sha256:00ff",
		"image==/^(nginx|redis):1.{1,3}$/":   "image==/^(nginx|redis):1.{1,3}$/",
		"os==Debian GNU/Linux 12 (bookworm)": "os==Debian GNU/Linux 12 (bookworm)",
		"x==a,b#c":                           "x==a,b#c",
		"container==/web":                    "container==/web",
		"x==/(?i)A/":                         "x==/(?i)A/",
		"size":                               "error: One of operator ==, != is expected",
		"":                                   "error: One of operator ==, != is expected",
		"size!xxl":                           "error: One of operator ==, != is expected",
		"size>=2":                            "error: Key 'size>' is invalid",
		"size!==2":                           "error: One of operator ==, != is expected, not !==",
		"==xxl":                              "error: Key '' is invalid",
		"1a==xxl":                            "error: Key '1a' is invalid",
		"-a==xxl":                            "error: Key '-a' is invalid",
		"a b==xxl":                           "error: Key 'a b' is invalid",
		"size==":                             "error: Value '' is invalid",
		"size==~":                            "error: Value '~' is invalid",
		"size==a==b":                         "error: Value 'a==b' is invalid",
		"size==a~b":                          "error: Value 'a~b' is invalid",
		`size=="x"`:                          `error: Value '"x"' is invalid`,
		"size==\x00":                         "error: Value '\x00' is invalid",
		"size==ä":                            "error: Value 'ä' is invalid",
		"node==/":                            "error: Value '/' is invalid: a regular expression stands between two slashes",
		"node==~/":                           "error: Value '/' is invalid: a regular expression stands between two slashes",
		"node==/(/":                          "error: Value '/(/' is invalid: error parsing regexp: missing closing ): `(`",
		"k==" + strings.Repeat("x", 5000):    "error: longer than 4096 bytes",
	} {
		e, err := parseExpr(text)
		got := e.String()
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("parseExpr(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		value, text string
		want        bool
	}{
		{"web", "web", true},
		{"web", "web1", false},
		{"web", "Web", false},
		{"we*", "web", true},
		{"*eb", "web", true},
		{"w*b", "web", true},
		{"w*b", "wb", true},
		{"w*b", "w", false},
		{"a*a", "a", false}, // one a is not both ends
		{"*", "", true},
		{"*", "x", true},
		{"**", "x", true},
		{"a*b*c", "a-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"*b*b*", "abab", true},
		{"*b*b*", "ab", false},
		{"1.2", "1x2", false}, // a dot is a dot
		{"a|b", "a", false},   // a bar is a bar
		{"a|b", "a|b", true},
		{"a?", "a", false},
		{"a?", "a?", true},
		{"my-favorite.image-*", "my-favorite.image-3", true},
		{"my-favorite.image-*", "my-favoriteximage-3", false},
		{"/web", "/web", true},
		{"/we.$/", "the web", true}, // not anchored
		{"/^we.$/", "the web", false},
		{"/WEB/", "web", false},
		{"/(?i)WEB/", "web", true},
		{"//", "anything", true},
		{"/my-[a-z]+\\.image-[0-9]+/", "my-fine.image-7", true},
	} {
		p, err := compile(tt.value)
		if err != nil {
			t.Fatalf("compile(%q): %v", tt.value, err)
		}
		if got := p.match(tt.text); got != tt.want {
			t.Errorf("%q matches %q = %v, want %v", tt.value, tt.text, got, tt.want)
		}
	}
}

func FuzzParseExpr(f *testing.F) {
	for _, s := range []string{"size==xxl", "node!=~/a|b/", "image=~x@sha256:00", "/", "a==/", "a===*", "x!==y"} {
		f.Add(s, "xxl")
	}
	f.Fuzz(func(t *testing.T, s, candidate string) {
		e, err := parseExpr(s)
		if err != nil {
			return
		}
		again, err := parseExpr(e.String())
		if err != nil || again.String() != e.String() {
			t.Fatalf("parseExpr(%q) = %q, which parses to %q, error %v", s, e, again, err)
		}
		if again.Key != e.Key || again.Not != e.Not || again.Soft != e.Soft || again.Value != e.Value {
			t.Fatalf("parseExpr(%q) = %+v, its own text gives %+v", s, e, again)
		}
		if e.pattern.match(candidate) != again.pattern.match(candidate) {
			t.Fatalf("%q and its own text differ on %q", s, candidate)
		}
		if word, ok := e.pattern.word(); ok && !e.pattern.match(word) {
			t.Fatalf("%q does not match its own word %q", s, word)
		}
	})
}
