package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	dropInDir = "/etc/systemd/system/docker.service.d/"
	// dropIn comes after all others in the order of names, so that what it says of the command counts.
	dropIn = dropInDir + "zz-berth.conf"
	// oldDropIn is docker-machine's. It says in flags what berth says in daemon.json; an engine does not take both.
	oldDropIn = dropInDir + "10-machine.conf"
)

// systemd runs the engine as docker.service.
type systemd struct{}

func (systemd) name() string { return "systemd" }

func (systemd) knowsEngine(ctx context.Context, h *host) (bool, error) {
	return h.test(ctx, "systemctl cat docker.service >/dev/null 2>&1")
}

func (systemd) command(ctx context.Context, h *host) ([]string, error) {
	// What changed on disk since systemd read it is not shown, and would come into force with our own change.
	said, err := h.sh(ctx, `[ "$(systemctl show --property NeedDaemonReload --value docker.service)" != yes ] || systemctl daemon-reload
systemctl cat docker.service`, nil)
	if err != nil {
		return nil, err
	}
	command := execStart(said)
	if len(command) == 0 {
		return nil, errors.New("docker.service says of no program that it starts (ExecStart=)")
	}
	return command, nil
}

// execStart reads the command out of what `systemctl cat` prints: the unit and its drop-ins, each below a comment with its path.
func execStart(units string) []string {
	var command []string
	ours, section := false, ""
	for _, line := range logicalLines(units) {
		switch {
		case strings.HasPrefix(line, "# /"):
			path := strings.TrimSpace(line[2:])
			ours, section = path == dropIn || path == oldDropIn, ""
		case ours, line == "", line[0] == '#', line[0] == ';':
		case line[0] == '[':
			section = line
		default:
			key, value, _ := strings.Cut(line, "=")
			if section == "[Service]" && strings.TrimSpace(key) == "ExecStart" {
				command = splitWords(value) // none resets, as systemd has it
			}
		}
	}
	return command
}

// logicalLines joins lines that end in a backslash with those that follow.
func logicalLines(text string) []string {
	var lines []string
	open := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if open && (strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")) {
			continue // a comment in between
		}
		part, more := strings.CutSuffix(line, `\`)
		if open {
			lines[len(lines)-1] += " " + part
		} else {
			lines = append(lines, part)
		}
		open = more
	}
	return lines
}

// splitWords splits at blanks outside quotes, and leaves the quotes where they are.
func splitWords(s string) []string {
	var words []string
	var word strings.Builder
	var open rune
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case r == open:
			open = 0
		case open == 0 && (r == '"' || r == '\''):
			open = r
		case open == 0 && (r == ' ' || r == '\t'):
			if word.Len() > 0 {
				words = append(words, word.String())
				word.Reset()
			}
			continue
		}
		word.WriteRune(r)
	}
	if word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}

func (systemd) setCommand(ctx context.Context, h *host, command, flags, env []string) (bool, error) {
	var b strings.Builder
	b.WriteString("# Written by berth; provisioning the machine again rewrites it.\n[Service]\n")
	if command != nil || len(flags) > 0 {
		words := slices.Clone(command)
		for _, f := range flags {
			words = append(words, unitQuote(f))
		}
		fmt.Fprintf(&b, "ExecStart=\nExecStart=%s\n", strings.Join(words, " "))
	}
	for _, kv := range env {
		fmt.Fprintf(&b, "Environment=%s\n", unitEnv(kv))
	}
	gone, err := h.dropFile(ctx, oldDropIn)
	if err != nil {
		return false, err
	}
	if command == nil && len(flags)+len(env) == 0 {
		removed, err := h.dropFile(ctx, dropIn)
		return gone || removed, err
	}
	written, err := h.replaceFile(ctx, dropIn, "644", []byte(b.String()))
	return gone || written, err
}

const (
	unitDir = "/etc/systemd/system/"
	// envDir holds environments, for root alone. A unit's own can be read by everybody.
	envDir = "/etc/berth/"
)

func (systemd) putService(ctx context.Context, h *host, s Service, revision string) error {
	env := envDir + s.Name + ".env"
	if _, err := h.putFile(ctx, env, "600", []byte(envFile(serviceEnv(s, revision)))); err != nil {
		return err
	}
	changed, err := h.putFile(ctx, unitDir+s.Name+".service", "644", []byte(unit(s, h.programPath(), env)))
	if err != nil || !changed {
		return err
	}
	_, err = h.sh(ctx, "run systemctl daemon-reload", nil)
	return err
}

// unit is a service that comes back whatever it ends of, at every boot, and changes nothing of the system but its own state.
func unit(s Service, program, env string) string {
	words := []string{program}
	for _, arg := range s.Args {
		words = append(words, unitQuote(arg))
	}
	return fmt.Sprintf(`# Written by berth; provisioning the machine again rewrites it.
[Unit]
Description=%s
Wants=network-online.target
After=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
ExecStart=%s
EnvironmentFile=%s
Restart=always
RestartSec=2
StateDirectory=%s
StateDirectoryMode=0700
LimitNOFILE=1048576
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
`, s.Description, strings.Join(words, " "), env, strings.TrimPrefix(stateDir, "/var/lib/"))
}

func (systemd) startService(ctx context.Context, h *host, s Service, again bool) error {
	script := fmt.Sprintf("unit=%s.service again=%t\n", s.Name, again) + `
[ "$(systemctl show --property NeedDaemonReload --value "$unit")" != yes ] || run systemctl daemon-reload
systemctl is-enabled --quiet "$unit" 2>/dev/null || run systemctl enable "$unit"
if $again; then run systemctl restart "$unit"; fi`
	_, err := h.sh(ctx, script, nil)
	return err
}

func (systemd) serviceLogs(s Service) string {
	return fmt.Sprintf("logs() { echo '$ systemctl restart %[1]s.service'; journalctl --unit %[1]s.service --lines 10 --no-pager --output cat 2>/dev/null; }\n", s.Name)
}

func (systemd) running(ctx context.Context, h *host) (bool, error) {
	return h.test(ctx, "systemctl is-active --quiet docker.service")
}

func (systemd) start(ctx context.Context, h *host, again bool) (bool, error) {
	script := "again=" + quote(fmt.Sprint(again)) + `
systemctl is-enabled --quiet docker.service 2>/dev/null || run systemctl enable docker.service
verb=start # which joins a start that is under way
if $again; then verb=restart; run systemctl daemon-reload
elif systemctl is-active --quiet docker.service; then echo running; exit 0
fi
systemctl reset-failed docker.service docker.socket 2>/dev/null || :
run timeout 300 systemctl $verb docker.service || {
  failed=$?
  journalctl --unit docker.service --lines 10 --no-pager --output cat 2>/dev/null
  exit $failed
}
echo started`
	said, err := h.sh(ctx, script, nil)
	return lastLine(said) == "started", err
}
