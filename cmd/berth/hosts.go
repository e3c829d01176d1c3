package main

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

// defaultName is the machine that is meant when none is named.
const defaultName = "default"

var errNoName = errors.New(`Error: No machine name(s) specified and no "default" machine exists`) //nolint:revive,staticcheck // docker-machine's text

// host is a machine with the driver that made it.
type host struct {
	*machine.Machine
	store  *machine.Store
	driver machine.Driver
}

// hosts loads the named machines, or the one called default. If one cannot be loaded, none is worked on.
func (p *program) hosts(names []string) ([]host, error) {
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		if !s.Exists(defaultName) {
			return nil, errNoName
		}
		names = []string{defaultName}
	}
	var hosts []host
	var failed []error
	for _, name := range unique(names) {
		h, err := p.load(s, name)
		failed = append(failed, err)
		hosts = append(hosts, h)
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	return hosts, nil
}

// host loads one machine: the only name there is, or default.
func (p *program) host(names []string) (host, error) {
	hosts, err := p.hosts(names)
	if err != nil {
		return host{}, err
	}
	return hosts[0], nil
}

func (p *program) load(s *machine.Store, name string) (host, error) {
	m, err := s.Load(name)
	if err != nil {
		return host{}, err
	}
	d, err := p.driver(m.DriverName)
	return host{m, s, d}, err
}

// unique drops repeated names: a machine is not to be worked on twice at once.
func unique(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// each does something to all things at once and waits for all of it. The errors keep the order of the things.
func each[T any](ctx context.Context, things []T, do func(context.Context, T) error) error {
	failed := make([]error, len(things))
	var wg sync.WaitGroup
	for i, t := range things {
		wg.Go(func() { failed[i] = do(ctx, t) })
	}
	wg.Wait()
	return errors.Join(failed...)
}

// completeNames offers the machines' names to a shell.
func (p *program) completeNames(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := p.readEnvironment(); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	s, err := p.store()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := s.Names()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(given, n) }), cobra.ShellCompDirectiveNoFileComp
}

// atMostOne refuses a second machine for commands that answer about one.
func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return &usageError{errors.New("Error: Expected one machine name as an argument"), cmd.CommandPath()} //nolint:revive,staticcheck // docker-machine's text
	}
	return nil
}
