package main

import (
	"github.com/spf13/cobra"

	"berth/internal/machine"
)

func (p *program) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status [NAME]", Short: "Show the state of a machine", Args: atMostOne, ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			h, err := p.host(names)
			if err != nil {
				return err
			}
			state, err := machine.AskState(cmd.Context(), h.store, h.driver, h.Machine)
			if err != nil {
				p.warn("%s: %v", h.Name, err)
			}
			p.say("%s", state)
			return nil
		},
	}
}
