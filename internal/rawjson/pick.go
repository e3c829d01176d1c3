package rawjson

import (
	"strings"
	"unicode/utf8"
)

// Want is a field that Pick keeps: whole, or if Inside is given, of the object that it holds only what is wanted inside.
type Want struct {
	Key    string
	Inside []Want
}

// Pick encodes those fields of an object that are wanted and not empty, in their order and as they stand there. A decoder of a few fields
// spends most of its time on those that it drops; into a value that is zero it decodes what is left here as it would the whole. (Of an
// empty value of the wrong type it does not learn.) Keys match as in encoding/json, in whatever case. There are 64 wants at most.
func (o *Object) Pick(wants []Want) ([]byte, error) {
	p := picker{out: make([]byte, 0, 512)}
	p.out = append(p.out, '{')
	var seen uint64
	for i := range o.fields {
		if err := p.field(wants, &seen, o.fields[i].key, o.fields[i].value); err != nil {
			return nil, err
		}
	}
	return append(p.out, '}'), nil
}

type picker struct{ out []byte }

// field appends a field if it is wanted. One that was there before is not left out for being empty: the last one counts.
func (p *picker) field(wants []Want, seen *uint64, key string, value []byte) error {
	i := wanted(wants, key)
	if i < 0 || *seen&(1<<i) == 0 && isEmpty(value) {
		return nil
	}
	*seen |= 1 << i
	if p.out[len(p.out)-1] != '{' {
		p.out = append(p.out, ',')
	}
	p.out = append(AppendString(p.out, key), ':')
	if wants[i].Inside == nil || value[0] != '{' {
		p.out = append(p.out, value...)
		return nil
	}
	p.out = append(p.out, '{')
	var inside uint64
	err := Walk(value, func(key string, value []byte) error { return p.field(wants[i].Inside, &inside, key, value) })
	p.out = append(p.out, '}')
	return err
}

// wanted is the place of the key among the wants, or -1.
func wanted(wants []Want, key string) int {
	ascii := true
	for i := range len(key) {
		ascii = ascii && key[i] < utf8.RuneSelf
	}
	for i := range wants {
		if (len(wants[i].Key) == len(key) || !ascii) && strings.EqualFold(wants[i].Key, key) {
			return i
		}
	}
	return -1
}

// isEmpty tells whether a value leaves what it is decoded into as it was made.
func isEmpty(value []byte) bool {
	switch string(value) {
	case "null", `""`, "0", "false", "[]", "{}":
		return true
	}
	return false
}
