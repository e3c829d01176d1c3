package rawjson

// Walk calls each for every field of a JSON object, in their order, with the key as it is written between its quotes and the
// bytes of the value, which alias b. It stops at the first error.
func Walk(b []byte, each func(key, value []byte) error) error {
	s := scanner{b: b}
	return s.members(func(raw, value []byte) error { return each(raw[1:len(raw)-1], value) })
}

// Text returns the field of an object if its value is a string. The first of that very name counts.
func Text(object []byte, key string) (text string, ok bool) {
	s := scanner{b: object}
	_ = s.members(func(raw, value []byte) error { // what is broken has no such field
		if ok || len(value) == 0 || value[0] != '"' {
			return nil
		}
		if name, err := unquoted(raw); err != nil || string(name) != key {
			return err
		}
		text, ok = String(value)
		return nil
	})
	return text, ok
}

// String decodes a value that is a string.
func String(value []byte) (text string, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	text, err := unquote(value)
	return text, err == nil
}
