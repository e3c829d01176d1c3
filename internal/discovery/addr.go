package discovery

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

// addrSet collects addresses in the order they were named, each once.
type addrSet struct {
	addrs []string
	seen  map[string]bool
}

// add takes all addresses of one entry, or none of them and says why.
func (s *addrSet) add(entry string) error {
	expanded, err := expand(entry, maxAddrs-len(s.addrs))
	if err != nil {
		return err
	}
	for _, a := range expanded {
		if err := checkAddr(a); err != nil {
			return err
		}
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	for _, a := range expanded {
		if !s.seen[a] {
			s.seen[a] = true
			s.addrs = append(s.addrs, a)
		}
	}
	return nil
}

func isEngineScheme(scheme string) bool {
	return scheme == "tcp" || scheme == "unix" || scheme == "ssh"
}

// checkAddr says what is wrong with an address. It looks at the form only.
func checkAddr(addr string) error {
	if i := strings.IndexFunc(addr, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }); i >= 0 {
		return fmt.Errorf("address %q: it holds a blank or a control character", shorten(addr))
	}
	scheme, rest, found := strings.Cut(addr, "://")
	if !found {
		scheme, rest = "tcp", addr
	}
	var err error
	switch scheme {
	case "tcp":
		err = checkHostPort(rest)
	case "unix":
		if !path.IsAbs(rest) || path.Clean(rest) == "/" {
			err = errors.New("a socket's absolute path is needed: unix:///run/docker.sock")
		}
	case "ssh":
		err = checkSSH(addr)
	default:
		err = fmt.Errorf("an engine is not reached by %s:// but by tcp://, unix:// or ssh://", scheme)
	}
	if err != nil {
		return fmt.Errorf("address %q: %w", shorten(withoutPassword(addr)), err)
	}
	return nil
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		bare := strings.Trim(s, "[]")
		if checkHost(bare) == nil {
			bare = net.JoinHostPort(bare, "2376")
			return fmt.Errorf("the port is missing: write %s (2376 with TLS, 2375 without)", bare)
		}
		return errors.New("it is not of the form host:port")
	}
	if err := checkHost(host); err != nil {
		return err
	}
	return checkPort(port)
}

func checkPort(port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return nil
}

func checkHost(host string) error {
	if host == "" {
		return errors.New("the host is missing")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	for _, r := range host {
		if r != '.' && r != '-' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)) {
			return fmt.Errorf("%q is neither a host name nor an IP address", host)
		}
	}
	if host[0] == '-' { // would be an option to some program sooner or later
		return fmt.Errorf("%q is not a host name", host)
	}
	return nil
}

func checkSSH(addr string) error {
	u, err := url.Parse(addr)
	if err != nil {
		return errors.New("it is not of the form ssh://user@host[:port][/path]")
	}
	if _, has := u.User.Password(); has {
		return errors.New("it holds a password; use a key")
	}
	if strings.HasPrefix(u.User.Username(), "-") {
		return errors.New("the user's name begins with a dash")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return errors.New("it is not of the form ssh://user@host[:port][/path]")
	}
	if err := checkHost(u.Hostname()); err != nil {
		return err
	}
	if u.Port() == "" {
		return nil // ssh has a default of its own, which ~/.ssh/config may change
	}
	return checkPort(u.Port())
}

// withoutPassword hides what stands between user: and @, because addresses end up in errors and logs.
func withoutPassword(addr string) string {
	scheme, rest, found := strings.Cut(addr, "://")
	at := strings.LastIndexByte(rest, '@')
	if !found || at < 0 {
		return addr
	}
	user, _, has := strings.Cut(rest[:at], ":")
	if !has {
		return addr
	}
	return scheme + "://" + user + ":***" + rest[at:]
}

// shorten keeps an error readable when somebody passes a megabyte.
func shorten(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
