package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/discovery"
)

func (p *program) discoveryCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "discovery", Short: "The service where members of a fleet find each other"}
	cmd.AddCommand(p.discoveryServeCmd())
	return cmd
}

func (p *program) discoveryServeCmd() *cobra.Command {
	o := &tokenFlags{}
	log := &serveOptions{} // for its flags of logging
	cmd := &cobra.Command{
		Use:   "serve [OPTIONS]",
		Short: "Serve tokens: lists of members that agents keep and managers follow",
		Long: `Serve tokens: lists of members that agents keep and managers follow.

    berth swarm create                        # a new token, as a discovery URL
    berth join --advertise 10.0.0.1:2376 URL  # an agent per engine
    berth serve URL                           # a manager

A manager can do it as well: berth serve --token-service.
Who knows a token can change its members, so beyond this computer the service wants a certificate (--tlscert, --tlskey);
the URLs are then token://, else token+http://.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.serveTokens(cmd.Context(), o, log) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.host, "host", "H", defaultService, "`HOST:PORT` to listen on")
	f.StringVar(&o.data, "data", "", "`FILE` that keeps the tokens (default: discovery.db in the machine store)")
	f.StringVar(&o.tls.cert, "tlscert", "", "Certificate to show to clients")
	f.StringVar(&o.tls.key, "tlskey", "", "Its private key")
	f.BoolVar(&o.insecure, "insecure", false, "Serve beyond this computer without TLS: on networks where nobody listens in")
	f.StringVarP(&log.logLevel, "log-level", "l", "info", "debug, info, warn, error")
	f.StringVar(&log.logFormat, "log-format", "text", "text or json")
	return cmd
}

func (p *program) serveTokens(ctx context.Context, o *tokenFlags, logging *serveOptions) error {
	log, err := logging.logger(p)
	if err != nil {
		return err
	}
	o.tls.enable = o.tls.cert != "" || o.tls.key != ""
	if err := o.tls.check(); err != nil {
		return err
	}
	s, err := p.openTokens(ctx, o, "-H tcp://", "give --tlscert and --tlskey, listen on 127.0.0.1, or say --insecure")
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // every change was written when it was made
	s.tell(log)
	return s.run(ctx)
}

// swarmCreateCmd makes a token.
func (p *program) swarmCreateCmd() *cobra.Command {
	var base string
	var options []string
	cmd := &cobra.Command{
		Use: "create", Aliases: []string{"c"}, Short: "Make a token at a discovery service, and print its discovery URL", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, err := discovery.NewToken(cmd.Context(), base, discoveryOptions(options))
			if err != nil {
				return fmt.Errorf("%w\nThe service is `berth discovery serve`; --discovery-url or BERTH_DISCOVERY says where it is", err)
			}
			p.say("%s", url)
			return nil
		},
	}
	cmd.Flags().StringVar(&base, "discovery-url", cmp.Or(os.Getenv("BERTH_DISCOVERY"), "http://"+defaultService), "`URL` of the service [$BERTH_DISCOVERY]")
	cmd.Flags().StringArrayVar(&options, "discovery-opt", nil, discoveryOptUsage)
	return cmd
}

// swarmListCmd shows the members.
func (p *program) swarmListCmd() *cobra.Command {
	var timeout time.Duration
	var options []string
	cmd := &cobra.Command{
		Use: "list [DISCOVERY]", Aliases: []string{"l"}, Short: "List the members that a discovery service knows", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout <= 0 {
				return errors.New("--timeout should be a positive number")
			}
			url, err := discoveryURL(args)
			if err != nil {
				return err
			}
			return p.listMembers(cmd.Context(), url, timeout, options)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "How long to wait for the list")
	cmd.Flags().StringArrayVar(&options, "discovery-opt", nil, discoveryOptUsage)
	return cmd
}

func (p *program) listMembers(ctx context.Context, url string, timeout time.Duration, options []string) error {
	var trouble error
	o := discoveryOptions(options)
	o.Warn = func(err error) { trouble = err }
	source, err := discovery.Parse(url, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var members []string
	heard := false
	err = source.Watch(ctx, func(addrs []string) {
		members, heard = addrs, true
		cancel()
	})
	switch {
	case err != nil:
		return err
	case trouble != nil:
		return trouble
	case !heard:
		return errors.New("Timed out") //nolint:staticcheck,revive // classic Swarm's text
	}
	for _, m := range members {
		p.say("%s", m)
	}
	return nil
}
