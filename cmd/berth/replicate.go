package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"berth/internal/api"
	"berth/internal/cluster"
	"berth/internal/discovery"
	"berth/internal/discovery/consul"
	"berth/internal/discovery/etcd"
	"berth/internal/discovery/zk"
	"berth/internal/election"
	"berth/internal/intents"
	"berth/internal/move"
	"berth/internal/proxy"
	"berth/internal/replica"
	"berth/internal/rescue"
)

// replication are the flags of a manager that is one of several, classic Swarm's.
type replication struct {
	on        bool
	ttl       time.Duration
	advertise string
}

const defaultReplicationTTL = 20 * time.Second

func (r *replication) flags(f *pflag.FlagSet) {
	f.BoolVar(&r.on, "replication", false, "Be one of several managers, of which one is the primary: needs DISCOVERY by etcd, consul or zk")
	f.DurationVar(&r.ttl, "replication-ttl", defaultReplicationTTL, "How long a primary that says nothing stays primary")
	f.StringVar(&r.advertise, "advertise", os.Getenv("SWARM_ADVERTISE"), "`HOST:PORT` at which other managers reach this one [$SWARM_ADVERTISE]")
	f.StringVar(&r.advertise, "addr", os.Getenv("SWARM_ADVERTISE"), "Same as --advertise")
	_ = f.MarkHidden("addr") // it was defined one line above
}

// minReplicationTTL leaves time for three renewals between machines that are busy.
const minReplicationTTL = time.Second

func (r *replication) check() error {
	if !r.on {
		return nil
	}
	if r.ttl < minReplicationTTL {
		return fmt.Errorf("--replication-ttl %s: at least %s is needed", r.ttl, minReplicationTTL)
	}
	host, port, err := net.SplitHostPort(r.advertise)
	if err != nil || host == "" || port == "" || port == "0" {
		return errors.New("--advertise must be provided when using --replication: the HOST:PORT at which other managers reach this one")
	}
	return nil
}

// leasers are the stores that hold elections.
var leasers = map[string]func(rawURL string, o discovery.Options, addr string, ttl time.Duration) (election.Leaser, error){
	"consul": consul.NewLeaser, "etcd": etcd.NewLeaser, "zk": zk.NewLeaser,
}

// shelves are the same stores as the place of what is wanted of nodes.
var shelves = map[string]func(rawURL string, o discovery.Options) (intents.Shelf, error){
	"consul": consul.NewShelf, "etcd": etcd.NewShelf, "zk": zk.NewShelf,
}

// replicated is what a manager among several is made of.
type replicated struct {
	standing *replica.Standing
	handler  *replica.Handler
	leaser   election.Leaser
	shelf    intents.Shelf
	tls      *tls.Config // towards other managers; nil for plain connections
	where    string
	began    time.Time
	log      *slog.Logger
}

// newReplicated prepares the election at the store of DISCOVERY.
func (o *serveOptions) newReplicated(log *slog.Logger) (*replicated, error) {
	rawURL, d := o.where(), discoveryOptions(o.discovery)
	d.Warn = func(err error) { log.Warn("election", "error", err) }
	scheme, _, _ := strings.Cut(rawURL, "://")
	scheme = strings.ToLower(scheme)
	lease, shelve := leasers[scheme], shelves[scheme]
	if lease == nil || shelve == nil {
		return nil, errors.New("--replication: leader election is only supported with consul, etcd and zk discovery")
	}
	config, err := o.tls.peers()
	if err != nil {
		return nil, err
	}
	standing := replica.New(o.replication.advertise)
	leaser, err := lease(rawURL, d, standing.Advertise(), o.replication.ttl)
	if err != nil {
		return nil, err
	}
	shelf, err := shelve(rawURL, d)
	if err != nil {
		return nil, err
	}
	return &replicated{standing: standing, leaser: leaser, shelf: shelf, tls: config, where: rawURL, began: time.Now(), log: log}, nil
}

// inOffice says whether this manager is the primary at this very moment: one that slept may be so no more, and not know it yet.
func (r *replicated) inOffice() error { return r.standing.Check(r.standing.Term()) }

// owner is a name that the managers of a fleet have in common: that of its place in the store.
func (r *replicated) owner() string {
	_, rest, _ := strings.Cut(r.where, "://")
	_, prefix, _ := strings.Cut(rest, "/")
	sum := sha256.Sum256([]byte("managers/" + strings.Trim(prefix, "/")))
	return hex.EncodeToString(sum[:16])
}

// before puts the manager's place among the others in front of its own handler.
func (r *replicated) before(local http.Handler, tunnels *proxy.Tunnels) http.Handler {
	r.handler = replica.NewHandler(replica.Options{
		Standing: r.standing, Local: local, Client: api.Client, WithClient: api.WithClient, Tunnels: tunnels,
		Dial: func(ctx context.Context, addr string, http2 bool) (net.Conn, error) {
			return dialManager(ctx, addr, r.tls, http2)
		},
	})
	return r.handler
}

// managerDial is how long another manager may take to accept a connection.
const managerDial = 5 * time.Second

// dialManager connects to another manager's endpoint.
func dialManager(ctx context.Context, addr string, config *tls.Config, http2 bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, managerDial)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil || config == nil {
		return raw, err
	}
	config = config.Clone()
	host, _, _ := net.SplitHostPort(addr) // dialled just now
	config.ServerName, config.NextProtos = cmp.Or(config.ServerName, host), []string{"http/1.1"}
	if http2 {
		config.NextProtos = []string{"h2"}
	}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS: %w", err), raw.Close())
	}
	return c, nil
}

// run campaigns until ctx ends, and works while this manager is the primary. begin is called before it acts as one.
func (r *replicated) run(ctx context.Context, begin func(context.Context), work func(context.Context) error) error {
	defer r.handler.Close()
	defer r.leaser.Close() //nolint:errcheck // nothing is lost with it
	return election.Run(ctx, r.leaser, election.Options{
		Advertise: r.standing.Advertise(),
		Changed: func(l election.Leader, self bool) {
			r.standing.Changed(l.Addr)
			addr, _, _ := strings.Cut(l.Addr, "#")
			switch {
			case self:
				r.log.Info("this manager is the primary", "term", l.Term)
			case addr == "":
				r.log.Info("there is no primary")
			default:
				r.log.Info("this manager is a replica", "primary", addr, "term", l.Term)
			}
		},
		Warn: func(err error) {
			if err != nil {
				r.log.Warn("election", "error", err)
				return
			}
			r.log.Info("election: the store answers again")
		},
	}, func(ctx context.Context, t *election.Tenure) error {
		begin(ctx)
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return r.standing.Serve(ctx, t) })
		g.Go(func() error { return work(ctx) })
		return g.Wait()
	})
}

// eventsAgain is of which time events are asked for again when they are followed anew: managers' clocks differ. Those that are known
// are not told again.
const eventsAgain = time.Minute

// hear takes over what the primary tells of its own doing, until ctx ends: what engines do every manager sees by itself.
func (r *replicated) hear(ctx context.Context, c *cluster.Cluster) error {
	filters, err := json.Marshal(map[string][]string{"type": {"container"}, "event": {move.Event, rescue.EventDone, rescue.EventWaiting, rescue.EventAside}})
	if err != nil {
		return err
	}
	var last time.Time // when something was heard last
	path := func() string {
		since := int64(0) // all that it remembers
		if !last.IsZero() {
			since = last.Add(-eventsAgain).Unix()
		}
		return "/events?since=" + strconv.FormatInt(since, 10) + "&filters=" + url.QueryEscape(string(filters))
	}
	return r.handler.Follow(ctx, path, func(line []byte) {
		last = time.Now()
		if err := c.Hear(line, r.began.UnixNano()); err != nil {
			r.log.Warn("an event was lost", "error", err)
		}
	}, func(err error) {
		if err != nil {
			r.log.Warn("what the primary does is not told here", "error", err)
			return
		}
		r.log.Info("what the primary does is told here again")
	})
}
