package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/machine"
	"berth/internal/term"
)

func (p *program) rmCmd() *cobra.Command {
	var force, yes bool
	cmd := &cobra.Command{
		Use:               "rm [OPTIONS] NAME [NAME...]",
		Short:             "Remove machines",
		ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				return &usageError{errors.New("Error: Expected to get one or more machine names as arguments"), cmd.CommandPath()} //nolint:revive,staticcheck // docker-machine's text
			}
			return p.runRm(cmd.Context(), unique(names), force, yes)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not ask, and forget the machine even if its host cannot be removed")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	return cmd
}

func (p *program) runRm(ctx context.Context, names []string, force, yes bool) error {
	s, err := p.store()
	if err != nil {
		return err
	}
	p.say("About to remove %s", strings.Join(names, ", "))
	p.warn("WARNING: This action will delete both local reference and remote instance.")
	if !force && !yes {
		sure, err := term.Confirm(p.in, p.out, "Are you sure?")
		if err != nil || !sure {
			return err
		}
	}
	err = each(ctx, names, func(ctx context.Context, name string) error {
		err := p.remove(ctx, s, name, force)
		if !s.Exists(name) {
			p.dropContext(s, name)
		}
		if err != nil {
			return &removeError{name, err}
		}
		p.say("Successfully removed %s", name)
		return nil
	})
	if err != nil && force {
		p.warn("%s", p.explain(err))
		return nil
	}
	return err
}

// remove removes one machine. With force its record goes also where its host cannot be reached, or the record not be read.
func (p *program) remove(ctx context.Context, s *machine.Store, name string, force bool) error {
	h, err := p.load(s, name)
	if err == nil {
		return machine.Remove(ctx, s, h.driver, h.Machine, force)
	}
	if s.OnlyReserved(name) {
		return machine.Forget(s, name)
	}
	var missing *machine.NotExistError
	if errors.As(err, &missing) {
		return err
	}
	if force {
		return errors.Join(fmt.Errorf("only the record is removed, there may be a host yet: %w", err), machine.Forget(s, name))
	}
	return fmt.Errorf("%w\nTo remove only what the store holds of it: %s rm -f %s", err, p.name, name)
}

// removeError is an error with the name of the machine that is still there.
type removeError struct {
	name string
	err  error
}

func (e *removeError) Error() string {
	return fmt.Sprintf("Error removing host %q: %s", e.name, strings.ReplaceAll(e.err.Error(), "\n", "\n  "))
}
func (e *removeError) Unwrap() error { return e.err }
