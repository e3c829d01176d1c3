package ssh

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"
)

// DefaultSocket is where a Docker Engine listens when an ssh:// address has no path.
const DefaultSocket = "/var/run/docker.sock"

// Target is what an ssh:// address says. User and Port may be missing ("" and 0): the ssh configuration then decides.
type Target struct {
	User string
	Host string // without brackets
	Port int
	Path string // of a unix socket; never empty
}

// ParseTarget reads ssh://[user@]host[:port][/path/of.sock].
func ParseTarget(address string) (Target, error) {
	t, err := parseTarget(address)
	if err != nil {
		return Target{}, fmt.Errorf("address %q: %w", withoutPassword(address), err)
	}
	return t, nil
}

func parseTarget(address string) (Target, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Scheme != "ssh", u.Opaque != "", u.RawQuery != "", u.Fragment != "":
		return Target{}, errors.New("it is not of the form ssh://user@host:port/path")
	case u.Path == "" || u.Path == "/":
		u.Path = DefaultSocket
	case path.Clean(u.Path) != u.Path, strings.ContainsFunc(u.Path, unicode.IsControl):
		return Target{}, fmt.Errorf("%q is not a plain path", u.Path)
	}
	if _, has := u.User.Password(); has {
		return Target{}, errors.New("it holds a password, which others could see; use a key")
	}
	t := Target{User: u.User.Username(), Host: u.Hostname(), Path: u.Path}
	if err := checkUser(t.User); err != nil {
		return Target{}, err
	}
	if err := checkHost(t.Host); err != nil {
		return Target{}, err
	}
	if p := u.Port(); p != "" {
		if t.Port, err = parsePort(p); err != nil {
			return Target{}, err
		}
	}
	return t, nil
}

// String is the address in its shortest form.
func (t Target) String() string {
	u := url.URL{Scheme: "ssh", Host: t.Host, Path: t.Path}
	if strings.Contains(t.Host, ":") {
		u.Host = "[" + t.Host + "]"
	}
	if t.Port != 0 {
		u.Host += ":" + strconv.Itoa(t.Port)
	}
	if t.User != "" {
		u.User = url.User(t.User)
	}
	if t.Path == DefaultSocket {
		u.Path = ""
	}
	return u.String()
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
	}
	return int(n), nil
}

// checkUser and checkHost keep out what could become an option or a shell word in some program.
func checkUser(user string) error {
	if strings.HasPrefix(user, "-") || !made(user, `._-+@\`) {
		return fmt.Errorf("%q is not a user name", user)
	}
	return nil
}

func checkHost(host string) error {
	if host == "" {
		return errors.New("the host is missing")
	}
	if ip, err := netip.ParseAddr(host); err == nil && made(ip.Zone(), "._-") {
		return nil
	}
	if strings.HasPrefix(host, "-") || !made(host, "._-") {
		return fmt.Errorf("%q is neither a host name nor an IP address", host)
	}
	return nil
}

// made is true if s is made of letters, digits and the given others.
func made(s, others string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(others, r)
	})
}

func withoutPassword(address string) string {
	scheme, rest, found := strings.Cut(address, "://")
	at := strings.LastIndexByte(rest, '@')
	if !found || at < 0 {
		return address
	}
	user, _, has := strings.Cut(rest[:at], ":")
	if !has {
		return address
	}
	return scheme + "://" + user + ":***" + rest[at:]
}

func trimScheme(s string) string { return strings.TrimPrefix(s, "ssh://") }

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
