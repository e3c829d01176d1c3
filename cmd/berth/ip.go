package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

func (p *program) ipCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ip [NAME...]", Short: "Show the addresses of machines", ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			hosts, err := p.hosts(names)
			if err != nil {
				return err
			}
			if err := each(cmd.Context(), hosts, mustRun); err != nil {
				return err
			}
			for _, h := range hosts { // in the order they were asked for
				p.say("%s", h.Instance.IPAddress)
			}
			return nil
		},
	}
}

// mustRun is an error unless the machine runs.
func mustRun(ctx context.Context, h host) error {
	return machine.MustRun(ctx, h.store, h.driver, h.Machine)
}
