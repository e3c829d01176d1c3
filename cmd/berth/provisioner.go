package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"berth/internal/machine"
	"berth/internal/provision"
	"berth/internal/ssh"
)

// How long a host may take to let us in. A new one boots, and gets its keys some time after its sshd.
const (
	newHostTime    = 5 * time.Minute
	newHostKeyTime = 2 * time.Minute
	oldHostTime    = 5 * time.Second // a busy sshd turns connections away for a moment
	reachPause     = 2 * time.Second
)

// provisioner reaches into machines over SSH, for their store.
type provisioner struct {
	store *machine.Store
	log   func(format string, args ...any)
}

// enter is a client that is let in.
func (p *provisioner) enter(ctx context.Context, m *machine.Machine, isNew bool) (*ssh.Client, error) {
	cfg, err := sshConfig(p.store, m)
	if err != nil {
		return nil, err
	}
	cfg.Log = func(line string) { p.log("(%s) %s", m.Name, line) }
	client := ssh.New(cfg)
	if err := waitSSH(ctx, client, isNew); err != nil {
		return nil, errors.Join(sshTrouble(m, err), client.Close())
	}
	return client, nil
}

// waitSSH waits until the host lets us in, as long as there is hope.
func waitSSH(ctx context.Context, client *ssh.Client, isNew bool) error {
	began := time.Now()
	for {
		err := client.Run(ctx, "true", nil, nil, nil)
		if err == nil || ctx.Err() != nil || time.Since(began) > patience(err, isNew) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(reachPause):
		}
	}
}

// patience is how long err may last.
func patience(err error, isNew bool) time.Duration {
	var (
		changed *ssh.HostKeyError
		refused *ssh.AuthError
		ran     *ssh.ExitError
	)
	switch {
	case errors.As(err, &changed), errors.As(err, &ran):
		return 0
	case errors.As(err, &refused) && isNew:
		return newHostKeyTime
	case errors.As(err, &refused):
		return 0 // servers count, and lock out
	case isNew:
		return newHostTime
	}
	return oldHostTime
}

// sshTrouble says what to do about a host that does not let us in.
func sshTrouble(m *machine.Machine, err error) error {
	step := &provision.StepError{Step: "reach the host over SSH", Err: err}
	var (
		refused *ssh.AuthError
		changed *ssh.HostKeyError
		network net.Error
	)
	switch {
	case errors.As(err, &changed): // it says so itself
	case errors.As(err, &refused):
		step.Advice = fmt.Sprintf("Is %s the right user, and is the key's public half in its ~/.ssh/authorized_keys there?", userOf(m))
	case errors.Is(err, syscall.ECONNREFUSED):
		step.Advice = fmt.Sprintf("The host is there, but nothing listens on port %d: is that sshd's port, and does sshd run?", portOf(m))
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		step.Advice = "Is that the host's address, is it switched on, and does every firewall in between let SSH through?"
	}
	return step
}

// Provision implements machine.Provisioner.
func (p *provisioner) Provision(ctx context.Context, m *machine.Machine, e machine.EngineConfig, isNew bool) error {
	return p.inside(ctx, m, e, isNew, func(r provision.Runner, c provision.Config) error {
		result, err := provision.Provision(ctx, r, c)
		if err == nil && result.Restarted {
			e.Progress(fmt.Sprintf("Docker %s runs on %s", result.Engine, result.OS))
		}
		return err
	})
}

// Upgrade implements machine.Provisioner.
func (p *provisioner) Upgrade(ctx context.Context, m *machine.Machine, e machine.EngineConfig) error {
	return p.inside(ctx, m, e, false, func(r provision.Runner, c provision.Config) error {
		before, after, err := provision.Upgrade(ctx, r, c)
		switch {
		case err != nil:
			return err
		case before == after:
			e.Progress(fmt.Sprintf("Docker %s is the newest there is for this host", after))
		default:
			e.Progress(fmt.Sprintf("Docker %s has become %s", before, after))
		}
		return nil
	})
}

func (p *provisioner) inside(ctx context.Context, m *machine.Machine, e machine.EngineConfig, isNew bool, do func(provision.Runner, provision.Config) error) (err error) {
	c, err := provisionConfig(m, e)
	if err != nil {
		return err
	}
	e.Progress("Waiting for SSH to be available...")
	client, err := p.enter(ctx, m, isNew)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return do(overSSH{client}, c)
}

// provisionConfig is what the record wants, in the words of package provision.
func provisionConfig(m *machine.Machine, e machine.EngineConfig) (provision.Config, error) {
	o := e.Options
	c := provision.Config{
		Hostname: m.Name, Port: cmp.Or(m.Instance.InnerPort, enginePort(m)), IPv6: strings.Contains(m.Instance.IPAddress, ":"), Progress: e.Progress,
		Engine: provision.Engine{
			InstallURL: o.InstallURL, Version: o.Version, Labels: append(e.ExtraLabels, o.Labels...), StorageDriver: o.StorageDriver,
			RegistryMirrors: o.RegistryMirror, InsecureRegistries: o.InsecureRegistry, Env: o.Env, Flags: o.ArbitraryFlags,
		},
	}
	if len(e.Services) > 0 {
		var err error
		if c.Program, err = thisProgram(); err != nil {
			return c, err
		}
		c.Services = services(e.Services)
	}
	for _, f := range []struct {
		to   *[]byte
		path string
	}{{&c.CA, e.CACert}, {&c.Cert, e.ServerCert}, {&c.Key, e.ServerKey}} {
		var err error
		if *f.to, err = os.ReadFile(f.path); err != nil {
			return c, fmt.Errorf("certificates of %s: %w", m.Name, err)
		}
	}
	return c, nil
}

// DialEngine implements machine.Provisioner.
func (p *provisioner) DialEngine(ctx context.Context, m *machine.Machine) (net.Conn, error) {
	client, err := p.enter(ctx, m, false)
	if err != nil {
		return nil, err
	}
	conn, err := client.Dial(ctx, "unix", ssh.DefaultSocket)
	if err != nil {
		return nil, errors.Join(plainTrouble(m, err), client.Close())
	}
	return &lone{Conn: conn, client: client, machine: m}, nil
}

// plainTrouble says what to do about an engine that is used as it is and does not let us.
func plainTrouble(m *machine.Machine, err error) error {
	step := &provision.StepError{Step: "reach the engine through SSH", Err: err}
	switch text := err.Error(); { // sshd's and docker's own words are all there is
	case strings.Contains(text, "permission denied"):
		step.Advice = fmt.Sprintf("Let the user into the engine's group there: usermod -aG docker %s", userOf(m))
	default:
		step.Advice = "Does Docker run there? Without --no-install, create installs it."
	}
	return step
}

// lone is a connection to an engine with an SSH of its own.
type lone struct {
	net.Conn
	client  *ssh.Client
	machine *machine.Machine
	heard   bool // anything
}

// Read explains an end before the first byte: where a command on the host makes the connection, only then does it show that it failed.
func (l *lone) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.heard = l.heard || n > 0
	if err != nil && !l.heard && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		err = plainTrouble(l.machine, err)
	}
	return n, err
}

func (l *lone) Close() error { return errors.Join(l.Conn.Close(), l.client.Close()) }

// overSSH is a provision.Runner.
type overSSH struct{ client *ssh.Client }

// Run gives the script to sh, whatever the user's own shell is.
func (r overSSH) Run(ctx context.Context, script string, stdin io.Reader, out io.Writer) error {
	err := r.client.Run(ctx, "exec sh -c "+shellWord(script), stdin, out, out)
	if failed, ok := errors.AsType[*ssh.ExitError](err); ok {
		return &scriptError{failed}
	}
	return err
}

// scriptError is an ssh.ExitError that does not repeat script and output.
type scriptError struct{ *ssh.ExitError }

func (e *scriptError) Error() string {
	if e.Signal != "" {
		return "ended by signal " + e.Signal
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

func (e *scriptError) Unwrap() error { return e.ExitError }

// shellWord makes one word of s for a shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// sshShell is a generic.Shell.
type sshShell struct{}

// Run runs a command on a machine's host.
func (sshShell) Run(ctx context.Context, i machine.Instance, command string) (string, error) {
	cfg, err := instanceSSH(i)
	if err != nil {
		return "", err
	}
	cfg.Timeout = 10 * time.Second
	client := ssh.New(cfg)
	var out strings.Builder
	err = client.Run(ctx, "exec sh -c "+shellWord(command), nil, &out, nil)
	return out.String(), errors.Join(err, client.Close())
}
