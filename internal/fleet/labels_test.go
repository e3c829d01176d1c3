package fleet

import (
	"encoding/json"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// Labels read from any JSON that encodes a map give the map.
func TestLabelsEqualTheirMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ab"\\, :{}]{0,4}`))
		m := rapid.MapOfN(text, text, 0, 5).Draw(t, "labels")
		// What is not UTF-8 does not get through JSON.
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		m = map[string]string{}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "indented") {
			if b, err = json.MarshalIndent(m, " ", "\t"); err != nil {
				t.Fatal(err)
			}
		}
		for _, l := range []Labels{LabelsOf(m), Labels(b[1 : len(b)-1])} {
			if !l.Valid() {
				t.Fatalf("%s is not valid", l)
			}
			if got := maps.Collect(l.All()); !maps.Equal(got, m) {
				t.Fatalf("all = %q, want %q", got, m)
			}
			for k, want := range m {
				if got, ok := l.Lookup(k); !ok || got != want || l.Get(k) != want {
					t.Fatalf("%q = %q, %v, want %q", k, got, ok, want)
				}
			}
			absent := text.Draw(t, "absent")
			if _, is := m[absent]; !is {
				if got, ok := l.Lookup(absent); ok || got != "" {
					t.Fatalf("%q = %q, want none", absent, got)
				}
			}
		}
	})
}

func TestBrokenLabelsAreNotValid(t *testing.T) {
	for _, l := range []Labels{`"a"`, `"a":1`, `"a":null`, `"a":"b",`, `,`, `"a":"b" "c":"d"`, `"a`, `"a\":"b`, `a:"b"`, `"a":"b"}`} {
		if l.Valid() {
			t.Errorf("%s is valid", l)
		}
		for range l.All() { //nolint:revive // it must end
		}
	}
	if !Labels("").Valid() || !Labels(" \n").Valid() {
		t.Error("no labels are not valid")
	}
}
