package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/files"
	"berth/internal/ssh"
	"berth/internal/term"
)

type scpOptions struct{ recursive, delta, quiet bool }

func (p *program) scpCmd() *cobra.Command {
	o := scpOptions{}
	cmd := &cobra.Command{
		Use:   "scp [OPTIONS] [[USER@]NAME:]PATH [[USER@]NAME:]PATH",
		Short: "Copy files between machines, and to and from this computer",
		Long: `Copy files between machines, and to and from this computer.

A path with a machine's name in front is on that machine, where a relative one begins in the user's home; any other is
here, as is localhost:PATH. A copy from machine to machine goes through this computer. Modes and times are kept.`,
		ValidArgsFunction: p.completePlace,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return &usageError{errors.New("Improper number of arguments"), cmd.CommandPath()} //nolint:revive,staticcheck // docker-machine's text
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return p.runScp(cmd.Context(), args[0], args[1], o) },
	}
	cmd.Flags().BoolVarP(&o.recursive, "recursive", "r", false, "Copy directories with all that is in them")
	cmd.Flags().BoolVarP(&o.delta, "delta", "d", false, "Send only what differs; needs rsync here and there")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Show no progress")
	return cmd
}

// place is one side of a copy; without a machine it is on this computer.
type place struct {
	machine, user, path string
}

func parsePlace(arg string) place {
	name, path, remote := strings.Cut(arg, ":")
	if !remote || strings.ContainsAny(name, `/\`) || len(name) == 1 && strings.HasPrefix(path, `\`) { // C:\
		return place{path: arg}
	}
	user, machine, has := strings.Cut(name, "@")
	if !has {
		user, machine = "", name
	}
	if machine == "localhost" {
		return place{path: path}
	}
	return place{machine, user, path}
}

// home makes a path relative that begins in ~, as every relative one does there.
func (l place) home() string {
	if rest, ok := strings.CutPrefix(l.path, "~/"); ok {
		return rest
	}
	if l.path == "~" {
		return ""
	}
	return l.path
}

func (p *program) runScp(ctx context.Context, from, to string, o scpOptions) error {
	ends := []place{parsePlace(from), parsePlace(to)}
	if ends[0].machine == "" && ends[1].machine == "" {
		return errors.New("neither side names a machine: write NAME:PATH")
	}
	var hosts [2]host
	for i, e := range ends {
		if e.machine == "" {
			continue
		}
		h, err := p.host([]string{e.machine})
		if err != nil {
			return fmt.Errorf("Error loading host: %w", err) //nolint:staticcheck,revive // docker-machine's text
		}
		hosts[i] = h
	}
	switch {
	case o.delta:
		return p.rsync(ctx, ends, hosts, o)
	case !p.nativeSSH:
		return p.externalScp(ctx, ends, hosts, o)
	}
	return p.copy(ctx, ends, hosts, o)
}

// copy copies over connections of our own, one per machine.
func (p *program) copy(ctx context.Context, ends []place, hosts [2]host, o scpOptions) (err error) {
	var places [2]files.Place
	for i, e := range ends {
		if i == 1 && e.machine != "" && e.machine == ends[0].machine && e.user == ends[0].user {
			places[1] = files.Place{Tree: places[0].Tree, Path: e.home()}
			continue
		}
		tree, done, err := p.tree(ctx, hosts[i], e)
		if err != nil {
			return err
		}
		defer done()
		places[i] = files.Place{Tree: tree, Path: e.path}
		if e.machine != "" {
			places[i].Path = e.home()
		}
	}
	style := term.Auto
	if o.quiet || !term.IsTerminal(p.err) { // lines of bytes are for who watches
		style = term.Quiet
	}
	label := cmp.Or(ends[0].machine, ends[1].machine)
	bars := term.Show(p.err, []string{label}, style)
	return bars.During(func() error {
		err := files.Copy(ctx, places[0], places[1], files.Options{Recursive: o.recursive, Progress: func(file string, done, size int64) {
			bars.Bar(label, path.Base(file), done, size)
		}})
		bars.Done(label, err)
		return err
	})
}

// tree opens the file system of one side.
func (p *program) tree(ctx context.Context, h host, e place) (files.Tree, func(), error) {
	if e.machine == "" {
		return files.Here{}, func() {}, nil
	}
	r, err := p.reach(ctx, h, e.user)
	if err != nil {
		return nil, nil, err
	}
	tree, err := r.files(ctx, e.machine)
	if err != nil {
		return nil, nil, errors.Join(err, r.close())
	}
	return tree, func() {
		// All files are closed by now: nothing is lost with the connection.
		if err := errors.Join(tree.Close(), r.close()); err != nil && !errors.Is(err, io.EOF) {
			p.debugf("(%s) %v", e.machine, err)
		}
	}, nil
}

// externalScp runs this computer's scp with docker-machine's arguments.
func (p *program) externalScp(ctx context.Context, ends []place, hosts [2]host, o scpOptions) error {
	args := []string{"-3"}
	if o.recursive {
		args = append(args, "-r")
	}
	if o.quiet {
		args = append(args, "-q")
	}
	var remotes []ssh.Config
	var words []string
	for i, e := range ends {
		if e.machine == "" {
			words = append(words, hereWord(e.path))
			continue
		}
		if err := mustBeReachable(ctx, hosts[i]); err != nil {
			return err
		}
		cfg, err := external(hosts[i], e.user)
		if err != nil {
			return err
		}
		remotes = append(remotes, cfg)
		words = append(words, cfg.User+"@"+hostWord(cfg.Host)+":"+e.path)
	}
	options, err := scpSSHOptions(remotes)
	if err != nil {
		return err
	}
	return p.runProgram(ctx, "scp", "use the scp feature", append(append(args, options...), words...))
}

// scpSSHOptions are what scp passes to ssh, which cannot tell the two sides of a copy apart.
func scpSSHOptions(remotes []ssh.Config) ([]string, error) {
	var known, args []string
	own := true // each has a key of its own
	for _, cfg := range remotes {
		if cfg.Port != remotes[0].Port {
			return nil, errors.New("this computer's scp takes one SSH port for both machines, and theirs differ: leave out --native-ssh=false")
		}
		known = append(known, sshWord(cfg.KnownHostsFile))
		own = own && len(cfg.KeyFiles) > 0
		for _, key := range cfg.KeyFiles {
			if err := checkKey(key); err != nil {
				return nil, err
			}
			args = append(args, "-o", "IdentityFile="+sshWord(key))
		}
	}
	if own {
		args = append(args, "-o", "IdentitiesOnly=yes")
	}
	args = append(args, "-o", "Port="+strconv.Itoa(remotes[0].Port))
	return append(args, pinned(strings.Join(known, " "))...), nil
}

// hereWord keeps a path here from being taken for an option, or for a host's.
func hereWord(path string) string {
	if strings.HasPrefix(path, "-") || strings.Contains(path, ":") && !strings.HasPrefix(path, "/") {
		return "./" + path
	}
	return path
}

// hostWord puts an IPv6 address into brackets.
func hostWord(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// rsync sends what differs. It calls this very program for the way to the other side, so that machines without an sshd do, too.
func (p *program) rsync(ctx context.Context, ends []place, hosts [2]host, o scpOptions) error {
	if ends[0].machine != "" && ends[1].machine != "" {
		return errors.New("rsync copies to or from this computer only: leave out --delta to copy from machine to machine")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	shell := []string{self, "--storage-path", "", "--native-ssh=" + strconv.FormatBool(p.nativeSSH), "ssh"}
	args := []string{"--times", "--perms", "--copy-links"} // as copies without it are
	if o.recursive {
		args = append(args, "--recursive")
	}
	if !o.quiet {
		args = append(args, "--progress")
	}
	var words []string
	for i, e := range ends {
		if e.machine == "" {
			words = append(words, hereWord(e.path))
			continue
		}
		if err := mustBeReachable(ctx, hosts[i]); err != nil {
			return err
		}
		shell[2] = hosts[i].store.Dir()
		at := e.machine
		if e.user != "" {
			at = e.user + "@" + e.machine
		}
		words = append(words, at+":"+e.home())
	}
	for i, w := range shell {
		shell[i] = rsyncWord(w)
	}
	err = p.runProgram(ctx, "rsync", "use the --delta option", append(append(args, "-e", strings.Join(shell, " "), "--"), words...))
	if failed, ok := errors.AsType[*statusError](err); ok && failed.status == rsyncNotThere {
		return errors.New("there is no rsync on the machine, which the --delta option needs there, too")
	}
	return err
}

// rsyncNotThere is rsync's status for a shell that could not find it on the other side.
const rsyncNotThere = 127

// rsyncWord is one word of rsync's remote shell, which it takes apart at blanks outside of quotes. Quotes are doubled within.
func rsyncWord(w string) string {
	if !strings.ContainsAny(w, ` "'`) {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", "''") + "'"
}
