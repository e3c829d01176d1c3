package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// service is the host's init system, as far as an engine and what is beside it go. The engine's service is called docker everywhere.
type service interface {
	name() string
	// knowsEngine tells whether there is an engine that it could start.
	knowsEngine(ctx context.Context, h *host) (bool, error)
	// command is how it starts the engine if berth adds nothing: words, quoted as they stand in its files. Empty where it lets
	// others only add to the command.
	command(ctx context.Context, h *host) ([]string, error)
	// setCommand makes it start the engine by command, unless that is nil, with options and an environment more. It tells whether
	// that was any news.
	setCommand(ctx context.Context, h *host, command, flags, env []string) (changed bool, err error)
	// running tells whether the engine runs.
	running(ctx context.Context, h *host) (bool, error)
	// putService writes what makes it run s, with that revision in its environment.
	putService(ctx context.Context, h *host, s Service, revision string) error
	// startService has s running, now and after the next boot. One that runs is started again if it must.
	startService(ctx context.Context, h *host, s Service, again bool) error
	// serviceLogs is a function of the shell, logs, that prints the end of what s said.
	serviceLogs(s Service) string
	// start has the engine running, now and after the next boot. An engine that runs is started again if it must.
	start(ctx context.Context, h *host, again bool) (started bool, err error)
}

func services(init string) service {
	switch init {
	case "systemd":
		return systemd{}
	case "openrc":
		return openrc{}
	}
	return nil
}

// test tells whether a condition of the shell holds on the host.
func (h *host) test(ctx context.Context, condition string) (bool, error) {
	said, err := h.sh(ctx, "if "+condition+"; then echo yes; else echo no; fi", nil)
	return lastLine(said) == "yes", err
}

// startEngine starts the engine, again if it must, and waits until it answers on the host.
func (h *host) startEngine(ctx context.Context) error {
	var err error
	if h.changed {
		h.say("Restarting the engine...")
	}
	if h.restarted, err = h.init.start(ctx, h, h.changed); err != nil {
		return h.backToWork(ctx, err)
	}
	h.changed = false
	said, err := h.sh(ctx, answersScript, nil)
	if err != nil {
		return err
	}
	if v := lastLine(said); strings.HasPrefix(v, "version ") {
		h.version = strings.TrimPrefix(v, "version ")
	}
	return nil
}

// backToWork has an engine that ran before, and does not with what we gave it, run as it did.
func (h *host) backToWork(ctx context.Context, cause error) error {
	e, ok := errors.AsType[*StepError](cause)
	if !ok || !h.ran || len(h.kept) == 0 || ctx.Err() != nil {
		return cause
	}
	h.say("The engine does not start with these settings: back to those it had...")
	if err := h.takeBack(ctx); err != nil {
		return errors.Join(cause, fmt.Errorf("put back its settings: %w", err))
	}
	if _, err := h.init.start(ctx, h, true); err != nil {
		return errors.Join(cause, fmt.Errorf("start it as it was: %w", err))
	}
	e.Advice = strings.TrimSpace(e.Advice + "\nUntil then it runs again with the settings that it had before.")
	return e
}

// answersScript waits until the engine answers, and prints its version. Where there is no client, that it listens must do.
const answersScript = `unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_API_VERSION
n=0
while :; do
  if command -v docker >/dev/null 2>&1; then
    if v=$(timeout 10 docker -H unix:///var/run/docker.sock version --format '{{.Server.Version}}' 2>&1); then echo "version $v"; exit 0; fi
  else
    v="there is no /var/run/docker.sock"
    if [ -S /var/run/docker.sock ]; then dockerd --version | sed -n 's/^Docker version \([^ ,]*\).*/version \1/p'; exit 0; fi
  fi
  n=$((n+1))
  [ $n -lt 30 ] || { echo '$ docker version'; echo "$v"; exit 1; }
  sleep 1
done`
