package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

type envOptions struct {
	swarm, unset, noProxy bool
	shell                 string
}

func (p *program) envCmd() *cobra.Command {
	o := envOptions{}
	cmd := &cobra.Command{
		Use: "env [OPTIONS] [NAME]", Short: "Show the commands that point docker at a machine", Args: atMostOne, ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error { return p.runEnv(cmd.Context(), names, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.swarm, "swarm", false, "Point at the Swarm that the machine manages")
	f.StringVar(&o.shell, "shell", "", "For this shell: bash, zsh, sh, fish, powershell, cmd, tcsh, emacs (default: the one in use)")
	f.BoolVarP(&o.unset, "unset", "u", false, "Unset the variables")
	f.BoolVar(&o.noProxy, "no-proxy", false, "Add the machine's address to NO_PROXY")
	return cmd
}

// variable is one assignment; unset takes it out of the environment.
type variable struct {
	name, value string
	unset       bool
}

func (p *program) runEnv(ctx context.Context, names []string, o envOptions) error {
	if o.unset && len(names) > 0 {
		return errors.New("Error: Expected no machine name when the -u flag is present") //nolint:revive,staticcheck // docker-machine's text
	}
	sh := p.shell(o.shell)
	vars := p.unsetVariables(o)
	if !o.unset {
		var err error
		if vars, err = p.setVariables(ctx, names, o); err != nil {
			return err
		}
	}
	for _, v := range vars {
		if v.unset {
			p.say(sh.unset, v.name)
		} else {
			p.say(sh.set, v.name, sh.quote(v.value))
		}
	}
	p.say("%s", sh.hint(p.commandLine()))
	return nil
}

func (p *program) setVariables(ctx context.Context, names []string, o envOptions) ([]variable, error) {
	h, endpoint, err := p.connect(ctx, names, o.swarm)
	if err != nil {
		return nil, err
	}
	if key := sshKey(h.Instance); h.Plain && key != "" {
		// On stderr, so that no shell takes it for a command.
		p.warn("The docker command reaches %s with this computer's ssh, which knows of the machine's key only from its agent: ssh-add %s", h.Name, key)
	}
	tls := !h.UsesTLS() // an engine without it must not meet a client that wants it
	vars := []variable{
		{name: "DOCKER_TLS_VERIFY", value: "1", unset: tls},
		{name: "DOCKER_HOST", value: endpoint},
		{name: "DOCKER_CERT_PATH", value: h.store.MachineDir(h.Name), unset: tls},
		{name: "DOCKER_MACHINE_NAME", value: h.Name},
	}
	if runtime.GOOS == "windows" {
		vars = append(vars, variable{name: "COMPOSE_CONVERT_WINDOWS_PATHS", value: "true"})
	}
	if o.noProxy {
		name, value := noProxy()
		if ip := h.Instance.IPAddress; ip != "" && !strings.Contains(value, ip) {
			value = strings.TrimPrefix(value+","+ip, ",")
		}
		vars = append(vars, variable{name: name, value: value})
	}
	return vars, nil
}

func (p *program) unsetVariables(o envOptions) []variable {
	vars := []variable{
		{name: "DOCKER_TLS_VERIFY", unset: true}, {name: "DOCKER_HOST", unset: true},
		{name: "DOCKER_CERT_PATH", unset: true}, {name: "DOCKER_MACHINE_NAME", unset: true},
	}
	if runtime.GOOS == "windows" {
		vars = append(vars, variable{name: "COMPOSE_CONVERT_WINDOWS_PATHS", unset: true})
	}
	if o.noProxy {
		name, _ := noProxy()
		vars = append(vars, variable{name: name, unset: true})
	}
	return vars
}

// noProxy is the variable that names hosts not to be reached through a proxy: the one in use.
func noProxy() (name, value string) {
	if v := os.Getenv("no_proxy"); v != "" {
		return "no_proxy", v
	}
	return "NO_PROXY", os.Getenv("NO_PROXY")
}

// shell is the named one, or the one that berth was called from.
func (p *program) shell(name string) shell {
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(os.Getenv("SHELL")), ".exe")
		switch {
		case os.Getenv("__fish_bin_dir") != "":
			name = "fish"
		case os.Getenv("SHELL") != "":
		case runtime.GOOS == "windows":
			name = "cmd"
		default:
			// docker-machine gives up here, for want of $SHELL; but what has none, cron and containers, speaks sh.
			p.debugf("$SHELL is not set: taking sh")
		}
	}
	if sh, known := shells()[name]; known {
		return sh
	}
	return shells()["sh"]
}
