package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
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

// connect finds the machine and makes sure that its engine lets us in, so that what is printed then works.
func (p *program) connect(ctx context.Context, names []string, swarm bool) (h host, endpoint string, err error) {
	h, err = p.host(names)
	if err != nil {
		return h, "", err
	}
	if swarm {
		return h, "", swarmAnswer(h)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if err := p.checkTLS(ctx, h); err != nil {
		return h, "", fmt.Errorf("Error checking TLS connection: %w", err) //nolint:staticcheck,revive // docker-machine's text
	}
	return h, h.URL(), nil
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

// swarmAnswer is why there is no Swarm to point at, and what to use in its place.
func swarmAnswer(h host) error {
	if !h.Swarm.Master {
		return fmt.Errorf("%q is not a swarm master. The --swarm flag is intended for use with swarm masters", h.Name)
	}
	return errors.New("machines do not run a Swarm manager of their own: `berth serve` gives one endpoint over all machines, and `docker context use berth` points docker at it")
}

// swarmURL is where docker-machine would have run the machine's Swarm manager; "" if it is none.
func swarmURL(m *machine.Machine) string {
	if !m.Swarm.Master {
		return ""
	}
	i := strings.LastIndex(m.Swarm.Host, ":")
	if i < 0 || m.Instance.IPAddress == "" {
		return ""
	}
	return "tcp://" + m.Instance.IPAddress + m.Swarm.Host[i:]
}
