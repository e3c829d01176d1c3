package rawjson

import "strings"

// Want is a field that Pick keeps: whole, or if Inside is given, of the object that it holds only what is wanted inside.
type Want struct {
	Key    string
	Inside []Want
}

// Pick returns a JSON object with those fields that are wanted, in their order and as they stand in b. A decoder of a few fields spends
// most of its time on those that it drops; of what is left here it makes the same as of b. Keys match as in encoding/json, in whatever
// case. Like ParseTrusted it takes b for valid JSON.
func Pick(b []byte, wants []Want) ([]byte, error) {
	out, err := appendPick(make([]byte, 0, len(b)), b, wants)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func appendPick(dst, b []byte, wants []Want) ([]byte, error) {
	s := scanner{b: b}
	dst = append(dst, '{')
	first := true
	err := s.object(func(key string, value []byte) (err error) {
		w, ok := wanted(wants, key)
		if !ok {
			return nil
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(AppendString(dst, key), ':')
		if w.Inside != nil && value[0] == '{' {
			dst, err = appendPick(dst, value, w.Inside)
			return err
		}
		dst = append(dst, value...)
		return nil
	})
	return append(dst, '}'), err
}

func wanted(wants []Want, key string) (Want, bool) {
	for _, w := range wants {
		if strings.EqualFold(w.Key, key) {
			return w, true
		}
	}
	return Want{}, false
}
