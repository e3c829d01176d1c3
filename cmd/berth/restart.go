package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

func (p *program) restartCmd() *cobra.Command {
	return &cobra.Command{
		Use: "restart [NAME...]", Short: "Restart machines", ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			err := p.onHosts(cmd.Context(), names, func(ctx context.Context, h host) error {
				p.say("Restarting %q...", h.Name)
				if err := machine.Restart(ctx, h.store, h.driver, h.Machine, p.about(h)); err != nil {
					return err
				}
				p.say("Machine %q was restarted.", h.Name)
				return nil
			})
			if err == nil {
				p.say("Restarted"+newAddresses, p.name)
			}
			return err
		},
	}
}
