package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"
)

const defaultTimeout = 30 * time.Second

// settings is all that must be known to connect to one host: Config where it speaks, then the ssh configuration, then
// the defaults.
type settings struct {
	cfg   Config
	alias string // as the user calls it
	host  string // as it is dialled
	port  int
	user  string
	home  string

	keyFiles       []keyFile
	agentFirst     bool // the key files are only the usual ones, nobody chose them
	identitiesOnly bool
	agent          string // "" for none
	jumps          []string
	hostKeys       hostKeyFiles
	timeout        time.Duration
}

type keyFile struct {
	path     string
	required bool
}

func (s *settings) addr() string   { return hostPort(s.host, s.port) }
func (s *settings) String() string { return s.user + "@" + s.addr() }

// resolve reads the ssh configuration for one host.
func resolve(cfg Config) (*settings, error) {
	if err := checkHost(cfg.Host); err != nil {
		return nil, err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // a daemon may have none; then nothing can be relative to it
	}
	files, err := readConfig(cfg, home)
	if err != nil {
		return nil, err
	}
	s := &settings{cfg: cfg, alias: cfg.Host, home: home}
	from := lookup{files: files, alias: cfg.Host, settings: s}
	for _, step := range []func(lookup) error{s.setAddress, s.setKeys, s.setJumps, s.setHostKeys, s.setTimeout} {
		if err := step(from); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *settings) setAddress(from lookup) error {
	s.host, s.port, s.user = s.alias, 22, s.cfg.User
	name, err := from.path("HostName")
	if err != nil {
		return err
	}
	if name != "" {
		s.host = name
	}
	if err := checkHost(s.host); err != nil {
		return err
	}
	if port := from.first("Port"); s.cfg.Port != 0 {
		s.port = s.cfg.Port
	} else if port != "" {
		if s.port, err = parsePort(port); err != nil {
			return err
		}
	}
	if s.user == "" {
		s.user = from.first("User")
	}
	if s.user == "" {
		me, err := user.Current()
		if err != nil {
			return fmt.Errorf("no user is named, and who is calling is unknown: %w", err)
		}
		s.user = me.Username
	}
	return checkUser(s.user)
}

func (s *settings) setKeys(from lookup) error {
	for _, path := range s.cfg.KeyFiles {
		s.keyFiles = append(s.keyFiles, keyFile{from.tilde(path), true})
	}
	identities, err := from.paths("IdentityFile")
	if err != nil {
		return err
	}
	for _, path := range identities {
		s.keyFiles = append(s.keyFiles, keyFile{path: path})
	}
	if len(s.keyFiles) == 0 && s.home != "" && s.cfg.SSHConfigFile != none {
		s.agentFirst = true
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			s.keyFiles = append(s.keyFiles, keyFile{path: filepath.Join(s.home, ".ssh", name)})
		}
	}
	s.identitiesOnly = s.cfg.IdentitiesOnly || strings.EqualFold(from.first("IdentitiesOnly"), "yes")
	return s.setAgent(from)
}

func (s *settings) setAgent(from lookup) error {
	s.agent = s.cfg.Agent
	if s.agent == "" {
		var err error
		if s.agent, err = from.path("IdentityAgent"); err != nil {
			return err
		}
	}
	switch name, isVar := strings.CutPrefix(s.agent, "$"); {
	case s.agent == none:
		s.agent = ""
	case s.agent == "" || s.agent == "SSH_AUTH_SOCK":
		s.agent = os.Getenv("SSH_AUTH_SOCK")
	case isVar:
		s.agent = os.Getenv(name)
	}
	return nil
}

func (s *settings) setJumps(from lookup) error {
	jump := from.first("ProxyJump")
	if jump == "" {
		if command := from.first("ProxyCommand"); command != "" && command != none {
			return fmt.Errorf("the ssh configuration of %s has a ProxyCommand, which is not run here: use ProxyJump", s.alias)
		}
	}
	if jump == "" || strings.EqualFold(jump, none) {
		return nil
	}
	jump, err := from.expand("ProxyJump", jump)
	if err != nil {
		return err
	}
	for hop := range strings.SplitSeq(jump, ",") {
		s.jumps = append(s.jumps, strings.TrimSpace(hop))
	}
	return nil
}

func (s *settings) setHostKeys(from lookup) (err error) {
	if s.cfg.SSHConfigFile != none {
		if s.hostKeys.user, err = from.list("UserKnownHostsFile"); err != nil {
			return err
		}
		if s.hostKeys.user == nil && s.home != "" {
			s.hostKeys.user = []string{filepath.Join(s.home, ".ssh", "known_hosts")}
		}
		if s.hostKeys.global, err = from.list("GlobalKnownHostsFile"); err != nil {
			return err
		}
		if s.hostKeys.global == nil {
			s.hostKeys.global = []string{"/etc/ssh/ssh_known_hosts"}
		}
	}
	s.hostKeys.own = from.tilde(s.cfg.KnownHostsFile)
	if s.hostKeys.own == "" && len(s.hostKeys.user) > 0 {
		s.hostKeys.own = s.hostKeys.user[0]
	}
	if s.hostKeys.own == "" {
		return errors.New("no known_hosts file is named that the host key could be checked against")
	}
	switch strict := strings.ToLower(from.first("StrictHostKeyChecking")); strict {
	case "yes", "true":
		s.hostKeys.unknown = refuse
	case "no", "off", "false":
		s.hostKeys.changed = accept
	case "", "accept-new", "ask": // nobody is there to be asked
	default:
		return fmt.Errorf("StrictHostKeyChecking %q is none of yes, accept-new, no", strict)
	}
	return nil
}

func (s *settings) setTimeout(from lookup) error {
	s.timeout = s.cfg.Timeout
	if v := from.first("ConnectTimeout"); s.timeout == 0 && v != "" && v != none {
		seconds, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return fmt.Errorf("ConnectTimeout %q is not a number of seconds", v)
		}
		s.timeout = time.Duration(seconds) * time.Second
	}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	return nil
}

const none = "none"

// lookup finds the values for one host. The first file that has one wins.
type lookup struct {
	files    []*ssh_config.Config
	alias    string
	settings *settings // for what the tokens stand for
}

// readConfig reads the user's and the system's configuration, or the one that Config names.
func readConfig(cfg Config, home string) ([]*ssh_config.Config, error) {
	if cfg.SSHConfigFile == none {
		return nil, nil
	}
	if cfg.SSHConfigFile != "" {
		f, err := readConfigFile(cfg, cfg.SSHConfigFile)
		if err != nil {
			return nil, err
		}
		return []*ssh_config.Config{f}, nil
	}
	var files []*ssh_config.Config
	if home != "" {
		f, err := readConfigFile(cfg, filepath.Join(home, ".ssh", "config"))
		if err == nil {
			files = append(files, f)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	f, err := readConfigFile(cfg, "/etc/ssh/ssh_config")
	if err == nil {
		files = append(files, f)
	} else if !errors.Is(err, os.ErrNotExist) {
		// Distributions use criteria there that cannot be judged here, for options that do not matter here.
		cfg.Log(err.Error() + "; it is left out")
	}
	return files, nil
}

func readConfigFile(cfg Config, path string) (*ssh_config.Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ssh configuration: %w", err)
	}
	f, err := ssh_config.DecodeBytes(withoutStrangeMatches(content, func(line string) {
		cfg.Log(fmt.Sprintf("%s: %q cannot be judged here; its block is left out", path, line))
	}))
	if err != nil {
		return nil, fmt.Errorf("ssh configuration %s: %w", path, err)
	}
	return f, nil
}

// withoutStrangeMatches turns Match lines that the parser refuses into a Host that never is, so that one of them does not
// cost the user the whole file. It also turns tabs into blanks, between which the parser makes a difference.
func withoutStrangeMatches(content []byte, skipped func(line string)) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(strings.ReplaceAll(string(content), "\t", " ")) {
		words := strings.Fields(strings.Replace(line, "=", " ", 1))
		if len(words) > 0 && strings.EqualFold(words[0], "match") && !plainMatch(words[1:]) {
			skipped(strings.TrimSpace(line))
			line = "Host !*\n"
		}
		out.WriteString(line)
	}
	return out.Bytes()
}

// plainMatch is true for `Match all` and `Match host PATTERN`.
func plainMatch(criteria []string) bool {
	switch {
	case len(criteria) == 1:
		return strings.EqualFold(criteria[0], "all")
	case len(criteria) == 2:
		return strings.EqualFold(criteria[0], "host") && !strings.Contains(criteria[1], ",")
	}
	return false
}

// all returns the values of a keyword that may be given several times.
func (l lookup) all(keyword string) (values []string) {
	for _, f := range l.files {
		found, err := f.GetAll(l.alias, keyword)
		if err != nil {
			l.settings.cfg.Log(fmt.Sprintf("ssh configuration of %s: %s: %v", l.alias, keyword, err))
		}
		for _, v := range found {
			if v = unquote(v); v != "" {
				values = append(values, v)
			}
		}
	}
	return values
}

func (l lookup) first(keyword string) string {
	if all := l.all(keyword); len(all) > 0 {
		return all[0]
	}
	return ""
}

// path, paths and list expand tokens and ~. A list is several paths in one value; with "none" it is empty but not nil.
func (l lookup) path(keyword string) (string, error) { return l.expand(keyword, l.first(keyword)) }

func (l lookup) paths(keyword string) (paths []string, err error) {
	for _, v := range l.all(keyword) {
		p, err := l.expand(keyword, v)
		if err != nil {
			return nil, err
		}
		if p != none {
			paths = append(paths, p)
		}
	}
	return paths, nil
}

func (l lookup) list(keyword string) ([]string, error) {
	words := strings.Fields(l.first(keyword))
	if len(words) == 0 {
		return nil, nil
	}
	paths := []string{}
	for _, w := range words {
		p, err := l.expand(keyword, unquote(w))
		if err != nil {
			return nil, err
		}
		if p != none {
			paths = append(paths, p)
		}
	}
	return paths, nil
}

func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}
