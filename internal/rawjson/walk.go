package rawjson

import (
	"bytes"
	"strings"
	"unsafe"
)

// Walk calls f for each field of a JSON object, in their order, with the value as it stands there. It keeps nothing and
// makes nothing: keys and values are parts of b, which must not change as long as they are used. Like ParseTrusted it is for
// what an engine encoded.
func Walk(b []byte, f func(key string, value []byte) error) error {
	s := scanner{b: b}
	return s.object(f)
}

// Text returns the field of an object if its value is a string. The first of that very name counts. The text is a copy.
func Text(object []byte, key string) (text string, ok bool) {
	_ = Walk(object, func(k string, value []byte) error { // what is broken has no such field
		if !ok && k == key && len(value) >= 2 && value[0] == '"' {
			text, ok = strings.Clone(View(value)), true
		}
		return nil
	})
	return text, ok
}

// Each calls f for each element of a JSON array. null has none.
func Each(b []byte, f func(value []byte) error) error {
	if b = bytes.TrimSpace(b); string(b) == "null" {
		return nil
	}
	s := scanner{b: b}
	return s.array(f)
}

// View is the text of a value that is a JSON string, or else "". It is a part of raw, which must not change as long as the
// text is used, unless the string has escapes.
func View(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	text, err := unquote(raw)
	if err != nil {
		return ""
	}
	return text
}

// Share is bytes as a string that takes no memory of its own. They must not change as long as it is used.
func Share(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
