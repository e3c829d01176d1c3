package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"berth/internal/discovery"
	"berth/internal/membership"
)

// defaultService is where `berth discovery serve` listens, and where tokens are asked for.
const defaultService = "127.0.0.1:2380"

func (p *program) discoveryCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "discovery", Short: "The service where members of a fleet find each other"}
	cmd.AddCommand(p.discoveryServeCmd())
	return cmd
}

// tokenService are the flags of `berth discovery serve`.
type tokenService struct {
	host     string
	data     string
	tls      tlsFlags
	insecure bool
	log      serveOptions // for its flags of logging
}

func (p *program) discoveryServeCmd() *cobra.Command {
	o := &tokenService{}
	cmd := &cobra.Command{
		Use:   "serve [OPTIONS]",
		Short: "Serve tokens: lists of members that agents keep and managers follow",
		Long: `Serve tokens: lists of members that agents keep and managers follow.

    berth swarm create                        # a new token, as a discovery URL
    berth join --advertise 10.0.0.1:2376 URL  # an agent per engine
    berth serve URL                           # a manager

Who knows a token can change its members, so beyond this computer the service wants a certificate (--tlscert, --tlskey);
the URLs are then token://, else token+http://.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.serveTokens(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.host, "host", "H", defaultService, "`HOST:PORT` to listen on")
	f.StringVar(&o.data, "data", "", "`FILE` that keeps the tokens (default: discovery.db in the machine store)")
	f.StringVar(&o.tls.cert, "tlscert", "", "Certificate to show to clients")
	f.StringVar(&o.tls.key, "tlskey", "", "Its private key")
	f.BoolVar(&o.insecure, "insecure", false, "Serve beyond this computer without TLS: on networks where nobody listens in")
	f.StringVarP(&o.log.logLevel, "log-level", "l", "info", "debug, info, warn, error")
	f.StringVar(&o.log.logFormat, "log-format", "text", "text or json")
	return cmd
}

func (p *program) serveTokens(ctx context.Context, o *tokenService) error {
	log, err := o.log.logger(p)
	if err != nil {
		return err
	}
	o.tls.enable = o.tls.cert != "" || o.tls.key != ""
	if err := o.tls.check(); err != nil {
		return err
	}
	l, err := openTCP(ctx, "-H tcp://", o.host, &o.tls, o.tls.enable || o.insecure,
		"beyond this computer the tokens would be for all to read: give --tlscert and --tlskey, listen on 127.0.0.1, or say --insecure")
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the server closes it first
	if o.data == "" {
		store, err := p.store()
		if err != nil {
			return err
		}
		o.data = filepath.Join(store.Dir(), "discovery.db")
	}
	if err := ensureDir(filepath.Dir(o.data)); err != nil {
		return err
	}
	s, err := membership.Open(o.data)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // every change was written when it was made
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return server.Close() // readers that wait ask again
	})
	log.Info("serving tokens", "addr", l.Addr().String(), "data", o.data)
	return g.Wait()
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
