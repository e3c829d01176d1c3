package fleet

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Labels are a container's labels, as the members of a JSON object: "a":"1","b":"2". As a rule they are a part of the
// container's row, so that they take no memory of their own; a map took half as much as the row. Looking one up costs a walk
// over the text; what is asked for often is kept by Facts.
type Labels string

// LabelsOf are the labels of a map.
func LabelsOf(m map[string]string) Labels {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quoted(k))
		b.WriteByte(':')
		b.WriteString(quoted(m[k]))
	}
	return Labels(b.String())
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // a string always encodes
	return string(b)
}

// Get is the value of a label, or "".
func (l Labels) Get(key string) string {
	v, _ := l.Lookup(key)
	return v
}

// Lookup is the value of a label, and whether there is one. The value may be a part of the container's row: who keeps it for
// long should clone it.
func (l Labels) Lookup(key string) (string, bool) {
	for k, v := range l.members() {
		if k.is(key) {
			return v.text(), true
		}
	}
	return "", false
}

// All are the labels in the order in which the engine listed them.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for k, v := range l.members() {
			if !yield(k.text(), v.text()) {
				return
			}
		}
	}
}

// Valid tells whether these are members that are strings, and nothing else.
func (l Labels) Valid() bool {
	rest := string(l)
	for first := true; ; first = false {
		if rest = trimSpace(rest); rest == "" && first {
			return true
		}
		_, _, after, ok := member(rest)
		if !ok {
			return false
		}
		if rest = trimSpace(after); rest == "" {
			return true
		}
		if rest[0] != ',' {
			return false
		}
		rest = rest[1:]
	}
}

// quote is a JSON string as it stands there, without its quotes.
type quote struct {
	raw     string
	escaped bool // it has backslashes
}

func (q quote) is(s string) bool {
	if q.escaped {
		return q.text() == s
	}
	return q.raw == s
}

func (q quote) text() string {
	if !q.escaped {
		return q.raw
	}
	var s string
	_ = json.Unmarshal([]byte(`"`+q.raw+`"`), &s) // "" is what is left of a broken one
	return s
}

// members walks over the labels, up to where they are broken.
func (l Labels) members() iter.Seq2[quote, quote] {
	return func(yield func(quote, quote) bool) {
		for rest := string(l); ; {
			k, v, after, ok := member(trimSpace(rest))
			if !ok || !yield(k, v) {
				return
			}
			if rest = trimSpace(after); rest == "" || rest[0] != ',' {
				return
			}
			rest = rest[1:]
		}
	}
}

func member(s string) (key, value quote, rest string, ok bool) {
	if key, s, ok = cutQuote(s); !ok {
		return key, value, s, false
	}
	if s = trimSpace(s); s == "" || s[0] != ':' {
		return key, value, s, false
	}
	value, s, ok = cutQuote(trimSpace(s[1:]))
	return key, value, s, ok
}

func cutQuote(s string) (q quote, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return q, s, false
	}
	s = s[1:]
	end := strings.IndexByte(s, '"')
	if end < 0 {
		return q, s, false
	}
	if strings.IndexByte(s[:end], '\\') < 0 {
		return quote{s[:end], false}, s[end+1:], true
	}
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return quote{s[:i], true}, s[i+1:], true
		}
	}
	return q, s, false
}

func trimSpace(s string) string { return strings.TrimLeft(s, " \t\r\n") }
