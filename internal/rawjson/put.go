package rawjson

import "bytes"

// Put is a value that is to stand in an object.
type Put struct {
	// Path leads to it, through objects that are made where they are missing or null. Keys are compared as they are.
	Path  []string
	Value []byte
}

// AppendPut appends the JSON object in b to dst with some values put into it, in one pass over b. The first keys of their
// paths must differ. Like ParseTrusted it takes b for valid JSON; broken input gives an error or a broken object, never a
// panic.
func AppendPut(dst, b []byte, puts ...Put) ([]byte, error) {
	s := scanner{b: b}
	dst, err := s.put(dst, puts, 0)
	if err != nil {
		return nil, err
	}
	return dst, s.end()
}

// put copies the object that is next, with what is to be put at this depth of the paths or below.
func (s *scanner) put(dst []byte, puts []Put, depth int) ([]byte, error) {
	if !s.take('{') {
		return nil, ErrNotObject
	}
	start := s.i - 1 // of what is not copied yet
	fields, found := 0, uint64(0)
	for !s.take('}') {
		key, err := s.text()
		if err != nil {
			return nil, err
		}
		if !s.take(':') {
			return nil, s.broken()
		}
		fields++
		if i := match(puts, depth, key); i >= 0 {
			found |= 1 << i
			s.space()
			dst = append(dst, s.b[start:s.i]...)
			if dst, err = s.replace(dst, puts[i], depth+1); err != nil {
				return nil, err
			}
			start = s.i
		} else if _, err := s.value(); err != nil {
			return nil, err
		}
		if !s.take(',') && (s.i >= len(s.b) || s.b[s.i] != '}') {
			return nil, s.broken()
		}
	}
	dst = append(dst, bytes.TrimRight(s.b[start:s.i-1], " \t\r\n")...)
	for i := range puts {
		if found&(1<<i) == 0 {
			if fields > 0 {
				dst = append(dst, ',')
			}
			fields++
			dst = append(AppendString(dst, puts[i].Path[depth]), ':')
			dst = puts[i].build(dst, depth+1)
		}
	}
	return append(dst, '}'), nil
}

// replace copies the value that is next, with p put into it or in its place.
func (s *scanner) replace(dst []byte, p Put, depth int) ([]byte, error) {
	if depth < len(p.Path) && s.i < len(s.b) && s.b[s.i] == '{' {
		return s.put(dst, []Put{p}, depth)
	}
	if _, err := s.value(); err != nil {
		return nil, err
	}
	return p.build(dst, depth), nil
}

// build appends the value inside the objects that are missing around it.
func (p Put) build(dst []byte, depth int) []byte {
	for _, key := range p.Path[depth:] {
		dst = append(AppendString(append(dst, '{'), key), ':')
	}
	dst = append(dst, p.Value...)
	for range p.Path[depth:] {
		dst = append(dst, '}')
	}
	return dst
}

// match finds the one whose path has the key at this depth.
func match(puts []Put, depth int, raw []byte) int {
	key := raw[1 : len(raw)-1]
	if bytes.IndexByte(key, '\\') >= 0 {
		text, err := unquote(raw)
		if err != nil {
			return -1
		}
		key = []byte(text)
	}
	for i := range puts {
		if puts[i].Path[depth] == string(key) {
			return i
		}
	}
	return -1
}
