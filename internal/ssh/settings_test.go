package ssh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// settle resolves a host against a configuration in a home of its own.
func settle(t *testing.T, config string, cfg Config) (*settings, string, []string, error) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "/run/agent")
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var said []string
	cfg.Log = func(line string) { said = append(said, line) }
	s, err := resolve(cfg)
	return s, home, said, err
}

const exampleConfig = `
Host web
	HostName web-%h.example.com
	Port 2200
	User deploy
	IdentityFile ~/.ssh/web_key
	IdentityFile %d/keys/%r@%h:%p-%n
	IdentityAgent "~/agent.sock"
	ProxyJump ops@bastion:2222,inner
	UserKnownHostsFile ~/known1 /etc/known2
	ConnectTimeout 7
	IdentitiesOnly yes
Host web db*
	User nobody
	Port 1
	IdentityFile ~/.ssh/second
Host *	!secret
	User everybody
`

func TestSettings(t *testing.T) {
	s, home, _, err := settle(t, exampleConfig, Config{Host: "web", KeyFiles: []string{"~/mine"}})
	if err != nil {
		t.Fatal(err)
	}
	wantKeys := []keyFile{
		{home + "/mine", true},
		{home + "/.ssh/web_key", false},
		{home + "/keys/deploy@web-web.example.com:2200-web", false},
		{home + "/.ssh/second", false},
	}
	if diff := cmp.Diff(wantKeys, s.keyFiles, cmp.AllowUnexported(keyFile{})); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if s.String() != "deploy@web-web.example.com:2200" || s.agent != home+"/agent.sock" || s.timeout != 7*time.Second || !s.identitiesOnly {
		t.Errorf("got %s, agent %s, timeout %v, only %v", s, s.agent, s.timeout, s.identitiesOnly)
	}
	if diff := cmp.Diff([]string{"ops@bastion:2222", "inner"}, s.jumps); diff != "" {
		t.Errorf("jumps (-want +got):\n%s", diff)
	}
	if s.hostKeys.own != home+"/known1" {
		t.Errorf("new hosts go to %s", s.hostKeys.own)
	}
	if diff := cmp.Diff([]string{home + "/known1", "/etc/known2"}, s.hostKeys.user); diff != "" {
		t.Errorf("known hosts (-want +got):\n%s", diff)
	}
}

func TestConfigWinsOverTheFile(t *testing.T) {
	s, _, _, err := settle(t, exampleConfig, Config{
		Host: "web", Port: 22, User: "me", Agent: "/a", Timeout: time.Second, KnownHostsFile: "/k",
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.String() != "me@web-web.example.com:22" || s.agent != "/a" || s.timeout != time.Second || s.hostKeys.own != "/k" {
		t.Errorf("got %s, agent %s, timeout %v, known hosts %s", s, s.agent, s.timeout, s.hostKeys.own)
	}
}

func TestSettingsDefaults(t *testing.T) {
	s, home, _, err := settle(t, exampleConfig, Config{Host: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if s.String() != "everybody@other:22" || s.agent != "/run/agent" || s.timeout != defaultTimeout || s.identitiesOnly || s.jumps != nil {
		t.Errorf("got %s, agent %s, timeout %v, only %v, jumps %q", s, s.agent, s.timeout, s.identitiesOnly, s.jumps)
	}
	if s.hostKeys.own != home+"/.ssh/known_hosts" || !s.agentFirst || len(s.keyFiles) != 3 {
		t.Errorf("known hosts %s, agent first %v, keys %v", s.hostKeys.own, s.agentFirst, s.keyFiles)
	}
	if s, _, _, err = settle(t, exampleConfig, Config{Host: "secret"}); err != nil || s.user == "everybody" {
		t.Errorf("a negated pattern matched: %s, %v", s, err)
	}
	// "none" leaves nothing but Config.
	s, _, _, err = settle(t, exampleConfig, Config{Host: "web", User: "u", SSHConfigFile: "none", KnownHostsFile: "/k"})
	if err != nil {
		t.Fatal(err)
	}
	if s.String() != "u@web:22" || len(s.keyFiles) != 0 || s.hostKeys.user != nil || s.hostKeys.global != nil || s.jumps != nil {
		t.Errorf("got %+v", s)
	}
}

func TestSettingsValues(t *testing.T) {
	t.Setenv("KEYS", "/keys")
	for name, tt := range map[string]struct {
		config string
		check  func(*settings) bool
	}{
		"no agent":                  {"IdentityAgent none", func(s *settings) bool { return s.agent == "" }},
		"the usual agent":           {"IdentityAgent SSH_AUTH_SOCK", func(s *settings) bool { return s.agent == "/run/agent" }},
		"an agent by variable":      {"IdentityAgent $KEYS", func(s *settings) bool { return s.agent == "/keys" }},
		"a key by variable":         {"IdentityFile ${KEYS}/a", func(s *settings) bool { return s.keyFiles[0].path == "/keys/a" }},
		"a percent sign":            {"IdentityFile /100%%", func(s *settings) bool { return s.keyFiles[0].path == "/100%" }},
		"jump none":                 {"ProxyJump none", func(s *settings) bool { return s.jumps == nil }},
		"jump wins over command":    {"ProxyJump a\nProxyCommand b", func(s *settings) bool { return s.jumps[0] == "a" }},
		"a jump with tokens":        {"ProxyJump gate-%h:%p", func(s *settings) bool { return s.jumps[0] == "gate-h:22" }},
		"no command":                {"ProxyCommand none", func(s *settings) bool { return s.jumps == nil }},
		"equals signs":              {"Port=2222", func(s *settings) bool { return s.port == 2222 }},
		"any case":                  {"hOSTNAME x", func(s *settings) bool { return s.host == "x" }},
		"no known hosts but global": {"UserKnownHostsFile ~/a none", func(s *settings) bool { return len(s.hostKeys.user) == 1 }},
		"match all":                 {"Match all\nPort 2222", func(s *settings) bool { return s.port == 2222 }},
		"match host":                {"Match host x\nPort 3\nMatch host h\nPort 2222", func(s *settings) bool { return s.port == 2222 }},
		"match that is left out":    {"Match exec \"true\"\nPort 3\nMatch final all\nPort 4\nHost h\nPort 2222", func(s *settings) bool { return s.port == 2222 }},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, said, err := settle(t, tt.config, Config{Host: "h"})
			if err != nil {
				t.Fatal(err)
			}
			if !tt.check(s) {
				t.Errorf("%s gave %+v (%q)", tt.config, s, said)
			}
		})
	}
}

func TestSettingsRefuses(t *testing.T) {
	for config, want := range map[string]string{
		"Port x":                    "port \"x\"",
		"IdentityFile ${NO_SUCH}/x": "${NO_SUCH} is not set",
		"IdentityFile %Z":           "%Z is not known here",
		"IdentityFile a%":           "ends in %",
		"ProxyCommand nc %h %p":     "use ProxyJump",
		"ConnectTimeout soon":       "ConnectTimeout",
		"HostName -oX":              "neither a host name",
		"User -x":                   "not a user name",
		"UserKnownHostsFile none":   "no known_hosts file",
		"Include /etc":              "ssh configuration",
	} {
		_, _, _, err := settle(t, config, Config{Host: "h"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", config, err, want)
		}
	}
	if _, _, _, err := settle(t, "", Config{Host: "h", SSHConfigFile: "/no/such"}); err == nil {
		t.Error("a configuration that was named and is not there: no error")
	}
	if _, _, _, err := settle(t, "", Config{Host: "-h"}); err == nil {
		t.Error("a host that looks like an option: no error")
	}
}

// The user's own Match block that cannot be judged is left out, and that is said.
func TestStrangeMatchIsSaid(t *testing.T) {
	_, _, said, err := settle(t, "Match user x\nPort 3\n", Config{Host: "h"})
	if err != nil || !strings.Contains(strings.Join(said, "\n"), `"Match user x" cannot be judged here`) {
		t.Errorf("said %q, %v", said, err)
	}
}

func FuzzConfigFile(f *testing.F) {
	for _, s := range []string{exampleConfig, "Host", "Match", "Match exec x", "Port=1", "IdentityFile \"a", "\x00", "Include x", "Host \"a b\""} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Setenv("HOME", dir)
	f.Fuzz(func(t *testing.T, content string) {
		if strings.Contains(strings.ToLower(content), "include") {
			t.Skip("would read other files")
		}
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := resolve(Config{Host: "web", SSHConfigFile: path, Log: func(string) {}})
		if err == nil && (checkHost(s.host) != nil || checkUser(s.user) != nil || s.port < 1 || s.port > 65535) {
			t.Errorf("%q gave %s", content, s)
		}
	})
}
