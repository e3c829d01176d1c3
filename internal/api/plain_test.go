package api

import (
	"regexp"
	"testing"

	"github.com/distribution/reference"
)

// What is found without expressions must be what they find.
func FuzzPlainWays(f *testing.F) {
	for _, s := range []string{"nginx", "a/b-c.d_e:1.2", "localhost:5000/x", "a--b", "/web", "w", "a/", "x:", "x:-1", "A", "a\n", "9/9:_"} {
		f.Add(s)
	}
	name := regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := isContainerName(s), name.MatchString(s); got != want {
			t.Errorf("isContainerName(%q) = %v", s, got)
		}
		if _, err := reference.ParseAnyReference(s); err != nil && isPlainReference(s) {
			t.Errorf("isPlainReference(%q), but %v", s, err)
		}
	})
}
