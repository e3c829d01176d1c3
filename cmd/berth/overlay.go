package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/api"
	"berth/internal/cluster"
	"berth/internal/fleet"
	"berth/internal/overlay"
	"berth/internal/term"
)

// overlayFlags are how networks across hosts are to be, of `berth serve` and of `berth overlay up`.
type overlayFlags struct {
	on bool
	overlay.Settings
}

func (o *overlayFlags) flags(f *pflag.FlagSet, prefix string) {
	f.BoolVar(&o.Encrypted, prefix+"encrypted", false, "Encrypt new overlay networks (the hosts' kernels need ESP)")
	f.IntVar(&o.MTU, prefix+"mtu", 0, "Largest packet of the links between the hosts (default what their engines have for bridges)")
	f.StringVar(&o.DataInterface, prefix+"data-interface", "", "Interface or address of each host for the networks' packets (default that of the node's address)")
	f.StringVar(&o.Pool, prefix+"pool", "", "Addresses that subnets are taken from, as 10.192.0.0/12 (default a range that no host is in)")
}

// The least MTU leaves room for a packet of IPv6 inside.
const leastMTU, mostMTU = 1350, 65535

func (o *overlayFlags) check(prefix string) error {
	if o.MTU != 0 && (o.MTU < leastMTU || o.MTU > mostMTU) {
		return fmt.Errorf("%smtu %d: want %d to %d", prefix, o.MTU, leastMTU, mostMTU)
	}
	if o.Pool == "" {
		return nil
	}
	p, err := netip.ParsePrefix(o.Pool)
	if err != nil || !p.Addr().Is4() || p.Bits() > 24 {
		return fmt.Errorf("%spool %s: want a range of IPv4 addresses of /24 or more", prefix, o.Pool)
	}
	return nil
}

func newOverlay(c *cluster.Cluster, o *serveOptions, log *slog.Logger, among *replicated) *overlay.Keeper {
	options := overlay.DefaultOptions()
	options.Fleet, options.APIMax, options.On, options.Settings, options.Log = c, o.apiMax, o.overlay.on, o.overlay.Settings, log
	if among != nil {
		options.Check = among.inOffice
	}
	return overlay.New(options)
}

// overlays is the keeper as the API knows it.
type overlays struct{ *overlay.Keeper }

func (o *overlays) Up(ctx context.Context, wish api.OverlayWish) error {
	if !wish.Settings {
		return o.Keeper.Up(ctx, nil)
	}
	return o.Keeper.Up(ctx, &overlay.Settings{Encrypted: wish.Encrypted, MTU: wish.MTU, DataInterface: wish.DataInterface, Pool: wish.Pool})
}

func (p *program) overlayCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "overlay", Short: "Networks across hosts: containers on different nodes in one network, found by name",
		Long: `Networks across hosts: containers on different nodes in one network, found by name.

Docker's own Swarm mode carries them: berth serve forms it over the engines of the fleet and keeps it, or uses one that they are in already.
These commands ask berth serve to. See docs/networks.md.`,
	}
	cmd.AddCommand(p.overlayUpCmd(), p.overlayStatusCmd(), p.overlayDownCmd())
	for _, sub := range cmd.Commands() {
		sub.DisableFlagsInUseLine = true
		sub.ValidArgsFunction = cobra.NoFileCompletions
	}
	return cmd
}

func (p *program) overlayUpCmd() *cobra.Command {
	var at endpointFlags
	var o overlayFlags
	var force bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "up [OPTIONS]", Short: "Have them", Args: noArgs,
		Long: `Have networks across hosts, from now on: berth serve forms Swarm mode over the nodes, and keeps it after a restart too.

With --force-new-cluster, when the swarm has lost most of its managers for good: what is left of it works again. If a manager is left,
all networks and containers stay as they are. If none is, the networks are made anew, and running containers connected to them again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check("--"); err != nil {
				return err
			}
			wish := api.OverlayWish{Encrypted: o.Encrypted, MTU: o.MTU, DataInterface: o.DataInterface, Pool: o.Pool, ForceNewCluster: force}
			for _, name := range []string{"encrypted", "mtu", "data-interface", "pool"} {
				wish.Settings = wish.Settings || cmd.Flags().Changed(name)
			}
			return at.onFleet(func(e *fleetEndpoint) error { return p.overlayUp(cmd.Context(), e, wish, limit) })
		},
	}
	f := cmd.Flags()
	o.flags(f, "")
	f.BoolVar(&force, "force-new-cluster", false, "Have what is left of a swarm without a quorum work again")
	f.DurationVar(&limit, "wait", 2*time.Minute, "How long to wait until all nodes have joined")
	at.add(f)
	return cmd
}

// overlayEvery is how often the command looks how far it is.
const overlayEvery = 300 * time.Millisecond

func (p *program) overlayUp(ctx context.Context, e *fleetEndpoint, wish api.OverlayWish, limit time.Duration) error {
	var s fleet.OverlayStatus
	if err := e.do(ctx, http.MethodPost, "/berth/overlay/up", http.Header{}, wish, &s); err != nil {
		return err
	}
	for began := time.Now(); s.State != "ready"; {
		if time.Since(began) > limit {
			return errors.New("overlay networks are " + s.State + " after " + limit.String() + ": " + strings.Join(s.Problems, "; "))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(overlayEvery):
		}
		if err := e.do(ctx, http.MethodGet, "/berth/overlay", http.Header{}, nil, &s); err != nil {
			return err
		}
	}
	p.say("Overlay networks are ready: %d nodes, %d of them managers", s.Members, s.Managers)
	for _, problem := range s.Problems {
		p.warn("%s", problem)
	}
	return nil
}

const overlayFormat = `table {{.Name}}\t{{.Role}}\t{{.State}}\t{{.Addr}}\t{{.Reason}}`

func (p *program) overlayStatusCmd() *cobra.Command {
	var at endpointFlags
	var format string
	cmd := &cobra.Command{
		Use: "status [OPTIONS]", Short: "Tell how they are, node by node", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return at.onFleet(func(e *fleetEndpoint) error {
				var s fleet.OverlayStatus
				if err := e.do(cmd.Context(), http.MethodGet, "/berth/overlay", http.Header{}, nil, &s); err != nil {
					return err
				}
				if format == "json" {
					return p.sayJSON(s)
				}
				return p.overlayStatus(s, format)
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", overlayFormat, "Of the nodes: Go template, with 'table ' in front for a header; or json for all")
	at.add(cmd.Flags())
	return cmd
}

func (p *program) overlayStatus(s fleet.OverlayStatus, format string) error {
	if format == overlayFormat {
		p.say("Overlay networks: %s", s.State)
		if s.Swarm != "" {
			whose := "that somebody else formed"
			if s.Ours {
				whose = "that berth formed"
			}
			p.say("Swarm: %s, %s; %d of %d managers reach each other", s.Swarm, whose, s.Reachable, s.Managers)
		}
		if s.Encrypted {
			p.say("New networks are encrypted")
		}
		if s.MTU > 0 {
			p.say("MTU of the hosts' links: %d", s.MTU)
		}
		for _, n := range s.Networks {
			p.say("Network %s: %d running containers", n.Name, len(n.Containers))
		}
		for _, problem := range s.Problems {
			p.warn("%s", problem)
		}
		if len(s.Nodes) == 0 {
			return nil
		}
	}
	columns := term.Columns{"Name": "NODE", "Role": "ROLE", "State": "STATE", "Addr": "ADDRESS", "Reason": "WHY NOT"}
	return term.Table(p.out, format, columns, s.Nodes)
}

func (p *program) overlayDownCmd() *cobra.Command {
	var at endpointFlags
	var force bool
	cmd := &cobra.Command{
		Use: "down [OPTIONS]", Short: "Have them no more", Args: noArgs,
		Long: `Have networks across hosts no more: the nodes leave the swarm, and its networks end with it. One that somebody else formed goes on;
only the nodes that joined it for berth leave.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return at.onFleet(func(e *fleetEndpoint) error {
				path := "/berth/overlay/down"
				if force {
					path += "?force=1"
				}
				if err := e.do(cmd.Context(), http.MethodPost, path, http.Header{}, nil, nil); err != nil {
					return err
				}
				p.say("Overlay networks are gone")
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Also while containers use them, which are disconnected")
	at.add(cmd.Flags())
	return cmd
}
