package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/dockercontext"
	"berth/internal/machine"
	"berth/internal/term"
)

type gcOptions struct {
	dryRun bool
	every  span
}

func (p *program) gcCmd() *cobra.Command {
	o := gcOptions{}
	cmd := &cobra.Command{
		Use: "gc [OPTIONS]", Short: "Remove machines whose time is over, and stop idle ones", Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		Long: `Remove machines whose --ttl is over, and stop those that ran no container for their --idle-stop. Other machines are
left alone. It is meant to be called now and then, by cron or a timer, or to go on by itself with --every.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runGc(cmd.Context(), o) },
	}
	cmd.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "Only say what would be done")
	cmd.Flags().Var(&o.every, "every", "Go on, and look again after this time: 5m")
	return cmd
}

func (p *program) runGc(ctx context.Context, o gcOptions) error {
	if o.every == 0 {
		return p.gcOnce(ctx, o)
	}
	tick := time.NewTicker(time.Duration(o.every))
	defer tick.Stop()
	for {
		if err := p.gcOnce(ctx, o); err != nil && ctx.Err() == nil {
			p.warn("%s", p.explain(err)) // the next time may be better
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// lookTime is how long a machine may take to tell whether it is idle.
const lookTime = time.Minute

func (p *program) gcOnce(ctx context.Context, o gcOptions) error {
	all, err := p.findAll()
	if err != nil {
		return err
	}
	return each(ctx, all, func(ctx context.Context, f found) error {
		if f.host.Machine == nil || f.err != nil && f.host.Life == (machine.Lifetime{}) {
			return nil // nothing is known of its lifetime
		}
		if f.err != nil {
			return fmt.Errorf("machine %q: %w", f.name, f.err)
		}
		return p.gcOne(ctx, f.host, o.dryRun)
	})
}

func (p *program) gcOne(ctx context.Context, h host, dryRun bool) error {
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	due, err := machine.FindDue(look, h.store, h.driver, h.Machine)
	if err != nil {
		return err
	}
	verb, past := "stop", "stopped"
	if due.Remove {
		verb, past = "remove", "removed"
	}
	act := due.Remove || due.Stop
	if dryRun {
		if act {
			p.say("Would %s %s: %s", verb, h.Name, due.Why)
		}
		return nil
	}
	if err := due.Settle(ctx, h.store, h.driver, h.Machine); err != nil {
		var busy *machine.BusyError
		if errors.As(err, &busy) { // somebody does something about it already
			return nil
		}
		return err
	}
	if due.Remove {
		p.dropContext(h.store, h.Name)
	}
	if act {
		p.say("%s was %s: %s", h.Name, past, due.Why)
	}
	return nil
}

func (p *program) pruneCmd() *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Forget machines whose hosts are gone", Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		Long: `Forget machines of whose hosts their providers say that they are gone, names that a create took and left, and
docker contexts of machines that are no more. A machine that cannot be asked is kept.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runPrune(cmd.Context(), yes) },
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	return cmd
}

// dead is something that prune may forget.
type dead struct {
	what   string
	forget func(context.Context) error
}

func (p *program) runPrune(ctx context.Context, yes bool) error {
	list, err := p.findDead(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		p.say("Nothing to forget.")
		return nil
	}
	var lines []string
	for _, d := range list {
		lines = append(lines, "  "+d.what)
	}
	p.say("To be forgotten:\n%s", strings.Join(lines, "\n"))
	if !yes {
		sure, err := term.Confirm(p.in, p.out, "Are you sure?")
		if err != nil || !sure {
			return err
		}
	}
	return each(ctx, list, func(ctx context.Context, d dead) error { return d.forget(ctx) })
}

func (p *program) findDead(ctx context.Context) ([]dead, error) {
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	all, err := p.findAll()
	if err != nil {
		return nil, err
	}
	list := make([]*dead, len(all))
	places := make([]int, len(all))
	for i := range places {
		places[i] = i
	}
	_ = each(ctx, places, func(ctx context.Context, i int) error {
		list[i] = p.ifDead(ctx, s, all[i])
		return nil // what cannot be asked is said, and kept
	})
	var out []dead
	for _, d := range list {
		if d != nil {
			out = append(out, *d)
		}
	}
	contexts, err := p.deadContexts()
	return append(out, contexts...), err
}

// ifDead is nil for a machine that is to be kept.
func (p *program) ifDead(ctx context.Context, s *machine.Store, f found) *dead {
	if f.err != nil {
		if !s.OnlyReserved(f.name) {
			p.warn("%s is kept: %s", f.name, oneLine(f.err))
			return nil
		}
		return &dead{"machine " + f.name + ": its create was cut off before anything was made", func(context.Context) error {
			return machine.Forget(s, f.name)
		}}
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	gone, err := machine.IsDead(look, s, f.host.driver, f.host.Machine)
	if err != nil {
		p.warn("%s is kept: %s", f.name, oneLine(err))
	}
	if err != nil || !gone {
		return nil
	}
	return &dead{"machine " + f.name + ": its host is gone", func(ctx context.Context) error {
		// The driver may have more of it than the host: keys, addresses, rules.
		if err := machine.Remove(ctx, s, f.host.driver, f.host.Machine, false); err != nil {
			return err
		}
		p.dropContext(s, f.name)
		return nil
	}}
}

func (p *program) deadContexts() ([]dead, error) {
	contexts, err := dockercontext.Open()
	if err != nil {
		return nil, err
	}
	names, err := contexts.Abandoned()
	var list []dead
	for _, name := range names {
		list = append(list, dead{"docker context " + name + ": its machine is gone", func(context.Context) error {
			return contexts.Remove(name, "")
		}})
	}
	return list, err
}
