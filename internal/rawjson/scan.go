package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

var errArray = errors.New("not a JSON array")

// scanner walks over JSON text one level deep; values are only skipped.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// take consumes c, after white space, if it is next.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) object(each func(key string, value []byte) error) error {
	if !s.take('{') {
		return ErrNotObject
	}
	for !s.take('}') {
		raw, err := s.text()
		if err != nil {
			return err
		}
		key, err := unquote(raw)
		if err != nil {
			return err
		}
		if !s.take(':') {
			return s.broken()
		}
		value, err := s.value()
		if err != nil {
			return err
		}
		if err := each(key, value); err != nil {
			return err
		}
		if !s.take(',') && (s.i >= len(s.b) || s.b[s.i] != '}') {
			return s.broken()
		}
	}
	return s.end()
}

func (s *scanner) array(each func(value []byte) error) error {
	if !s.take('[') {
		return errArray
	}
	for !s.take(']') {
		value, err := s.value()
		if err != nil {
			return err
		}
		if err := each(value); err != nil {
			return err
		}
		if !s.take(',') && (s.i >= len(s.b) || s.b[s.i] != ']') {
			return s.broken()
		}
	}
	return s.end()
}

func (s *scanner) end() error {
	s.space()
	if s.i != len(s.b) {
		return s.broken()
	}
	return nil
}

// text skips one string, quotes included.
func (s *scanner) text() ([]byte, error) {
	if !s.take('"') {
		return nil, s.broken()
	}
	start := s.i - 1
	for {
		quote := bytes.IndexByte(s.b[s.i:], '"')
		if quote < 0 {
			s.i = len(s.b)
			return nil, s.broken()
		}
		escapes := 0
		for escapes < quote && s.b[s.i+quote-1-escapes] == '\\' {
			escapes++
		}
		s.i += quote + 1
		if escapes%2 == 0 {
			return s.b[start:s.i], nil
		}
	}
}

// value skips one value of any kind.
func (s *scanner) value() ([]byte, error) {
	s.space()
	start, depth := s.i, 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			if _, err := s.text(); err != nil {
				return nil, err
			}
			if depth == 0 {
				return s.b[start:s.i], nil
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return s.scalar(start)
			}
			depth--
			if depth == 0 {
				s.i++
				return s.b[start:s.i], nil
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return s.scalar(start)
			}
		}
		s.i++
	}
	if depth > 0 {
		return nil, s.broken()
	}
	return s.scalar(start)
}

func (s *scanner) scalar(start int) ([]byte, error) {
	if s.i == start {
		return nil, s.broken()
	}
	return s.b[start:s.i], nil
}

func (s *scanner) broken() error {
	return fmt.Errorf("invalid JSON near byte %d", min(s.i, len(s.b)))
}

// unquote reads a string; without escapes the result is a part of raw.
func unquote(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '\\') >= 0 {
		var text string
		err := json.Unmarshal(raw, &text)
		return text, err
	}
	return Share(raw[1 : len(raw)-1]), nil
}
