package schedule

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unique"

	"berth/internal/fleet"
)

// problem is what is wrong with an expression, in classic Swarm's words where it had any.
type problem string

func (p problem) Error() string { return string(p) }

// maxExpr bounds the length of an expression; longer ones are mistakes.
const maxExpr = 4096

// Expr is one expression such as size==xxl. ParseRules makes them.
type Expr struct {
	Key   string
	Not   bool   // != instead of ==
	Soft  bool   // a wish: nodes that grant more of them win
	Value string // a word, a glob with * or a regular expression between slashes

	pattern pattern
}

// String is the expression as classic Swarm would have it written.
func (e Expr) String() string {
	s := e.Key + e.operator()
	if e.Soft {
		s += "~"
	}
	return s + e.Value
}

func (e Expr) operator() string {
	if e.Not {
		return "!="
	}
	return "=="
}

// spelled is the expression as it stands in classic Swarm's refusals.
func (e Expr) spelled() string {
	return fmt.Sprintf("%s%s%s (soft=%t)", e.Key, e.operator(), e.Value, e.Soft)
}

// parseExpr reads key==value, key!=value or key=value. A value that begins with ~ makes the expression soft.
func parseExpr(s string) (Expr, error) {
	if len(s) > maxExpr {
		return Expr{}, problem(fmt.Sprintf("longer than %d bytes", maxExpr))
	}
	e, err := splitExpr(s)
	if err != nil {
		return Expr{}, err
	}
	if !validKey(e.Key) {
		return Expr{}, problem(fmt.Sprintf("Key '%.200s' is invalid", e.Key))
	}
	if !validValue(e.Value) {
		return Expr{}, problem(fmt.Sprintf("Value '%.200s' is invalid", e.Value))
	}
	if rest, ok := strings.CutPrefix(e.Value, "~"); ok {
		e.Soft, e.Value = true, rest
	}
	e.pattern, err = compile(e.Value)
	if err != nil {
		return Expr{}, problem(fmt.Sprintf("Value '%.200s' is invalid: %v", e.Value, err))
	}
	return e, nil
}

// splitExpr cuts at the first operator. A key has no = or !, so the first = belongs to it.
func splitExpr(s string) (Expr, error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return Expr{}, problem("One of operator ==, != is expected")
	}
	if k, not := strings.CutSuffix(key, "!"); not {
		if strings.HasPrefix(value, "=") {
			return Expr{}, problem("One of operator ==, != is expected, not !==")
		}
		return Expr{Key: k, Not: true, Value: value}, nil
	}
	return Expr{Key: key, Value: strings.TrimPrefix(value, "=")}, nil
}

func validKey(s string) bool {
	for i, c := range []byte(s) {
		if !letter(c) && c != '_' && (i == 0 || !digit(c) && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// validValue allows one of = ! / to begin with, then a ~, then at least one of classic Swarm's characters or of @ , # { },
// which image digests and regular expressions need.
func validValue(s string) bool {
	if s != "" && (s[0] == '=' || s[0] == '!') {
		s = s[1:]
	}
	s = strings.TrimPrefix(s, "~")
	for _, c := range []byte(s) {
		if !letter(c) && !digit(c) && !strings.ContainsRune(" \t\r\n\f\v:-_.*/()?+[]\\^$|@,#{}", rune(c)) {
			return false
		}
	}
	return s != ""
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

// pattern is a compiled value: a regular expression, the pieces between the stars of a glob, or one piece, a word.
type pattern struct {
	re     *regexp.Regexp
	pieces []string
}

func compile(value string) (pattern, error) {
	if value == "/" {
		return pattern{}, errors.New("a regular expression stands between two slashes")
	}
	if len(value) < 2 || value[0] != '/' || value[len(value)-1] != '/' {
		return pattern{pieces: strings.Split(value, "*")}, nil
	}
	re, err := regexp.Compile(value[1 : len(value)-1])
	if err != nil {
		return pattern{}, err
	}
	return pattern{re: re}, nil
}

// word is what the pattern stands for if only one text matches it.
func (p pattern) word() (string, bool) {
	if len(p.pieces) == 1 {
		return p.pieces[0], true
	}
	return "", false
}

// match is anchored at both ends for words and globs, and at none for regular expressions.
func (p pattern) match(s string) bool {
	if p.re != nil {
		return p.re.MatchString(s)
	}
	first, last := p.pieces[0], p.pieces[len(p.pieces)-1]
	if len(p.pieces) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, piece := range p.pieces[1 : len(p.pieces)-1] {
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s = s[i+len(piece):]
	}
	return true
}

// texts is match for what is asked again and again over the nodes of a fleet: a word is an address to compare with, and the
// answers for others are remembered.
func (p pattern) texts() func(fleet.Text) bool {
	if word, ok := p.word(); ok {
		wanted := unique.Make(word)
		return func(t fleet.Text) bool { return t == wanted }
	}
	known := map[fleet.Text]bool{}
	return func(t fleet.Text) bool {
		matches, ok := known[t]
		if !ok {
			matches = p.match(t.Value())
			known[t] = matches
		}
		return matches
	}
}
