package api

import (
	"regexp"
	"slices"
	"strings"

	"berth/internal/fleet"
)

// parseNames reads the filter name, of which one value has to match one of a container's names.
func (l *listing) parseNames() error {
	values := l.f["name"]
	if len(values) == 0 {
		return nil
	}
	var tests []func(name string) bool
	var parts []string // of a node's names, one of which it must have
	for _, v := range values {
		tests = append(tests, nameFilter(v))
		if name, ok := wholeName(v); ok {
			l.names, parts = append(l.names, name), append(parts, fleet.NamesPart(name))
		} else if word(v) {
			parts = append(parts, v)
		}
	}
	if len(l.names) < len(values) {
		l.names = nil
	}
	if len(parts) == len(values) {
		l.mayName = func(names string) bool {
			return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(names, part) })
		}
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
	if word(v) {
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

// word tells whether a regular expression means its own letters, and these can stand in a name alone.
func word(v string) bool { return regexp.QuoteMeta(v) == v && !strings.Contains(v, "/") }
