package main

import "github.com/spf13/cobra"

func (p *program) urlCmd() *cobra.Command {
	return &cobra.Command{
		Use: "url [NAME]", Short: "Show the URL of a machine's engine", Args: atMostOne, ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			h, err := p.host(names)
			if err != nil {
				return err
			}
			if err := mustRun(cmd.Context(), h); err != nil {
				return err
			}
			p.say("%s", h.URL())
			return nil
		},
	}
}
