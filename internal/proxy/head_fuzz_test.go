package proxy

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"
)

// FuzzHead reads heads of streams: what is read is what came, the rest is left, and an edit changes only what it names.
func FuzzHead(f *testing.F) {
	for _, head := range []string{
		"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nrest",
		"HTTP/1.1 200 OK\nA: b\n c\n\nrest", "HTTP/1.0 200\r\n\r\n", "\r\n\r\n", "a\n\n", "HTTP/1.1 200 OK\r\nX: y",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), 16)
		head, err := readHead(r)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(in, head) {
			t.Fatalf("read %q of %q", head, in)
		}
		if rest := in[len(head):]; !bytes.HasPrefix(rest, buffered(r)) {
			t.Fatalf("behind %q are %q, not %q", head, rest, buffered(r))
		}
		same, err := editHead(head, http.Header{"A": {"b"}}, http.Header{"A": {"b"}})
		if err != nil || !bytes.Equal(same, head) {
			t.Fatalf("an edit of nothing made %q of %q, %v", same, head, err)
		}
		edited, err := editHead(head, nil, http.Header{"X-Berth": {"n1"}})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(edited, []byte("X-Berth: n1\r\n")) {
			t.Errorf("%q became %q", head, edited)
		}
	})
}
