package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/internal/machine"
	"berth/internal/term"
)

func (p *program) regenerateCertsCmd() *cobra.Command {
	var force, client bool
	cmd := &cobra.Command{
		Use: "regenerate-certs [OPTIONS] [NAME...]", Short: "Give machines new certificates", ValidArgsFunction: p.completeNames,
		Long: "Give machines new certificates. Their engines are restarted with them.",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.runRegenerateCerts(cmd.Context(), names, force, client)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not ask")
	cmd.Flags().BoolVar(&client, "client-certs", false, "Renew the client's certificate too")
	return cmd
}

func (p *program) runRegenerateCerts(ctx context.Context, names []string, force, client bool) error {
	hosts, err := p.hosts(names)
	if err != nil {
		return err
	}
	if !force {
		sure, err := term.Confirm(p.in, p.out, "Regenerate TLS machine certs?  Warning: this is irreversible.")
		if err != nil || !sure {
			return err
		}
	}
	p.say("Regenerating TLS certificates")
	if client {
		if err := machine.RenewClientCert(ctx, hosts[0].store, hosts[0].Machine); err != nil {
			return err
		}
	}
	return each(ctx, hosts, func(ctx context.Context, h host) error {
		return machine.RenewCerts(ctx, h.store, h.driver, h.Machine, p.about(h))
	})
}
