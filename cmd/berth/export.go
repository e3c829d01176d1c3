package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/driver/plugin"
	"berth/internal/machine"
	"berth/internal/term"
)

// extraCommands are for machines, and docker-machine has none like them.
func (p *program) extraCommands() []*cobra.Command {
	return []*cobra.Command{p.exportCmd(), p.gcCmd(), p.imageCacheCmd(), p.importCmd(), p.pruneCmd(), p.saveCmd(), p.useCmd()}
}

const archiveSuffix = ".berth.tar.gz"

func (p *program) exportCmd() *cobra.Command {
	withCAKey := false
	cmd := &cobra.Command{
		Use: "export [OPTIONS] NAME [FILE]", Short: "Write a machine's record and keys to a file, for another computer",
		Long: `Write what the store holds of a machine, its record and its keys, to a file (NAME` + archiveSuffix + ` by default, - for
standard output). berth import reads it, on this computer or another. Whoever has the file can use the machine, and what
its driver keeps in the record, such as the credentials of a cloud, is in it.`,
		ValidArgsFunction: p.completeOneName,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return &usageError{errors.New("want a machine, and a file at most"), cmd.CommandPath()}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.runExport(args, withCAKey) },
	}
	cmd.Flags().BoolVar(&withCAKey, "with-ca-key", false, "Include the key of the certificate authority: certificates can then be renewed there, and its owner can get into all machines of this store")
	return cmd
}

func (p *program) runExport(args []string, withCAKey bool) error {
	h, err := p.host(args[:1])
	if err != nil {
		return err
	}
	path := h.Name + archiveSuffix
	if len(args) == 2 {
		path = args[1]
	}
	if path == "-" && term.IsTerminal(p.out) {
		return errors.New("standard output is a terminal: name a file")
	}
	if why := boundHere(h); why != "" {
		p.warn("%s %s: the archive is of use on this computer only", h.Name, why)
	}
	out, done, err := p.archiveOut(path)
	if err != nil {
		return err
	}
	left, err := machine.Export(h.store, h.Machine, out, withCAKey)
	if err = done(err); err != nil {
		return err
	}
	if len(left) > 0 {
		p.warn("Not in it: %s", strings.Join(left, ", "))
	}
	if path != "-" {
		p.say("%s is in %s. Keep it as secret as a password.", h.Name, path)
	}
	return nil
}

// boundHere is why a machine is of no use to other computers; "" if it is.
func boundHere(h host) string {
	if _, here := h.driver.(machine.Enterer); here {
		return "is a part of this computer"
	}
	u, err := url.Parse(h.URL())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "unix" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return fmt.Sprintf("has the address %s", h.URL())
	}
	return ""
}

// archiveOut opens the file, which must be new, for its owner alone. done closes it, and takes it away again after an error.
func (p *program) archiveOut(path string) (out io.Writer, done func(error) error, err error) {
	if path == "-" {
		return p.out, func(err error) error { return err }, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, nil, fmt.Errorf("%s exists: name another file, or move it away", path)
	}
	if err != nil {
		return nil, nil, err
	}
	return f, func(err error) error {
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return errors.Join(err, os.Remove(path))
		}
		return nil
	}, nil
}

func (p *program) importCmd() *cobra.Command {
	name, noContext := "", false
	cmd := &cobra.Command{
		Use: "import [OPTIONS] FILE", Short: "Take over a machine that berth export wrote",
		Long: `Take over a machine from a file that berth export wrote (- for standard input). Take files only from people whom you
would let into your other machines: the record tells berth's drivers what is theirs to start, stop and remove.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{errors.New("want a file"), cmd.CommandPath()}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.runImport(args[0], name, noContext) },
	}
	cmd.Flags().StringVar(&name, "name", "", "Another `NAME` for the machine")
	cmd.Flags().BoolVar(&noContext, "no-context", false, "Make no docker context")
	return cmd
}

func (p *program) runImport(path, name string, noContext bool) error {
	a, err := p.readArchive(path)
	if err != nil {
		return err
	}
	if name == "" {
		name = a.Name
	}
	if err := p.mayImport(a, name); err != nil {
		return err
	}
	s, err := p.store()
	if err != nil {
		return err
	}
	if err := machine.Import(s, a, name); err != nil {
		return err
	}
	p.say("Machine %q is in the store.", name)
	if !noContext && !p.dropIn() {
		p.offerMachineContexts(s, name)
	}
	return nil
}

func (p *program) readArchive(path string) (*machine.Archive, error) {
	in := p.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // read only
		in = f
	}
	a, err := machine.ReadArchive(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// mayImport says what would come of an import that cannot go well.
func (p *program) mayImport(a *machine.Archive, name string) error {
	drv, err := p.driver(a.DriverName)
	if err != nil {
		p.warn("Until its driver is there, %s can be used but not started, stopped or removed: %v", name, err)
	}
	if name == a.Name {
		return nil
	}
	_, isPlugin := drv.(*plugin.Driver)
	_, isHere := drv.(machine.Enterer)
	if isHere || isPlugin && !a.Whole {
		return fmt.Errorf("driver %s knows the machine by its name: import it as %s", a.DriverName, a.Name)
	}
	return nil
}
