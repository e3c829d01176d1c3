package api

import (
	"regexp"
	"slices"
	"strings"

	"berth/internal/fleet"
)

// parseNames reads the filter name, of which one value has to match one of a container's names.
func (l *listing) parseNames() error {
	var tests []func(name string) bool
	for _, v := range l.f["name"] {
		tests = append(tests, nameFilter(v))
	}
	if len(tests) == 0 {
		return nil
	}
	l.tests = append(l.tests, func(_ *fleet.Node, c *fleet.Container) bool {
		return slices.ContainsFunc(tests, func(match func(string) bool) bool {
			return match(c.Name) || slices.ContainsFunc(c.Aliases, match)
		})
	})
	return nil
}

// nameFilter is a regular expression, or the name itself for what is none, tried as the engine does: with the slash that its
// names begin with, and without. Most are a word or a whole name, which need no regular expression.
func nameFilter(v string) func(name string) bool {
	if name, ok := wholeName(v); ok {
		return func(n string) bool { return n == name }
	}
	if literal(v) && !strings.Contains(v, "/") {
		return func(n string) bool { return strings.Contains(n, v) }
	}
	re, err := regexp.Compile(v)
	if err != nil {
		return func(n string) bool { return n == v || "/"+n == v }
	}
	return func(n string) bool { return re.MatchString("/"+n) || re.MatchString(n) }
}

// wholeName reads ^name$, ^/name$ and ^/?name$, in which the name may be quoted.
func wholeName(v string) (string, bool) {
	rest, ok := strings.CutPrefix(v, "^")
	if !ok {
		return "", false
	}
	if rest, ok = strings.CutSuffix(rest, "$"); !ok {
		return "", false
	}
	for _, slash := range []string{"/?", "/"} {
		if cut, ok := strings.CutPrefix(rest, slash); ok {
			rest = cut
			break
		}
	}
	name := strings.ReplaceAll(rest, `\.`, ".")
	if regexp.QuoteMeta(name) != rest || strings.Contains(name, "/") {
		return "", false
	}
	return name, true
}

// literal tells whether a regular expression means its own letters.
func literal(v string) bool { return regexp.QuoteMeta(v) == v }
