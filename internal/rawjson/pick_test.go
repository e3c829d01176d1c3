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
		`{"Host":null,"Image":""}`:                `{}`,
		`{"Host":{"Memory":0,"Mounts":[],"X":1}}`: `{"Host":{}}`,
		`{"Image":"","IMAGE":"a","Image":""}`:     `{"IMAGE":"a","Image":""}`,
		`{"Host":[{"X":1}],"A":1}`:                `{"Host":[{"X":1}]}`,
		`{"Im\u0061ge":1}`:                        `{"Image":1}`,
		`{"HoſT":{"X":1}}`:                        `{"HoſT":{}}`,
	} {
		o, err := Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := o.Pick(wants); err != nil || string(got) != want {
			t.Errorf("%s\ngot  %s, %v\nwant %s", in, got, err, want)
		}
	}
	o, err := ParseTrusted([]byte(`{"Host":{"X" 1}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.Pick(wants); err == nil {
		t.Errorf("what is broken inside became %s, want an error", got)
	}
}

// FuzzPick compares what a decoder makes of the whole and of the picked fields.
func FuzzPick(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"Image":"x","IMAGE":null}`, `{"Host":{"Memory":1},"host":{"mounts":[]}}`, `{"Host":[1]}`, `{"Image":1}`} {
		f.Add([]byte(s))
	}
	type decoded struct {
		Image string
		Host  struct {
			Memory float64
			Mounts []string
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := Parse(in)
		if err != nil {
			return
		}
		out, err := o.Pick(wants)
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		var whole, picked decoded
		wholeErr, pickedErr := json.Unmarshal(in, &whole), json.Unmarshal(out, &picked)
		if pickedErr != nil && wholeErr == nil {
			t.Fatalf("%q became %q: %v", in, out, pickedErr)
		}
		if len(whole.Host.Mounts) == 0 && len(picked.Host.Mounts) == 0 {
			whole.Host.Mounts, picked.Host.Mounts = nil, nil // an empty list is as good as none
		}
		if wholeErr == nil && !reflect.DeepEqual(whole, picked) {
			t.Fatalf("%q became %q: %+v, want %+v", in, out, picked, whole)
		}
	})
}
