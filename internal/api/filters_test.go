package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"testing"
)

func TestParseFilters(t *testing.T) {
	for raw, want := range map[string]string{
		``:                                    "map[]",
		`{}`:                                  "map[]",
		`null`:                                "map[]",
		`{"name":["b","a"]}`:                  "map[name:[b a]]",
		`{"name":{"b":true,"a":true}}`:        "map[name:[a b]]",
		`{"name":{"b":true,"a":false}}`:       "map[name:[b]]",
		`{"name":["a"],"label":{"x=1":true}}`: "map[label:[x=1] name:[a]]",
		`{"foo":["a"]}`:                       "invalid filter 'foo'",
		`{"name":3}`:                          "invalid filter 'name': json: cannot unmarshal number into Go value of type map[string]bool",
		`{bad`:                                "invalid filters: invalid character 'b' looking for beginning of object key string",
		`[]`:                                  "invalid filters: json: cannot unmarshal array into Go value of type map[string]json.RawMessage",
	} {
		f, err := parseFilters(url.Values{"filters": {raw}}, "name", "label")
		got := fmt.Sprint(map[string][]string(f))
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("parseFilters(%s) = %s, want %s", raw, got, want)
		}
		if err != nil && status(err) != 400 {
			t.Errorf("parseFilters(%s) fails with status %d, want 400", raw, status(err))
		}
	}
}

func TestBooleanFilter(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`:                              "false false <nil>",
		`{"d":["true"]}`:                  "true true <nil>",
		`{"d":["1","true"]}`:              "true true <nil>",
		`{"d":["0"]}`:                     "false true <nil>",
		`{"d":["x"]}`:                     "false true invalid filter 'd=[x]'",
		`{"d":["0","1"]}`:                 "false true invalid filter 'd=[0 1]'",
		`{"d":[]}`:                        "false true invalid filter 'd=[]'",
		`{"d":{"true":true,"junk":true}}`: "true true <nil>",
	} {
		f, err := anyFilters(url.Values{"filters": {raw}})
		if err != nil {
			t.Fatal(err)
		}
		value, given, err := f.boolean("d")
		if got := fmt.Sprint(value, given, err); got != want {
			t.Errorf("boolean of %s = %s, want %s", raw, got, want)
		}
	}
}

func TestFlag(t *testing.T) {
	for v, want := range map[string]bool{"": false, "0": false, "no": false, "False": false, " none ": false, "1": true, "true": true, "yes": true, "x": true} {
		if got := flag(url.Values{"all": {v}}, "all"); got != want {
			t.Errorf("flag(%q) = %v, want %v", v, got, want)
		}
	}
}

func FuzzFilters(f *testing.F) {
	for _, seed := range []string{``, `{"a":["b"]}`, `{"a":{"b":true}}`, `{"a":null}`, `{"a":[1]}`, `{"":[""]}`, "{\"a\":[\"\x00\xff\"]}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q := url.Values{"filters": {raw}}
		got, err := anyFilters(q)
		if err != nil {
			if status(err) != 400 {
				t.Errorf("%q: status %d, want 400", raw, status(err))
			}
			return
		}
		if raw != "" && !json.Valid([]byte(raw)) {
			t.Errorf("%q was taken for %v", raw, got)
		}
		again, err := anyFilters(url.Values{"filters": {got.encode()}})
		if err != nil {
			t.Fatalf("%q: what is sent to nodes does not parse: %v", raw, err)
		}
		for k, v := range got {
			if len(v) > 0 && !slices.Equal(again[k], v) {
				t.Errorf("%q: %s is %q after encoding, was %q", raw, k, again[k], v)
			}
		}
		if _, err := parseFilters(q); (err == nil) != (len(got) == 0) {
			t.Errorf("%q: names that nobody knows give %v", raw, err)
		}
	})
}
