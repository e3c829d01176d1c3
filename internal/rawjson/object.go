// Package rawjson edits single fields of JSON objects and leaves every other byte as it was.
//
// The endpoint must let fields through that it does not know, in both directions, so bodies are never decoded into structs
// and encoded again: that would drop unknown fields, and map[string]any would round large numbers such as timeNano.
package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Object is a JSON object as its fields in their order, each value as the bytes that stood there. The zero value is {}. Keys
// are parts of the text as values are.
type Object struct {
	fields []field
	source []byte
}

type field struct {
	key   string
	value []byte
}

// ErrNotObject is returned for input that is not one JSON object.
var ErrNotObject = errors.New("not a JSON object")

// Parse splits one JSON object. The values alias b, which must not change afterwards. Whatever stands behind the object,
// but for white space, is an error.
func Parse(b []byte) (*Object, error) {
	if !json.Valid(b) {
		var v any
		return nil, fmt.Errorf("invalid JSON: %w", json.Unmarshal(b, &v))
	}
	o, err := split(b)
	if err == nil {
		o.source = b
	}
	return o, err
}

// ParseTrusted is Parse without the check that all of b is valid JSON, for bodies that an engine encoded. Broken input
// still gives an error or a broken value, never a panic.
func ParseTrusted(b []byte) (*Object, error) { return split(b) }

func split(b []byte) (*Object, error) {
	s := scanner{b: b}
	o := &Object{fields: make([]field, 0, min(24, 2+len(b)/32))}
	err := s.object(func(key string, value []byte) error {
		o.fields = append(o.fields, field{key, value})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// find prefers the exact key and falls back to the first that differs in case only, as Go's decoder in the engine does.
func (o *Object) find(key string) int {
	fold := -1
	for i := range o.fields {
		if o.fields[i].key == key {
			return i
		}
		if fold < 0 && strings.EqualFold(o.fields[i].key, key) {
			fold = i
		}
	}
	return fold
}

// Get returns the raw value of key, or nil.
func (o *Object) Get(key string) json.RawMessage {
	if i := o.find(key); i >= 0 {
		return o.fields[i].value
	}
	return nil
}

// Has tells whether key is there with a value other than null.
func (o *Object) Has(key string) bool {
	v := o.Get(key)
	return v != nil && !bytes.Equal(v, []byte("null"))
}

// Keys lists the keys in their order.
func (o *Object) Keys() []string {
	keys := make([]string, len(o.fields))
	for i := range o.fields {
		keys[i] = o.fields[i].key
	}
	return keys
}

// Decode decodes the value of key into v; v is left alone when key is absent.
func (o *Object) Decode(key string, v any) error {
	raw := o.Get(key)
	if raw == nil {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// Object parses the value of key as an object. Absent and null give an empty one.
func (o *Object) Object(key string) (*Object, error) {
	if !o.Has(key) {
		return &Object{}, nil
	}
	sub, err := split(o.Get(key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return sub, nil
}

// SetRaw replaces the value of key in its place, or adds it at the end.
func (o *Object) SetRaw(key string, value []byte) {
	if i := o.find(key); i >= 0 {
		o.fields[i].value = value
		return
	}
	o.fields = append(o.fields, field{key, value})
}

// Set is SetRaw with v encoded. It panics on a value that JSON cannot hold, which is a programming error.
func (o *Object) Set(key string, v any) {
	if sub, ok := v.(*Object); ok {
		o.SetRaw(key, sub.Bytes())
		return
	}
	o.SetRaw(key, Encode(v))
}

// Delete removes key in whatever case it is written.
func (o *Object) Delete(key string) {
	kept := o.fields[:0]
	for _, f := range o.fields {
		if !strings.EqualFold(f.key, key) {
			kept = append(kept, f)
		}
	}
	o.fields = kept
}

// Len is the number of fields.
func (o *Object) Len() int { return len(o.fields) }

// Bytes encodes the object.
func (o *Object) Bytes() []byte { return o.appendTo(make([]byte, 0, o.size())) }

// size is what the object needs, if its keys need no escapes.
func (o *Object) size() int {
	n := 2
	for i := range o.fields {
		n += len(o.fields[i].key) + len(o.fields[i].value) + 4
	}
	return n
}

func (o *Object) appendTo(out []byte) []byte {
	out = append(out, '{')
	for i := range o.fields {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(AppendString(out, o.fields[i].key), ':')
		out = append(out, o.fields[i].value...)
	}
	return append(out, '}')
}

// Cut encodes the object in two parts, so that a value for key can be put between them again and again. Both are in one piece
// of memory. The field must be there.
func (o *Object) Cut(key string) (head, tail []byte, err error) {
	i := o.find(key)
	if i < 0 {
		return nil, nil, fmt.Errorf("no field %s", key)
	}
	first, last := Object{fields: o.fields[:i]}, Object{fields: o.fields[i+1:]}
	out := make([]byte, 0, o.size())
	out = first.appendTo(out)
	out = out[:len(out)-1] // what follows is inside
	if i > 0 {
		out = append(out, ',')
	}
	out = append(AppendString(out, o.fields[i].key), ':')
	n := len(out)
	out = last.appendTo(out)
	if len(last.fields) > 0 {
		out[n] = ','
	} else {
		out = append(out[:n], '}')
	}
	head, tail = out[:n:n], out[n:]
	return head, tail, nil
}

// Text returns the value of key if it is a string, or else "".
func (o *Object) Text(key string) string {
	return strings.Clone(View(o.Get(key))) // which may be kept for longer than the body
}

// Source is the text that was given to Parse, or what the object encodes to if there was none.
func (o *Object) Source() []byte {
	if o.source == nil {
		return o.Bytes()
	}
	return o.source
}

// Clone returns an object whose changes do not show in o.
func (o *Object) Clone() *Object {
	return &Object{fields: append(make([]field, 0, len(o.fields)+4), o.fields...)}
}

// Strings encodes a list of strings.
func Strings(list []string) []byte {
	out := []byte{'['}
	for i, s := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = AppendString(out, s)
	}
	return append(out, ']')
}

// AppendString appends a string as JSON.
func AppendString[T string | []byte](out []byte, s T) []byte {
	if !plain(s) {
		return append(out, encode(string(s))...)
	}
	out = append(out, '"')
	out = append(out, s...)
	return append(out, '"')
}

// plain tells whether a string is its own JSON, but for the quotes.
func plain[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// Encode is json.Marshal without HTML escaping, for values that cannot fail to encode; it panics if one does.
func Encode(v any) []byte {
	if s, ok := v.(string); ok {
		return AppendString(make([]byte, 0, len(s)+2), s)
	}
	return encode(v)
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("rawjson: encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Array splits one JSON array into its elements. null gives none.
func Array(b []byte) ([]json.RawMessage, error) {
	b = bytes.TrimSpace(b)
	if bytes.Equal(b, []byte("null")) {
		return nil, nil
	}
	s := scanner{b: b}
	var out []json.RawMessage
	err := s.array(func(v []byte) error {
		out = append(out, v)
		return nil
	})
	return out, err
}
