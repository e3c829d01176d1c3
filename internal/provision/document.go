package provision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// document is a JSON object of someone else's: fields that are not touched keep their place and their very digits.
type document struct {
	keys    []string
	values  map[string]json.RawMessage
	changed bool
	err     error // the first field that is not what it must be
}

// parseDocument reads a JSON object; nothing at all is an empty one.
func parseDocument(text []byte) (*document, error) {
	d := &document{values: map[string]json.RawMessage{}}
	if len(bytes.TrimSpace(text)) == 0 {
		return d, nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("it is not a JSON object%s", because(err))
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("it is not JSON: %w", err)
		}
		name, _ := key.(string) // the decoder lets no other key pass
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("it is not JSON: at %q: %w", name, cut(err))
		}
		if !d.has(name) {
			d.keys = append(d.keys, name)
		}
		d.values[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", cut(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after its end")
	}
	return d, nil
}

// cut is for an end in the middle.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

func (d *document) has(key string) bool {
	_, has := d.values[key]
	return has
}

func (d *document) fail(key, want string) {
	if d.err == nil {
		d.err = fmt.Errorf("%q is %s, not %s", key, d.values[key], want)
	}
}

// put is for what encodes.
func (d *document) put(key string, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err) // texts, switches and lists of texts encode
	}
	if !d.has(key) {
		d.keys = append(d.keys, key)
	}
	d.values[key] = raw
	d.changed = true
}

// set gives a field a text or a switch.
func (d *document) set(key string, want any) {
	var is any
	if raw, has := d.values[key]; has && json.Unmarshal(raw, &is) == nil && is == want {
		return
	}
	d.put(key, want)
}

// list is a field that is a list of texts; nil if there is none.
func (d *document) list(key string) []string {
	raw, has := d.values[key]
	if !has {
		return nil
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		d.fail(key, "a list of texts")
	}
	return list
}

// add puts values into a list. One that is the same as another replaces it.
func (d *document) add(key string, values []string, same func(a, b string) bool) {
	list := d.list(key)
	changed := false
	for _, v := range values {
		at := slices.IndexFunc(list, func(have string) bool { return same(have, v) })
		switch {
		case at < 0:
			list, changed = append(list, v), true
		case list[at] != v:
			list[at], changed = v, true
		}
	}
	if changed {
		d.put(key, list)
	}
}

// override gives a field that is there another value, of the same kind, as an option would. Lists get one more; without a value a
// switch is turned on.
func (d *document) override(key, value string, has bool) error {
	var is any
	if err := json.Unmarshal(d.values[key], &is); err != nil {
		return err
	}
	var err error
	var want any = value
	switch is := is.(type) {
	case bool:
		want = true
		if has {
			want, err = strconv.ParseBool(value)
		}
	case float64:
		want, err = strconv.ParseFloat(value, 64)
	case string:
	case []any:
		d.add(key, []string{value}, sameText)
		return d.err
	case map[string]any:
		name, setting, ok := strings.Cut(value, "=")
		if _, text := is[name].(string); !ok || is[name] != nil && !text {
			return fmt.Errorf("%q is set there already, and an engine takes it from one place only", key)
		}
		if is[name] == setting {
			return nil
		}
		is[name] = setting
		want = is
		d.put(key, want)
		return nil
	}
	if err != nil {
		return fmt.Errorf("engine option %s=%s: it is %v in there: %w", key, value, is, errors.Unwrap(err))
	}
	d.set(key, want)
	return nil
}

// encode writes the object, two blanks deep.
func (d *document) encode() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, key := range d.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s", quoteJSON(key), d.values[key])
	}
	b.WriteByte('}')
	var out bytes.Buffer
	if err := json.Indent(&out, b.Bytes(), "", "  "); err != nil {
		panic(err) // it was put together of valid parts
	}
	out.WriteByte('\n')
	return out.Bytes()
}

func quoteJSON(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // any text encodes
	}
	return string(raw)
}
