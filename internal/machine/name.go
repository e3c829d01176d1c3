package machine

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// maxName is what a DNS name may have; each part of it between dots is a label of at most maxLabel.
const (
	maxName  = 253
	maxLabel = 63
)

// A name is the machine's host name, a folder of the store and a word in shells: letters, digits, dots and hyphens do in all three.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9.-]*$`)

// NameError says that a name cannot be a machine's.
type NameError struct{ Name, Why string }

func (e *NameError) Error() string {
	return fmt.Sprintf("Error creating machine: Invalid hostname specified. %s (got %q)", e.Why, shorten(e.Name))
}

// shorten keeps what somebody typed by mistake from filling a screen.
func shorten(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// CheckName tells whether a new machine may be called so.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return &NameError{name, "Allowed hostname chars are: 0-9a-zA-Z . -"}
	}
	if len(name) > maxName {
		return &NameError{name, fmt.Sprintf("It has %d characters, allowed are %d", len(name), maxName)}
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > maxLabel {
			return &NameError{name, fmt.Sprintf("A part of it has %d characters, allowed are %d between two dots", len(label), maxLabel)}
		}
	}
	return nil
}

// inStore tells whether name can be the folder of a machine that is there already. Another program's rule for names may be wider
// than ours, but no name leads out of the machines' folder.
func inStore(name string) bool {
	return filepath.IsLocal(name) && !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, `/\`) && !strings.ContainsRune(name, 0)
}
