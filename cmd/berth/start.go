package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

const newAddresses = " machines may have new IP addresses. You may need to re-run the `%s env` command."

func (p *program) startCmd() *cobra.Command {
	return &cobra.Command{
		Use: "start [NAME...]", Short: "Start machines", ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			err := p.onHosts(cmd.Context(), names, func(ctx context.Context, h host) error {
				p.say("Starting %q...", h.Name)
				if err := machine.Start(ctx, h.store, h.driver, h.Machine, p.about(h)); err != nil {
					return err
				}
				p.say("Machine %q was started.", h.Name)
				return nil
			})
			if err == nil {
				p.say("Started"+newAddresses, p.name)
			}
			return err
		},
	}
}

// onHosts does something to all named machines at once.
func (p *program) onHosts(ctx context.Context, names []string, do func(context.Context, host) error) error {
	hosts, err := p.hosts(names)
	if err != nil {
		return err
	}
	defer p.refreshContexts(hosts[0].store)
	return each(ctx, hosts, do)
}

// about prints lines of progress on one machine.
func (p *program) about(h host) func(string) {
	return func(line string) { p.say("(%s) %s", h.Name, line) }
}
