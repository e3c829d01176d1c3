package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"berth/internal/machine"
	"berth/internal/term"
)

func (p *program) provisionCmd() *cobra.Command {
	f := progressFlags{}
	cmd := &cobra.Command{
		Use: "provision [NAME...]", Short: "Re-provision existing machines", ValidArgsFunction: p.completeNames,
		Long: `Bring machines to what was asked for when they were created: Docker, its options, its certificates. Where a create
stopped on the way, it is finished. On a machine that is as it should be nothing changes and nothing is restarted.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.workOn(cmd.Context(), names, f, machine.Provision)
		},
	}
	f.define(cmd.Flags())
	return cmd
}

func (p *program) upgradeCmd() *cobra.Command {
	f := progressFlags{}
	cmd := &cobra.Command{
		Use: "upgrade [NAME...]", Short: "Upgrade machines to the newest version of Docker", ValidArgsFunction: p.completeNames,
		Long: `Bring the engines of machines to the newest version that their hosts' packages have. An engine that is the newest goes
on running. A machine that is off is started first.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.workOn(cmd.Context(), names, f, p.upgradeOne)
		},
	}
	f.define(cmd.Flags())
	return cmd
}

func (p *program) upgradeOne(ctx context.Context, s *machine.Store, drv machine.Driver, m *machine.Machine, progress func(string)) error {
	if _, ok := drv.(machine.Power); ok && m.Unfinished == "" {
		state, err := machine.AskState(ctx, s, drv, m)
		if err == nil && state == machine.StateStopped {
			progress("Starting the machine...")
			if err := machine.Start(ctx, s, drv, m, progress); err != nil {
				return err
			}
		}
	}
	return machine.Upgrade(ctx, s, drv, m, progress)
}

// workOn does something that takes its time to all named machines at once, with a line for each step.
func (p *program) workOn(ctx context.Context, names []string, f progressFlags,
	do func(context.Context, *machine.Store, machine.Driver, *machine.Machine, func(string)) error,
) error {
	hosts, err := p.hosts(names)
	if err != nil {
		return err
	}
	var all []string
	for _, h := range hosts {
		all = append(all, h.Name)
	}
	style, err := f.parse(p)
	if err != nil {
		return err
	}
	defer p.refreshContexts(hosts[0].store)
	unfinished := slices.DeleteFunc(slices.Clone(hosts), func(h host) bool { return h.Unfinished == "" })
	err = p.showing(style, all, func(steps *term.Progress) error {
		return each(ctx, hosts, func(ctx context.Context, h host) (err error) {
			defer func() { steps.Done(h.Name, err) }()
			return do(ctx, h.store, h.driver, h.Machine, steps.For(h.Name))
		})
	})
	for _, h := range unfinished {
		if h.Unfinished == "" && !p.dropIn() { // what its create would have done at its end
			p.offerMachineContexts(h.store, h.Name)
		}
	}
	return err
}
