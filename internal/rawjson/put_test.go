package rawjson

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestAppendPut(t *testing.T) {
	node := Put{[]string{"Node"}, []byte(`{"n":1}`)}
	label := Put{[]string{"Config", "Labels", "a.b"}, []byte(`"x"`)}
	for in, want := range map[string]string{
		`{}`: `>{"Node":{"n":1},"Config":{"Labels":{"a.b":"x"}}}`,
		` { "Id" : "1e400", "Config" : { "A":1e400 , "Labels":{"c":"d"} }, "Z":[{"Node":2}] } `: `>{ "Id" : "1e400", "Config" : { "A":1e400 , "Labels":{"c":"d","a.b":"x"}}, "Z":[{"Node":2}],"Node":{"n":1}}`,
		`{"Node":[1,{"x":"}"}],"Config":{"Labels":{"a.b":"was","z":""}}}`:                       `>{"Node":{"n":1},"Config":{"Labels":{"a.b":"x","z":""}}}`,
		`{"Config":null}`:              `>{"Config":{"Labels":{"a.b":"x"}},"Node":{"n":1}}`,
		`{"Config":{"Labels":null}}`:   `>{"Config":{"Labels":{"a.b":"x"}},"Node":{"n":1}}`,
		`{"Config":{"Labels":{ }}}`:    `>{"Config":{"Labels":{"a.b":"x"}},"Node":{"n":1}}`,
		`{"C\u006fnfig":{"L":"\\\""}}`: `>{"C\u006fnfig":{"L":"\\\"","Labels":{"a.b":"x"}},"Node":{"n":1}}`,
		`{"config":1}`:                 `>{"config":1,"Node":{"n":1},"Config":{"Labels":{"a.b":"x"}}}`,
	} {
		got, err := AppendPut([]byte(">"), []byte(in), node, label)
		if err != nil || string(got) != want {
			t.Errorf("%s\ngot  %s, %v\nwant %s", in, got, err, want)
		}
	}
	for _, in := range []string{``, `[]`, `{`, `{"a"`, `{"a":`, `{"Config":`, `{"Config":{`, `{"Config":{"Labels":{"a":"b}}`, `{}x`, `{"a":1 "b":2}`} {
		if got, err := AppendPut(nil, []byte(in), node, label); err == nil {
			t.Errorf("%q became %s, want an error", in, got)
		}
	}
}

func FuzzAppendPut(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"Config":{"Labels":{"a.b":"\\"}}}`, ` {"Config":null , "Node":{}} `, `{"Config":[]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := AppendPut(nil, in, Put{[]string{"Node"}, []byte(`7`)}, Put{[]string{"Config", "Labels", "a.b"}, []byte(`"x"`)})
		var before map[string]json.RawMessage
		if json.Unmarshal(in, &before) != nil || before == nil {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		var after struct {
			Node   json.RawMessage
			Config struct{ Labels map[string]json.RawMessage }
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(out, &all); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		if json.Unmarshal(all["Config"], &after.Config) != nil || string(after.Config.Labels["a.b"]) != `"x"` || string(all["Node"]) != `7` {
			t.Fatalf("%q became %q", in, out)
		}
		for k, v := range before {
			if k != "Config" && k != "Node" && !reflect.DeepEqual(v, all[k]) {
				t.Fatalf("%q became %q", in, out)
			}
		}
	})
}
