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
