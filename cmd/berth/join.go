package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/discovery"
)

// joinOptions are the flags of `berth join`, classic Swarm's.
type joinOptions struct {
	advertise string
	heartbeat time.Duration
	ttl       time.Duration
	delay     time.Duration
	options   []string
	log       serveOptions // for its flags of logging
}

func (p *program) joinCmd() *cobra.Command {
	o := &joinOptions{}
	cmd := &cobra.Command{
		Use:   "join [OPTIONS] [DISCOVERY]",
		Short: "Keep an engine among the members of a fleet",
		Long: `Keep an engine among the members of a fleet: the agent of a Swarm.

The engine is advertised at DISCOVERY (or $SWARM_DISCOVERY), which must be a place that members can write to:
token://HOST:PORT/TOKEN of "berth swarm create", or a store, such as etcd://HOST,HOST/PREFIX.
It is advertised only while it answers, and leaves when berth join ends.`,
		Aliases: []string{"j"},
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.join(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.advertise, "advertise", firstOf(envList("SWARM_ADVERTISE")), "`HOST:PORT` where the manager reaches the engine [$SWARM_ADVERTISE]")
	f.StringVar(&o.advertise, "addr", "", "Same as --advertise")
	_ = f.MarkHidden("addr") // it was defined one line above
	f.DurationVar(&o.heartbeat, "heartbeat", time.Minute, "How often it is said that the engine is there")
	f.DurationVar(&o.ttl, "ttl", 3*time.Minute, "How long a membership lasts that is not renewed")
	f.DurationVar(&o.delay, "delay", 0, "Wait up to this long, by chance, before the first time")
	f.StringArrayVar(&o.options, "discovery-opt", nil, discoveryOptUsage)
	f.StringVarP(&o.log.logLevel, "log-level", "l", "info", "debug, info, warn, error")
	f.StringVar(&o.log.logFormat, "log-format", "text", "text or json")
	return cmd
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// check has classic Swarm's words.
func (o *joinOptions) check() error {
	if o.advertise == "" {
		return errors.New("missing mandatory --advertise flag")
	}
	host, port, err := net.SplitHostPort(o.advertise)
	n, notNumber := strconv.Atoi(port)
	switch {
	case err != nil || notNumber != nil || host == "" || n < 1 || n > 65535:
		return errors.New("--advertise should be of the form ip:port or hostname:port")
	case o.heartbeat < time.Second:
		return errors.New("--heartbeat should be at least one second")
	case o.ttl <= o.heartbeat:
		return errors.New("--ttl must be strictly superior to the heartbeat value")
	case o.delay < 0:
		return errors.New("--delay should not be a negative number")
	}
	return nil
}

// join advertises the engine until ctx ends.
func (p *program) join(ctx context.Context, o *joinOptions, args []string) error {
	if err := o.check(); err != nil {
		return err
	}
	log, err := o.log.logger(p)
	if err != nil {
		return err
	}
	url, err := discoveryURL(args)
	if err != nil {
		return err
	}
	options := discoveryOptions(o.options)
	options.Heartbeat, options.Warn = o.heartbeat, func(err error) { log.Warn("discovery", "error", err) }
	r, err := discovery.ParseRegistrar(url, options)
	if err != nil {
		return err
	}
	a := &agent{registrar: r, o: o, log: log}
	a.run(ctx)
	return errors.Join(a.leave(), r.Close())
}

// discoveryURL is the argument, or else the environment's: a URL may hold a token, and arguments are for all to see.
func discoveryURL(args []string) (string, error) {
	if urls := append(args, envList("SWARM_DISCOVERY")...); len(urls) > 0 {
		return urls[0], nil
	}
	return "", errors.New("discovery required: name the discovery service, or set SWARM_DISCOVERY")
}

// agent keeps one engine registered.
type agent struct {
	registrar discovery.Registrar
	o         *joinOptions
	log       *slog.Logger
	member    bool
	trouble   string
}

// aliveLimit is how long the engine has to give a sign of life.
const aliveLimit = 5 * time.Second

func (a *agent) run(ctx context.Context) {
	pause := time.Duration(0)
	if a.o.delay > 0 {
		pause = rand.N(a.o.delay)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = a.o.heartbeat
		if err := a.beat(ctx); err != nil && ctx.Err() == nil {
			if a.trouble != err.Error() {
				a.trouble = err.Error()
				a.log.Warn("not advertised", "engine", a.o.advertise, "error", err)
			}
			pause = min(pause, 5*time.Second)
		}
	}
}

// beat says once that the engine is there, if it is.
func (a *agent) beat(ctx context.Context) error {
	if err := engineAlive(ctx, a.o.advertise); err != nil {
		return fmt.Errorf("the engine does not answer: %w", err)
	}
	if err := a.registrar.Register(ctx, a.o.advertise, a.o.ttl); err != nil {
		return err
	}
	if !a.member || a.trouble != "" {
		a.log.Info("advertised", "engine", a.o.advertise, "ttl", a.o.ttl)
	}
	a.member, a.trouble = true, ""
	return nil
}

// leave takes the engine out at once, so that the fleet need not wait for the end of its time.
func (a *agent) leave() error {
	if !a.member {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), aliveLimit)
	defer cancel()
	if err := a.registrar.Leave(ctx, a.o.advertise); err != nil {
		return fmt.Errorf("leave: %w; the membership ends by itself within %s", err, a.o.ttl)
	}
	a.log.Info("left", "engine", a.o.advertise)
	return nil
}

// engineAlive asks the engine for a sign of life that needs no certificate: a TLS handshake, which a process that hangs does not
// answer, or a ping where it speaks plain HTTP. Who it is matters to the manager, not here.
func engineAlive(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, aliveLimit)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // nothing is sent or believed
	c, err := d.DialContext(ctx, "tcp", addr)
	var plain tls.RecordHeaderError
	switch {
	case err == nil:
		return c.Close()
	case !errors.As(err, &plain):
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/_ping", nil)
	if err != nil {
		return err
	}
	t := &http.Transport{DisableKeepAlives: true}
	res, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /_ping: %s", res.Status)
	}
	return nil
}
