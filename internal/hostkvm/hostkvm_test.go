package hostkvm

import (
	"strings"
	"testing"
)

func TestVirtualizes(t *testing.T) {
	for text, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu vmx sse\n":             true,
		"processor\t: 0\nflags\t\t: fpu svm\n":                 true,
		"processor\t: 0\nflags\t\t: fpu vmxoff svm_lock sse\n": false,
		"processor\t: 0\nvmx flags\t: vnmi\nflags\t: fpu\n":    false,
		"processor\t: 0\nFeatures\t: fp asimd\n":               true, // another kind of CPU: the hypervisor will find out
	} {
		if got := virtualizes(strings.NewReader(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
