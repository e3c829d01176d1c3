package provision

import (
	"context"
	"fmt"
	"strings"
)

const (
	openrcConf = "/etc/conf.d/docker"
	blockBegin = "# berth: begin. Provisioning the machine again rewrites what is in here."
	blockEnd   = "# berth: end"
)

// openrc runs the engine as the service docker; its settings are a piece of shell.
type openrc struct{}

func (openrc) name() string { return "openrc" }

func (openrc) knowsEngine(ctx context.Context, h *host) (bool, error) {
	return h.test(ctx, "[ -x /etc/init.d/docker ]")
}

// command is empty: options are added to DOCKER_OPTS, which the service adds to its own command.
func (openrc) command(context.Context, *host) ([]string, error) { return nil, nil }

func (openrc) setCommand(ctx context.Context, h *host, _, flags, env []string) (bool, error) {
	before, err := h.readFile(ctx, openrcConf)
	if err != nil {
		return false, err
	}
	after := withBlock(string(before), openrcBlock(flags, env))
	if after == string(before) {
		return false, nil
	}
	return h.replaceFile(ctx, openrcConf, "644", []byte(after))
}

// openrcBlock is what berth adds to the settings. OpenRC evaluates the options once more, so their quotes are quoted.
func openrcBlock(flags, env []string) string {
	var b strings.Builder
	for _, f := range flags {
		fmt.Fprintf(&b, "DOCKER_OPTS=\"$DOCKER_OPTS \"%s\n", quote(quote(f)))
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(value))
	}
	return b.String()
}

// withBlock replaces our part of a file, or adds it at the end. An empty one is taken out.
func withBlock(text, block string) string {
	var kept strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		switch strings.TrimRight(line, "\r\n") {
		case blockBegin:
			inside = true
			continue
		case blockEnd:
			inside = false
			continue
		}
		if !inside {
			kept.WriteString(line)
		}
	}
	out := kept.String()
	if block == "" {
		return out
	}
	if out != "" && !strings.HasSuffix(out, "\n") {
		out += "\n"
	}
	return out + blockBegin + "\n" + block + blockEnd + "\n"
}

func (openrc) putService(ctx context.Context, h *host, s Service, revision string) error {
	var env strings.Builder
	env.WriteString("# Written by berth; provisioning the machine again rewrites it.\n")
	for _, kv := range serviceEnv(s, revision) {
		name, value, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&env, "export %s=%s\n", name, quote(value))
	}
	if _, err := h.putFile(ctx, "/etc/conf.d/"+s.Name, "600", []byte(env.String())); err != nil {
		return err
	}
	_, err := h.putFile(ctx, "/etc/init.d/"+s.Name, "755", []byte(openrcService(s, h.programPath())))
	return err
}

// openrcService comes back whatever it ends of. OpenRC evaluates the arguments once more, so their quotes are quoted.
func openrcService(s Service, program string) string {
	var words []string
	for _, arg := range s.Args {
		words = append(words, quote(arg))
	}
	return fmt.Sprintf(`#!/sbin/openrc-run
# Written by berth; provisioning the machine again rewrites it.
description=%s
supervisor=supervise-daemon
command=%s
command_args=%s
respawn_delay=2
respawn_max=0
output_log=%[4]s
error_log=%[4]s

depend() {
	need net
	after docker
}

start_pre() {
	checkpath --directory --mode 0700 %[5]s
}
`, quote(s.Description), program, quote(strings.Join(words, " ")), openrcLog(s), stateDir)
}

func openrcLog(s Service) string { return "/var/log/" + s.Name + ".log" }

func (openrc) startService(ctx context.Context, h *host, s Service, again bool) error {
	script := fmt.Sprintf("service=%s again=%t\n", s.Name, again) + `
rc-update show default 2>/dev/null | grep -q "^ *$service " || run rc-update add "$service" default
if $again; then run rc-service "$service" restart; fi`
	_, err := h.sh(ctx, script, nil)
	return err
}

func (openrc) serviceLogs(s Service) string {
	return fmt.Sprintf("logs() { echo '$ rc-service %s restart'; tail -n 10 %s 2>/dev/null; }\n", s.Name, openrcLog(s))
}

func (openrc) running(ctx context.Context, h *host) (bool, error) {
	return h.test(ctx, "rc-service docker status >/dev/null 2>&1")
}

func (openrc) start(ctx context.Context, h *host, again bool) (bool, error) {
	script := "again=" + quote(fmt.Sprint(again)) + `
rc-update show default 2>/dev/null | grep -q '^ *docker ' || run rc-update add docker default
if ! $again && rc-service docker status >/dev/null 2>&1; then echo running; exit 0; fi
run rc-service docker restart || {
  failed=$?
  tail -n 10 /var/log/docker.log 2>/dev/null
  exit $failed
}
echo started`
	said, err := h.sh(ctx, script, nil)
	return lastLine(said) == "started", err
}
