package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

func (p *program) killCmd() *cobra.Command {
	return &cobra.Command{
		Use: "kill [NAME...]", Short: "Kill machines: stop them at once", ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.onHosts(cmd.Context(), names, func(ctx context.Context, h host) error {
				p.say("Killing %q...", h.Name)
				if err := machine.Kill(ctx, h.store, h.driver, h.Machine); err != nil {
					return err
				}
				p.say("Machine %q was killed.", h.Name)
				return nil
			})
		},
	}
}
