package shards

import (
	"regexp"
	"strings"
)

// Selects tells whether a pattern for -run selects a part, or something in it.
func Selects(pattern string, p Part) bool {
	for _, alternative := range split(pattern, '|') {
		if selects(split(alternative, '/'), p) {
			return true
		}
	}
	return false
}

func selects(elems []string, p Part) bool {
	for i, name := range []string{p.Test, p.Sub} {
		if i >= len(elems) || name == "" {
			break
		}
		re, err := regexp.Compile(strings.ReplaceAll(elems[i], " ", "_"))
		if err == nil && !re.MatchString(name) { // testing tells of an error
			return false
		}
	}
	return true
}

// split cuts a pattern at a separator that is in no brackets, as testing does.
func split(pattern string, separator byte) (elems []string) {
	round, square, begin := 0, false, 0
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case square:
			square = c != ']'
		case c == '[':
			square = true
		case c == '(':
			round++
		case c == ')':
			round--
		case c == separator && round == 0:
			elems = append(elems, pattern[begin:i])
			begin = i + 1
		}
	}
	return append(elems, pattern[begin:])
}
