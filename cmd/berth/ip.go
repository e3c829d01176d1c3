package main

import (
	"context"
	"fmt"

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
	state, err := machine.AskState(ctx, h.store, h.driver, h.Machine)
	if err != nil {
		return err
	}
	if state != machine.StateRunning {
		return fmt.Errorf("machine %q: %w", h.Name, machine.ErrNotRunning)
	}
	return nil
}
