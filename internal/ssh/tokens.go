package ssh

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// expand writes out ~, %-tokens and ${variables} of one value.
func (l lookup) expand(keyword, value string) (string, error) {
	expanded, err := l.tokens(value)
	if err == nil {
		expanded, err = variables(expanded)
	}
	if err != nil {
		return "", fmt.Errorf("ssh configuration of %s: %s %s: %w", l.alias, keyword, value, err)
	}
	return l.tilde(expanded), nil
}

func (l lookup) tilde(path string) string {
	if rest, found := strings.CutPrefix(path, "~/"); found && l.settings.home != "" {
		return filepath.Join(l.settings.home, rest)
	}
	return path
}

func (l lookup) tokens(value string) (string, error) {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(value, "%")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		if after == "" {
			return "", fmt.Errorf("it ends in %%")
		}
		s, err := l.token(after[0])
		if err != nil {
			return "", err
		}
		out.WriteString(s)
		value = after[1:]
	}
}

// token knows what is known once HostName, Port and User are; in HostName itself only %h and %% make sense.
func (l lookup) token(t byte) (string, error) {
	switch s := l.settings; t {
	case '%':
		return "%", nil
	case 'h':
		return s.host, nil
	case 'n', 'k':
		return s.alias, nil
	case 'p':
		return strconv.Itoa(s.port), nil
	case 'r':
		return s.user, nil
	case 'd':
		return s.home, nil
	case 'u':
		me, err := user.Current()
		if err != nil {
			return "", fmt.Errorf("%%u: %w", err)
		}
		return me.Username, nil
	case 'l', 'L':
		name, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("%%%c: %w", t, err)
		}
		if t == 'L' {
			name, _, _ = strings.Cut(name, ".")
		}
		return name, nil
	}
	return "", fmt.Errorf("%%%c is not known here", t)
}

func variables(value string) (string, error) {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(value, "${")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, rest, closed := strings.Cut(after, "}")
		v, set := os.LookupEnv(name)
		if !closed || !set {
			return "", fmt.Errorf("the variable ${%s} is not set", name)
		}
		out.WriteString(v)
		value = rest
	}
}
