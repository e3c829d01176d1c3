package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"berth/internal/api"
	"berth/internal/fleet"
	"berth/internal/term"
)

const rebalanceFormat = `table {{.Name}}\t{{.From}}\t{{.To}}\t{{.Why}}`

// rebalance are the flags of berth rebalance.
type rebalance struct {
	endpointFlags
	plan, apply bool
	limit       int
	format      string
}

func (p *program) rebalanceCmd() *cobra.Command {
	o := &rebalance{}
	cmd := &cobra.Command{
		Use: "rebalance [OPTIONS]", Short: "Even the fleet out, as after nodes came or came back", Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		Long: `Even the fleet out, as after nodes came or came back.

A container is moved if it were placed elsewhere, were it new, with a better score of the strategy, and if it can move without its volumes;
those that help most go first. Each is down while it moves.

    berth rebalance --plan              # only tell
    berth rebalance --apply --limit 5   # move five at most, one after the other`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.plan == o.apply {
				return &usageError{errors.New("say --plan or --apply"), cmd.CommandPath()}
			}
			return o.onFleet(func(e *fleetEndpoint) error { return p.rebalance(cmd.Context(), e, o) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.plan, "plan", false, "Print what would move, and why")
	f.BoolVar(&o.apply, "apply", false, "Move it")
	f.IntVar(&o.limit, "limit", 10, "Containers to move at most")
	f.StringVar(&o.format, "format", rebalanceFormat, "Of the plan: Go template, with 'table ' in front for a header; or json")
	o.add(f)
	return cmd
}

func (p *program) rebalance(ctx context.Context, e *fleetEndpoint, o *rebalance) error {
	var plan api.Rebalancing
	if err := e.do(ctx, http.MethodGet, fmt.Sprintf("/berth/rebalance?limit=%d", o.limit), http.Header{}, nil, &plan); err != nil {
		return err
	}
	if len(plan.Shifts) == 0 {
		p.warn("Nothing to move: of %d containers that can, none would be better off elsewhere.", plan.Considered)
	}
	if o.plan {
		columns := term.Columns{"Name": "CONTAINER", "From": "FROM", "To": "TO", "Why": "WHY", "ID": "ID"}
		return term.Table(p.out, o.format, columns, plan.Shifts)
	}
	var failed error
	for _, s := range plan.Shifts {
		if err := e.shift(ctx, s); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		p.say("%s: moved from %s to %s", s.Name, s.From, s.To)
	}
	return failed
}

func (e *fleetEndpoint) shift(ctx context.Context, s fleet.Shift) error {
	var moved fleet.Moved
	return e.do(ctx, http.MethodPost, "/berth/containers/"+s.ID+"/move?to="+url.QueryEscape(s.To), http.Header{}, nil, &moved)
}
