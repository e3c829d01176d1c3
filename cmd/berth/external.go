package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"berth/internal/machine"
	"berth/internal/ssh"
)

// externalSSH are the arguments with which docker-machine runs this computer's ssh, but for two: the host's key is held to the one
// that it showed first, and what ssh has to say about that is heard.
func externalSSH(cfg ssh.Config) []string {
	return append([]string{
		"-F", "/dev/null",
		"-o", "ConnectionAttempts=3", "-o", "ConnectTimeout=10",
		"-o", "ControlMaster=no", "-o", "ControlPath=none",
		"-o", "PasswordAuthentication=no", "-o", "ServerAliveInterval=60",
	}, pinned(sshWord(cfg.KnownHostsFile))...)
}

// pinned are the options that hold hosts to the keys in files.
func pinned(knownHosts string) []string {
	return []string{"-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + knownHosts}
}

// sshWord is one word in the value of an ssh option.
func sshWord(s string) string {
	s = strings.ReplaceAll(s, "%", "%%")
	if !strings.ContainsAny(s, " \t\"\\#'") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// sshArgs are the whole command line of ssh but for the command on the other side.
func sshArgs(cfg ssh.Config) ([]string, error) {
	args := append(externalSSH(cfg), cfg.User+"@"+cfg.Host)
	for _, key := range cfg.KeyFiles {
		if err := checkKey(key); err != nil {
			return nil, err
		}
		args = append(args, "-o", "IdentitiesOnly=yes", "-i", key)
	}
	return append(args, "-p", strconv.Itoa(cfg.Port)), nil
}

// checkKey says what ssh would only mutter about.
func checkKey(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("SSH key: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("SSH key: permissions %#o for '%s' are too open: chmod 600 it", perm, path)
	}
	return nil
}

// external is the machine as this computer's ssh gets at it.
func external(h host, user string) (ssh.Config, error) {
	if _, here := h.driver.(machine.Enterer); here {
		return ssh.Config{}, fmt.Errorf("machine %q is on this computer and has no sshd: leave out --native-ssh=false", h.Name)
	}
	cfg, err := sshConfig(h.store, h.Machine)
	if user != "" {
		cfg.User = user
	}
	if err == nil && (strings.HasPrefix(cfg.User, "-") || strings.HasPrefix(cfg.Host, "-")) {
		err = fmt.Errorf("machine %q: %s@%s is no address", h.Name, cfg.User, cfg.Host)
	}
	return cfg, err
}

func (p *program) runExternalSSH(ctx context.Context, h host, user string, command []string) error {
	if err := mustBeReachable(ctx, h); err != nil {
		return err
	}
	cfg, err := external(h, user)
	if err != nil {
		return err
	}
	args, err := sshArgs(cfg)
	if err != nil {
		return err
	}
	return p.runProgram(ctx, "ssh", "use SSH", append(args, command...))
}

// runProgram runs one of this computer's programs in our place.
func (p *program) runProgram(ctx context.Context, name, purpose string, args []string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("You must have a copy of the %s binary locally to %s", name, purpose) //nolint:staticcheck,revive // docker-machine's text
	}
	p.debugf("%s %s", path, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.in, p.out, p.err
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err = cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil && failed.Exited() {
		return &statusError{failed.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}
