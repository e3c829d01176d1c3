package provision

import (
	"regexp"
	"strings"
	"unicode"
)

// What words from users may be. They are quoted wherever they go; these rules are for early and clear errors.
var (
	envRule        = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
	flagRule       = regexp.MustCompile(`^[a-z][a-z0-9-]*(=|$)`)
	versionRule    = regexp.MustCompile(`^[0-9][0-9A-Za-z.+~-]*$`)
	installURLRule = regexp.MustCompile(`^($|none$|distro$|https?://[^/])`)
	hostnameRule   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)
)

func printable(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) }

// quote makes one word of s for a POSIX shell.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// special is true for all that a shell, or systemd, might see more in than itself.
func special(r rune) bool {
	plain := r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r))
	return !plain && !strings.ContainsRune("-_./:=,+@", r)
}

// unitQuote makes one word of s for a command line in a systemd unit.
func unitQuote(s string) string {
	s = strings.NewReplacer(`%`, `%%`, `$`, `$$`).Replace(s)
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return special(r) && r != '%' && r != '$' }) {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// unitEnv makes one assignment for Environment= in a systemd unit, where $ means nothing.
func unitEnv(s string) string {
	return `"` + strings.NewReplacer(`%`, `%%`, `\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
