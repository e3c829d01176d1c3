package provision

import (
	"cmp"
	"slices"
	"strings"
)

// osRelease is what /etc/os-release says.
type osRelease map[string]string

// parseOSRelease reads the format of os-release(5): assignments as a shell would read them, without its expansions. What is no
// assignment is passed over, as its other readers do.
func parseOSRelease(text string) osRelease {
	os := osRelease{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || key == "" || strings.HasPrefix(key, "#") || strings.ContainsAny(key, " \t\"'") {
			continue
		}
		os[key] = unquote(value)
	}
	return os
}

// unquote takes a shell's quotes and escapes away.
func unquote(s string) string {
	var b strings.Builder
	var open rune // the quote that we are in
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			if open == '"' && !strings.ContainsRune("\"\\$`", r) {
				b.WriteRune('\\')
			}
			b.WriteRune(r)
			escaped = false
		case r == '\\' && open != '\'':
			escaped = true
		case r == open:
			open = 0
		case open == 0 && (r == '"' || r == '\''):
			open = r
		case open == 0 && (r == ' ' || r == '\t'):
			return b.String() // the end of the word; a comment may follow
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (o osRelease) id() string { return strings.ToLower(o["ID"]) }

// pretty is the system's name for people.
func (o osRelease) pretty() string {
	return cmp.Or(o["PRETTY_NAME"], strings.TrimSpace(o["NAME"]+" "+o["VERSION_ID"]), o["ID"], "an unknown system")
}

// family is distributions that install packages in one way.
type family string

const (
	unknown family = ""
	debian  family = "debian"
	redhat  family = "redhat"
	suse    family = "suse"
	alpine  family = "alpine"
	arch    family = "arch"
	flatcar family = "flatcar" // its engine is part of the system
)

var families = map[string]family{
	"debian": debian, "ubuntu": debian, "raspbian": debian,
	"rhel": redhat, "centos": redhat, "fedora": redhat, "rocky": redhat, "almalinux": redhat, "ol": redhat, "amzn": redhat,
	"suse": suse, "opensuse": suse, "opensuse-leap": suse, "opensuse-tumbleweed": suse, "opensuse-microos": suse,
	"sles": suse, "sled": suse, "sle-micro": suse,
	"alpine": alpine,
	"arch":   arch, "archarm": arch,
	"flatcar": flatcar, "coreos": flatcar,
}

// family is the system's own, or that of what it is like.
func (o osRelease) family() family {
	for _, id := range slices.Concat([]string{o.id()}, strings.Fields(strings.ToLower(o["ID_LIKE"]))) {
		if f := families[id]; f != unknown {
			return f
		}
	}
	return unknown
}
