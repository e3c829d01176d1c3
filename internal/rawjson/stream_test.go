package rawjson

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func readAll(r io.Reader, limit int) (got []string, err error) {
	s := NewStream(r, limit)
	for {
		b, err := s.Next()
		if err != nil {
			return got, err
		}
		got = append(got, string(b))
	}
}

func TestStream(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", 40<<10) + `"}`
	for name, tc := range map[string]struct {
		in   string
		want []string
		err  error
	}{
		"none":            {" \n", nil, io.EOF},
		"lines":           {"{\"a\":1}\n{\"b\":\"}{\\\"\"}\n", []string{`{"a":1}`, `{"b":"}{\""}`}, io.EOF},
		"without lines":   {`{"a":{"b":[1]}}{}`, []string{`{"a":{"b":[1]}}`, `{}`}, io.EOF},
		"long, and short": {long + "\n" + `{"b":2}`, []string{long, `{"b":2}`}, io.EOF},
		"cut":             {`{"a":1}{"b":`, []string{`{"a":1}`}, io.ErrUnexpectedEOF},
		"no object":       {`{"a":1} [1]`, []string{`{"a":1}`}, ErrNotObject},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tc.in), iotest.OneByteReader(strings.NewReader(tc.in)), iotest.DataErrReader(strings.NewReader(tc.in))} {
				got, err := readAll(r, 1<<20)
				if strings.Join(got, "|") != strings.Join(tc.want, "|") || !errors.Is(err, tc.err) {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
	if _, err := readAll(strings.NewReader(long), 1<<10); err == nil || !strings.Contains(err.Error(), "more than 1024 bytes") {
		t.Errorf("an object that is too long gives %v", err)
	}
}

// What the encoder writes comes out of a stream as it went in, however it is cut up.
func TestStreamAgreesWithTheEncoder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		objects := rapid.SliceOfN(rapid.MapOf(rapid.String(), rapid.String()), 0, 5).Draw(t, "objects")
		var in strings.Builder
		for _, o := range objects {
			if err := json.NewEncoder(&in).Encode(o); err != nil {
				t.Fatal(err)
			}
		}
		got, err := readAll(iotest.HalfReader(strings.NewReader(in.String())), 1<<20)
		if !errors.Is(err, io.EOF) || len(got) != len(objects) {
			t.Fatalf("%d of %d objects, %v", len(got), len(objects), err)
		}
		for i, o := range objects {
			for k, v := range o {
				if text, ok := Text([]byte(got[i]), k); !ok || text != v {
					t.Fatalf("%q of %s is %q, %v", k, got[i], text, ok)
				}
			}
			if _, ok := Text([]byte(got[i]), "no such\x00 field"); ok && len(o) == 0 {
				t.Fatal("a field that is not there")
			}
		}
	})
}

func TestWalkStops(t *testing.T) {
	want := errors.New("enough")
	n := 0
	err := Walk([]byte(`{"a":1,"b":2}`), func(string, []byte) error { n++; return want })
	if !errors.Is(err, want) || n != 1 {
		t.Errorf("%d fields, %v", n, err)
	}
}
