package rawjson

import (
	"encoding/json"
	"reflect"
	"testing"
)

var wants = []Want{{Key: "Image"}, {Key: "Host", Inside: []Want{{Key: "Memory"}, {Key: "Mounts"}}}}

func TestPick(t *testing.T) {
	for in, want := range map[string]string{
		`{}`: `{}`,
		` { "Cmd":[1,{"Image":2}] , "image" : "a\"b", "Host":{"X":1,"Memory": 1e400 ,"Y":{},"mounts":[{"Z":1}]},"Image":null} `: `{"image":"a\"b","Host":{"Memory":1e400,"mounts":[{"Z":1}]},"Image":null}`,
		`{"Host":null}`:            `{"Host":null}`,
		`{"Host":[{"X":1}],"A":1}`: `{"Host":[{"X":1}]}`,
		`{"Im\u0061ge":1}`:         `{"Image":1}`,
		`{"HoſT":{"X":1}}`:         `{"HoſT":{}}`,
	} {
		got, err := Pick([]byte(in), wants)
		if err != nil || string(got) != want {
			t.Errorf("%s\ngot  %s, %v\nwant %s", in, got, err, want)
		}
	}
	for _, in := range []string{``, `[]`, `{`, `{"a"`, `{"Host":{"X"`, `{}x`} {
		if got, err := Pick([]byte(in), wants); err == nil {
			t.Errorf("%q became %s, want an error", in, got)
		}
	}
}

// FuzzPick compares what a decoder makes of the whole and of the picked fields.
func FuzzPick(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"Image":"x","IMAGE":null}`, `{"Host":{"Memory":1},"host":{"mounts":[]}}`, `{"Host":[1]}`, `{"Image":1}`} {
		f.Add([]byte(s))
	}
	type decoded struct {
		Image *string
		Host  *struct {
			Memory int64
			Mounts []any
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Pick(in, wants)
		var fields map[string]json.RawMessage
		if json.Unmarshal(in, &fields) != nil || fields == nil {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		var whole, picked decoded
		wholeErr, pickedErr := json.Unmarshal(in, &whole), json.Unmarshal(out, &picked)
		if (wholeErr == nil) != (pickedErr == nil) || wholeErr == nil && !reflect.DeepEqual(whole, picked) {
			t.Fatalf("%q became %q: %+v %v, want %+v %v", in, out, picked, pickedErr, whole, wholeErr)
		}
	})
}
