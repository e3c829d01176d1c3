package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

func (p *program) configCmd() *cobra.Command {
	swarm := false
	cmd := &cobra.Command{
		Use: "config [OPTIONS] [NAME]", Short: "Show the flags with which docker talks to a machine", Args: atMostOne, ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			h, endpoint, err := p.connect(cmd.Context(), names, swarm)
			if err != nil {
				return fmt.Errorf("Error running connection boilerplate: %w", err) //nolint:staticcheck,revive // docker-machine's text
			}
			if h.UsesTLS() {
				f := h.store.CertFiles(h.Machine)
				p.say("--tlsverify\n--tlscacert=\"%s\"\n--tlscert=\"%s\"\n--tlskey=\"%s\"", f.CA, f.Cert, f.Key)
			}
			p.say("-H=%s", endpoint)
			return nil
		},
	}
	cmd.Flags().BoolVar(&swarm, "swarm", false, "Show the flags for the Swarm that the machine manages")
	return cmd
}

// connect finds the machine and makes sure that its engine, or its Swarm's manager, lets us in, so that what is printed then works.
func (p *program) connect(ctx context.Context, names []string, swarm bool) (h host, endpoint string, err error) {
	h, err = p.host(names)
	if err != nil {
		return h, "", err
	}
	if swarm && h.ManagerURL() == "" {
		return h, "", fmt.Errorf("%q is not a swarm master. The --swarm flag is intended for use with swarm masters", h.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if err := p.checkTLS(ctx, h); err != nil {
		return h, "", fmt.Errorf("Error checking TLS connection: %w", err) //nolint:staticcheck,revive // docker-machine's text
	}
	if !swarm {
		return h, h.URL(), nil
	}
	if _, err := h.store.AskManager(ctx, h.Machine); err != nil {
		return h, "", fmt.Errorf("Error checking TLS connection: Connection to Swarm cannot be checked but the certs are valid. Maybe swarm is not started: %w%s", err, p.managerAdvice(h)) //nolint:staticcheck,revive // docker-machine's text
	}
	return h, h.ManagerURL(), nil
}

// managerAdvice is where to look for a manager that does not answer.
func (p *program) managerAdvice(h host) string {
	_, here := h.driver.(machine.Enterer)
	switch {
	case !h.Services:
		return "\nberth has started none there; one endpoint over all machines of the store is: berth serve"
	case here:
		return fmt.Sprintf("\nIts log is %s. It starts with the machine: %s restart %s", filepath.Join(h.store.MachineDir(h.Name), "local", "manager.log"), p.name, h.Name)
	}
	return fmt.Sprintf("\nSee how it does: %[1]s ssh %[2]s systemctl status berth-manager. Or put it in order: %[1]s provision %[2]s", p.name, h.Name)
}

func (p *program) checkTLS(ctx context.Context, h host) error {
	if err := mustRun(ctx, h); err != nil {
		return err
	}
	_, unusable := h.store.ClientTLS(h.Machine)
	_, err := h.store.AskEngine(ctx, h.Machine)
	if err == nil {
		return nil
	}
	if unusable == nil && !aboutCertificates(err) {
		if _, ok := h.driver.(machine.Power); ok {
			err = fmt.Errorf("%w\nIf it does not come back by itself: %s restart %s", err, p.name, h.Name)
		}
		return err
	}
	return fmt.Errorf("Error checking and/or regenerating the certs: There was an error validating certificates for host %q: %w\n"+ //nolint:staticcheck,revive // docker-machine's text
		"You can attempt to regenerate them using '%s regenerate-certs %s'.\n"+
		"Be advised that this will trigger a Docker daemon restart which might stop running containers.",
		strings.TrimPrefix(h.URL(), "tcp://"), err, p.name, h.Name)
}

// aboutCertificates tells whether new certificates could help.
func aboutCertificates(err error) bool {
	var (
		refused *tls.CertificateVerificationError // ours of the engine's
		alert   *net.OpError                      // the engine's of ours
	)
	return errors.As(err, &refused) || errors.As(err, &alert) && alert.Op == "remote error"
}
