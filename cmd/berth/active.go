package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

var errNoActive = errors.New("No active host found") //nolint:revive,staticcheck // docker-machine's text

func (p *program) activeCmd() *cobra.Command {
	timeout := 10
	cmd := &cobra.Command{
		Use: "active", Short: "Show which machine is active: the one that $DOCKER_HOST names", Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.runActive(cmd.Context(), time.Duration(timeout)*time.Second)
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", timeout, "Seconds to wait for an answer")
	return cmd
}

// runActive asks only machines at that address, so a hung one elsewhere does not matter.
func (p *program) runActive(ctx context.Context, timeout time.Duration) error {
	endpoint := os.Getenv("DOCKER_HOST")
	if endpoint == "" {
		return errNoActive
	}
	all, err := p.findAll()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, f := range all {
		if f.err != nil || f.host.URL() != endpoint && f.host.ManagerURL() != endpoint {
			continue
		}
		state, err := machine.AskState(ctx, f.host.store, f.host.driver, f.host.Machine)
		if ctx.Err() != nil {
			return errors.New("Error getting active host: timeout") //nolint:revive,staticcheck // docker-machine's text
		}
		if err == nil && state == machine.StateRunning {
			p.say("%s", f.name)
			return nil
		}
	}
	return errNoActive
}
