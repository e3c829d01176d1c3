package engine

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"berth/internal/fleet"
)

var dressed = &fleet.Node{ID: "E1|10.0.0.1:2376", Name: `no"de`, Addr: "10.0.0.1:2376", IP: "10.0.0.1"}

// What a client sees is the engine's event with the node in it, in whatever shape it came; no key stands there twice.
func TestDress(t *testing.T) {
	for name, in := range map[string]string{
		"usual":          `{"status":"start","id":"abc","Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"busybox","name":"web"}},"scope":"local","time":1700000000,"timeNano":1700000000123456789}`,
		"no attributes":  `{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{ }},"scope":"local","timeNano":1700000000123456789}`,
		"null":           `{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":null},"scope":"local","timeNano":1700000000123456789}`,
		"attributes 1st": `{"Actor":{"Attributes":{"name":"a\"}b"},"ID":"abc"}, "timeNano":1700000000123456789 ,"Type":"container","Action":"start","scope":"local" }`,
		"of a berth":     `{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"web","node.name":"other","berth.node":"other"}},"scope":"local","timeNano":1700000000123456789,"node":{"Name":"other"}}`,
		"future fields":  `{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"web"},"New":[1]},"scope":"local","timeNano":1700000000123456789,"Big":1e400}`,
	} {
		t.Run(name, func(t *testing.T) {
			var d dress
			ev, err := d.event(dressed, []byte(in))
			if err != nil {
				t.Fatal(err)
			}
			if ev.Type != "container" || ev.Action != "start" || ev.ActorID != "abc" || ev.Scope != "local" || ev.TimeNano != 1700000000123456789 {
				t.Errorf("read %+v", ev)
			}
			if !json.Valid(ev.Raw) {
				t.Fatalf("not JSON: %s", ev.Raw)
			}
			raw, _, err := d.rewrite([]byte(in))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := decoded(t, ev.Raw), decoded(t, raw); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			for _, key := range []string{`"node.name"`, `"berth.node"`, `"node"`} {
				if n := bytes.Count(ev.Raw, []byte(key)); n != 1 {
					t.Errorf("%s is there %d times: %s", key, n, ev.Raw)
				}
			}
			if got := attribute(ev, "node.name"); got != `no"de` {
				t.Errorf("node.name is %q", got)
			}
		})
	}
}

func decoded(t *testing.T, raw []byte) (v struct {
	Type, Action, Scope string
	Actor               struct {
		ID         string
		Attributes map[string]string
		New        []int
	}
	Node map[string]string
	Big  json.RawMessage
}) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDressOdd(t *testing.T) {
	var d dress
	ev, err := d.event(dressed, []byte(`{"Type":"container","Action":"exec_create: sh -c \"a\"","time":1700000000,"timeNano":null}`))
	if err != nil || ev.Action != `exec_create: sh -c "a"` || ev.TimeNano != 1700000000e9 {
		t.Errorf("%+v, %v", ev, err)
	}
	for _, in := range []string{`{"timeNano":"x"}`, `{"time":1.5}`, `{"Actor":{"ID":1,}`, `[]`} {
		if ev, err := d.event(dressed, []byte(in)); err == nil {
			t.Errorf("%s gives %+v", in, ev)
		}
	}
}

func FuzzDress(f *testing.F) {
	f.Add([]byte(`{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"web"}},"scope":"local","timeNano":1}`))
	f.Add([]byte(`{"Actor":{"Attributes":{}}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var d dress
		if ev, err := d.event(dressed, in); err == nil && json.Valid(in) && !json.Valid(ev.Raw) {
			t.Fatalf("%s became %s", in, ev.Raw)
		}
	})
}

func BenchmarkDress(b *testing.B) {
	in := []byte(`{"status":"start","id":"0123456789012345678901234567890123456789012345678901234567890123","from":"busybox:latest","Type":"container","Action":"start","Actor":{"ID":"0123456789012345678901234567890123456789012345678901234567890123","Attributes":{"com.docker.compose.project":"p","com.docker.compose.service":"web","image":"busybox:latest","name":"web"}},"scope":"local","time":1700000000,"timeNano":1700000000123456789}`)
	var d dress
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.event(dressed, in); err != nil {
			b.Fatal(err)
		}
	}
}
