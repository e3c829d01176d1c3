package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/ssh"
	"berth/internal/term"
)

func (p *program) sshCmd() *cobra.Command {
	user := ""
	cmd := &cobra.Command{
		Use:   "ssh [OPTIONS] [[USER@]NAME] [-t|-T|-A] [COMMAND [ARG...]]",
		Short: "Open a shell on a machine, or run a command there",
		Long: `Open a shell on a machine, or run a command there; its exit status becomes berth's.

  -t   give the command a terminal        -T   give the shell none
  -A   let the machine use this computer's ssh-agent

A session that hangs is left by typing ~. at the beginning of a line. With --native-ssh=false this computer's ssh is
run, and takes whatever options it knows: berth --native-ssh=false ssh NAME -L 8080:localhost:80.`,
		ValidArgsFunction: p.completeOneName,
		RunE:              func(cmd *cobra.Command, args []string) error { return p.runSSH(cmd.Context(), user, args) },
	}
	cmd.Flags().StringVarP(&user, "login", "l", "", "Log in as `USER`, which may also stand before the name: USER@NAME")
	cmd.Flags().SetInterspersed(false) // what follows the name is not ours
	return cmd
}

func (p *program) runSSH(ctx context.Context, user string, args []string) error {
	var names []string
	if len(args) > 0 {
		names, args = args[:1], args[1:]
	}
	if len(names) > 0 {
		if u, name, has := strings.Cut(names[0], "@"); has {
			user, names = u, []string{name}
		}
	}
	h, err := p.host(names)
	if err != nil {
		return err
	}
	if !p.nativeSSH {
		return p.runExternalSSH(ctx, h, user, args)
	}
	o, err := readSSHOptions(args)
	if err != nil {
		return &usageError{err, p.name + " ssh"}
	}
	r, err := p.reach(ctx, h, user)
	if err != nil {
		return err
	}
	return errors.Join(p.attach(ctx, r, o), r.close())
}

// attach joins a session there with the streams here.
func (p *program) attach(ctx context.Context, r remote, o sshOptions) error {
	s := ssh.Session{Command: o.command, ForwardAgent: o.agent, Stdin: p.in, Stdout: p.out, Stderr: p.err}
	if !o.wantsTerminal(term.IsTerminal(p.in)) {
		return r.attach(ctx, s)
	}
	screen, err := takeScreen(p.in)
	if err != nil {
		return fmt.Errorf("-t: %w", err)
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	s.Terminal = &screen.Terminal
	s.Stdin = &keys{from: p.in, leave: func() { leave(errLeft) }}
	err = r.attach(ctx, s)
	if context.Cause(ctx) == errLeft { //nolint:errorlint // the cause is this very value
		err = errLeft
	}
	return errors.Join(err, screen.restore())
}

var errLeft = errors.New("left the session, which may go on there")

// sshOptions are those of ssh that make a difference here.
type sshOptions struct {
	command            string
	terminal, noScreen bool
	agent              bool
}

// wantsTerminal is as ssh has it: a shell has a terminal where we have one, a command none, unless the options say otherwise.
func (o sshOptions) wantsTerminal(interactive bool) bool {
	return !o.noScreen && (o.terminal || o.command == "" && interactive)
}

// readSSHOptions reads what stands between the machine's name and the command, as ssh would.
func readSSHOptions(args []string) (sshOptions, error) {
	o := sshOptions{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		if args[0] == "--" {
			args = args[1:]
			break
		}
		for _, letter := range args[0][1:] {
			switch letter {
			case 't':
				o.terminal = true
			case 'T':
				o.noScreen = true
			case 'A':
				o.agent = true
			case 'C', 'q', 'x', 'a', '4', '6': // without meaning here: compression, less talk, no X11, no agent, either address
			default:
				return o, fmt.Errorf("berth's own ssh has no option -%c. This computer's ssh may: --native-ssh=false before the command, or $MACHINE_NATIVE_SSH=false", letter)
			}
		}
		args = args[1:]
	}
	if slices.Contains(args, "\x00") {
		return o, errors.New("a command cannot hold a NUL byte")
	}
	o.command = strings.Join(args, " ")
	return o, nil
}
