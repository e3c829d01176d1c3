package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

func (p *program) stopCmd() *cobra.Command {
	return &cobra.Command{
		Use: "stop [NAME...]", Short: "Stop machines", ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.onHosts(cmd.Context(), names, func(ctx context.Context, h host) error {
				p.say("Stopping %q...", h.Name)
				if err := machine.Stop(ctx, h.store, h.driver, h.Machine); err != nil {
					return err
				}
				p.say("Machine %q was stopped.", h.Name)
				return nil
			})
		},
	}
}
