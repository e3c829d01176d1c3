package engine

import (
	"strings"
	"testing"
)

func TestWhatToDoAboutAnEngineThatWantsTLS(t *testing.T) {
	for message, want := range map[string]string{
		"Client sent an HTTP request to an HTTPS server.\n": "--tlsverify",
		"client version 1.10 is too old":                    "GET /version: status 400: client version 1.10 is too old",
	} {
		if got := (&statusError{"/version", 400, message}).Error(); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
