package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

func (p *program) saveCmd() *cobra.Command {
	return &cobra.Command{
		Use: "save [NAME...]", Short: "Save machines: keep their memory on disk and switch them off", ValidArgsFunction: p.completeNames,
		Long: `Keep the memory of machines on disk and switch them off. Starting one goes on where it was, with its containers running.
Not every driver can do that; virtual machines of qemu can.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.onHosts(cmd.Context(), names, func(ctx context.Context, h host) error {
				p.say("Saving %q...", h.Name)
				if err := machine.Save(ctx, h.store, h.driver, h.Machine); err != nil {
					return err
				}
				p.say("Machine %q was saved.", h.Name)
				return nil
			})
		},
	}
}
