package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"berth/internal/files"
	"berth/internal/machine"
	"berth/internal/ssh"
)

// remote is the inside of a machine: reached over SSH or, for one on this computer, through its namespaces.
type remote interface {
	// attach runs a shell or a command. One that failed is a *statusError.
	attach(ctx context.Context, s ssh.Session) error
	// files opens its file system; name is for errors.
	files(ctx context.Context, name string) (*files.Remote, error)
	close() error
}

// statusError is a command that ran on a machine and ended with a status of its own, which becomes ours. What there was to say
// the command has said itself.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// reach leads into a running machine. user is "" for the machine's own.
func (p *program) reach(ctx context.Context, h host, user string) (remote, error) {
	if err := mustBeReachable(ctx, h); err != nil {
		return nil, err
	}
	if e, ok := h.driver.(machine.Enterer); ok {
		if user != "" && user != "root" {
			return nil, fmt.Errorf("machine %q is on this computer and has no user %s, only root", h.Name, user)
		}
		return &box{e, h.Instance}, nil
	}
	client, err := p.sshClient(h, user)
	if err != nil {
		return nil, err
	}
	return sshRemote{client}, nil
}

// mustBeReachable is an error unless the machine runs. One whose create did not come to its end may be looked into.
func mustBeReachable(ctx context.Context, h host) error {
	if h.Unfinished != "" && (h.Instance.IPAddress != "" || h.Instance.SSHHost != "") {
		return nil
	}
	err := mustRun(ctx, h)
	if errors.Is(err, machine.ErrNotRunning) {
		return fmt.Errorf("Error: Cannot run SSH command: Host %q is not running", h.Name) //nolint:staticcheck,revive // docker-machine's text
	}
	return err
}

// sshRemote is a machine with an sshd.
type sshRemote struct{ client *ssh.Client }

func (r sshRemote) close() error { return r.client.Close() }

func (r sshRemote) attach(ctx context.Context, s ssh.Session) error {
	err := r.client.Attach(ctx, s)
	if failed, ok := errors.AsType[*ssh.ExitError](err); ok && ctx.Err() == nil {
		return &statusError{failed.Status}
	}
	return err
}

func (r sshRemote) files(ctx context.Context, name string) (*files.Remote, error) {
	conn, err := r.client.Subsystem(ctx, "sftp")
	if err != nil {
		return nil, err
	}
	return files.Over(ctx, name, conn)
}

// box is a machine on this computer, without an sshd.
type box struct {
	machine.Enterer
	instance machine.Instance
}

func (b *box) close() error { return nil }

func (b *box) attach(ctx context.Context, s ssh.Session) error {
	if s.ForwardAgent {
		return fmt.Errorf("machine %q is on this computer: there is no SSH that could forward the agent", b.instance.Name)
	}
	term := ""
	if s.Terminal != nil {
		term = s.Terminal.Type
	}
	cmd, err := b.Enter(ctx, b.instance, s.Command, term)
	if err != nil {
		return err
	}
	if s.Terminal != nil {
		err = runOnTerminal(cmd, s)
	} else {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = s.Stdin, s.Stdout, s.Stderr
		err = cmd.Run()
	}
	if failed, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil && failed.Exited() {
		return &statusError{failed.ExitCode()}
	}
	return err
}

func (b *box) files(ctx context.Context, name string) (*files.Remote, error) {
	cmd, err := b.EnterFiles(ctx, b.instance)
	if err != nil {
		return nil, err
	}
	conn, err := startPiped(cmd)
	if err != nil {
		return nil, fmt.Errorf("files of %s: %w", name, err)
	}
	return files.Over(ctx, name, conn)
}

// piped is a program as a connection to it.
type piped struct {
	cmd *exec.Cmd
	io.Reader
	io.WriteCloser
}

func startPiped(cmd *exec.Cmd) (*piped, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &piped{cmd, out, in}, cmd.Start()
}

// Close ends the program by ending its input, and waits for it.
func (c *piped) Close() error {
	return errors.Join(c.WriteCloser.Close(), c.cmd.Wait())
}
