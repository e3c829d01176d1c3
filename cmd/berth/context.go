package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"berth/internal/dockercontext"
	"berth/internal/machine"
)

// machineContext is the docker context that leads to a machine.
func machineContext(name string) string { return contextName + "-" + name }

// contextOf is that context as it is to be.
func contextOf(s *machine.Store, m *machine.Machine) (dockercontext.Context, error) {
	c := dockercontext.Context{
		Name: machineContext(m.Name), Description: fmt.Sprintf("berth: machine %s (%s)", m.Name, m.DriverName),
		Host: m.URL(), Owner: s.MachineDir(m.Name),
	}
	if c.Host == "" {
		return c, fmt.Errorf("machine %q: its address is not known", m.Name)
	}
	if !m.UsesTLS() {
		return c, nil
	}
	var err error
	c.CA, c.Cert, c.Key, err = s.ReadClientFiles(m)
	return c, err
}

// putContext makes a machine's context, or has it lead to where the machine is now.
func putContext(contexts *dockercontext.Store, s *machine.Store, name string) error {
	m, err := s.Load(name)
	if err != nil {
		return err
	}
	c, err := contextOf(s, m)
	if err != nil {
		return err
	}
	return contexts.Put(c)
}

// offerMachineContexts makes the contexts of new machines. That one cannot be made is no reason to fail.
func (p *program) offerMachineContexts(s *machine.Store, names ...string) {
	contexts, err := dockercontext.Open()
	if err != nil {
		p.warn("The docker client is not told of the new machines: %v", err)
		return
	}
	for _, name := range names {
		if err := putContext(contexts, s, name); err != nil {
			p.warn("The docker client is not told of %s: %v", name, err)
		}
	}
}

// refreshContexts keeps the contexts of all machines true. One that the user has removed stays so.
func (p *program) refreshContexts(s *machine.Store) {
	contexts, err := dockercontext.Open()
	if err != nil {
		p.debugf("docker contexts: %v", err)
		return
	}
	names, err := s.Names()
	if err != nil {
		p.debugf("docker contexts: %v", err)
		return
	}
	for _, name := range names {
		has, err := contexts.Has(machineContext(name), s.MachineDir(name))
		if err == nil && has {
			err = putContext(contexts, s, name)
		}
		if err != nil {
			p.warn("The docker context of %s is not up to date: %v", name, err)
		}
	}
}

// dropContext takes away the context of a machine that is gone.
func (p *program) dropContext(s *machine.Store, name string) {
	contexts, err := dockercontext.Open()
	if err == nil {
		err = contexts.Remove(machineContext(name), s.MachineDir(name))
	}
	if err != nil {
		p.warn("The docker context of %s is left: %v", name, err)
	}
}

type useOptions struct{ fleet, unset bool }

func (p *program) useCmd() *cobra.Command {
	o := useOptions{}
	cmd := &cobra.Command{
		Use: "use [OPTIONS] [NAME]", Short: "Point docker at a machine, or at the fleet, from now on", Args: atMostOne, ValidArgsFunction: p.completeNames,
		Long: `Switch the docker client to the context of a machine, in all shells and from now on. "berth" is the fleet that
berth serve serves, unless a machine is called so.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if (o.fleet || o.unset) && len(names) > 0 || o.fleet && o.unset {
				return &usageError{errors.New("name a machine, or say --fleet, or --unset"), cmd.CommandPath()}
			}
			return p.runUse(names, o)
		},
	}
	cmd.Flags().BoolVar(&o.fleet, "fleet", false, "Point docker at all machines as one, which berth serve serves")
	cmd.Flags().BoolVarP(&o.unset, "unset", "u", false, "Point docker at what it uses without any context")
	return cmd
}

func (p *program) runUse(names []string, o useOptions) error {
	contexts, err := dockercontext.Open()
	if err != nil {
		return err
	}
	s, err := p.store()
	if err != nil {
		return err
	}
	if len(names) == 1 && names[0] == contextName && !s.Exists(contextName) {
		o.fleet = true
	}
	context, what := "default", "its own default"
	switch {
	case o.unset:
	case o.fleet:
		if has, err := contexts.Has(contextName, ""); err != nil || !has {
			return errors.Join(err, errors.New("nobody has served a fleet here: berth serve does, and makes its docker context"))
		}
		context, what = contextName, "the fleet"
	default:
		h, err := p.host(names)
		if err != nil {
			return err
		}
		if err := putContext(contexts, h.store, h.Name); err != nil {
			return err
		}
		context, what = machineContext(h.Name), fmt.Sprintf("machine %q", h.Name)
	}
	if err := contexts.Use(context); err != nil {
		return err
	}
	p.say("docker now talks to %s (context %s)", what, context)
	p.warnOfWinners()
	return nil
}

// warnOfWinners names what goes before a context.
func (p *program) warnOfWinners() {
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT"} {
		if v := os.Getenv(name); v != "" {
			p.warn("In this shell %s=%s wins over it: unset %s", name, v, name)
		}
	}
}
