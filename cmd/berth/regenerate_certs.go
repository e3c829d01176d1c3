package main

import (
	"context"
	"slices"

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
	defer p.refreshContexts(hosts[0].store)
	if client {
		if err := p.renewClientCerts(ctx, hosts); err != nil {
			return err
		}
	}
	return each(ctx, hosts, func(ctx context.Context, h host) error {
		return machine.RenewCerts(ctx, h.store, h.driver, h.Machine, p.about(h))
	})
}

// renewClientCerts renews what the machines' clients have: one certificate for all, but for machines that brought their own.
func (p *program) renewClientCerts(ctx context.Context, hosts []host) error {
	var renewed []string
	for _, h := range hosts {
		if slices.Contains(renewed, h.Auth.ClientCertPath) {
			continue
		}
		renewed = append(renewed, h.Auth.ClientCertPath)
		if err := machine.RenewClientCert(ctx, h.store, h.Machine, p.about(h)); err != nil {
			return err
		}
	}
	return nil
}
