package rawjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

func TestUntouchedFieldsSurvive(t *testing.T) {
	in := `{"timeNano": 1700000000123456789, "New": {"x":[1,2,{"y":"}"}]}, "name":"a\"b", "Big":1e400}`
	o, err := Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	o.Set("Name", "web") // same key in another case: replaced in its place
	o.SetRaw("Added", []byte(`[1]`))
	want := `{"timeNano":1700000000123456789,"New":{"x":[1,2,{"y":"}"}]},"name":"web","Big":1e400,"Added":[1]}`
	if got := string(o.Bytes()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{``, `[]`, `"a"`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}x`, `{"a":1 "b":2}`, "{\"a\":\"\x01\"}", `nul`} {
		if o, err := Parse([]byte(in)); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", in, o.Keys())
		}
	}
}

func TestCut(t *testing.T) {
	for in, want := range map[string]string{
		`{"Status":"old"}`:                  `{"Status":"new"}`,
		`{"a":1,"Status":"old"}`:            `{"a":1,"Status":"new"}`,
		`{"Status":"old","z":{}}`:           `{"Status":"new","z":{}}`,
		`{"a":[1],"Status":"old","z":"\\"}`: `{"a":[1],"Status":"new","z":"\\"}`,
	} {
		o, err := Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		head, tail, err := o.Cut("Status")
		if err != nil {
			t.Fatal(err)
		}
		if got := string(head) + `"new"` + string(tail); got != want {
			t.Errorf("Cut(%s) gives %s, want %s", in, got, want)
		}
	}
	if _, _, err := new(Object).Cut("x"); err == nil {
		t.Error("Cut of an absent field gave no error")
	}
}

func TestArray(t *testing.T) {
	got, err := Array([]byte(` [ {"a":[1,"]"]}, 2 ,"x,y", null ] `))
	if err != nil {
		t.Fatal(err)
	}
	want := []json.RawMessage{[]byte(`{"a":[1,"]"]}`), []byte(`2`), []byte(`"x,y"`), []byte(`null`)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %s", got)
	}
	if _, err := Array([]byte(`[1,2`)); err == nil {
		t.Error("an unfinished array gave no error")
	}
}

func TestDelete(t *testing.T) {
	o, err := Parse([]byte(`{"MacAddress":"x","macaddress":"y","Other":1}`))
	if err != nil {
		t.Fatal(err)
	}
	o.Delete("macAddress")
	if got := string(o.Bytes()); got != `{"Other":1}` {
		t.Errorf("got %s", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":{"b":[]},"c":"\u00e9\\"}`, `[1]`, `{"":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = ParseTrusted(in) // must not panic
		_, _ = Array(in)
		o, err := Parse(in)
		if err != nil {
			return
		}
		var before, after map[string]json.RawMessage
		if err := json.Unmarshal(in, &before); err != nil {
			t.Fatalf("Parse took %q, encoding/json says %v", in, err)
		}
		out := o.Bytes()
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		if len(before) != len(after) {
			t.Fatalf("%q became %q", in, out)
		}
		for k, v := range before {
			if !bytes.Equal(v, after[k]) {
				t.Fatalf("field %q: %s became %s", k, v, after[k])
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	in := []byte(`{"Id":"abc","Names":["/web"],"Image":"nginx","Labels":{"a":"b"},"State":"running","Status":"Up 2 hours","HostConfig":{"NetworkMode":"default"},"Mounts":[]}`)
	b.ReportAllocs()
	for b.Loop() {
		o, err := ParseTrusted(in)
		if err != nil {
			b.Fatal(err)
		}
		_ = o.Bytes()
	}
}
