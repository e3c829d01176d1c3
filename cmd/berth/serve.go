package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/api"
	"berth/internal/atomicfile"
	"berth/internal/cluster"
	"berth/internal/discovery"
	"berth/internal/dockercontext"
	"berth/internal/engine"
	"berth/internal/fleet"
	"berth/internal/ingress"
	"berth/internal/intents"
	"berth/internal/metrics"
	"berth/internal/proxy"
	"berth/internal/schedule"
	"berth/internal/tracing"
)

// apiMax is the newest API version that the endpoint was verified with.
const apiMax = "1.51"

// serveOptions are the flags of `berth serve`, classic Swarm's where it had one.
type serveOptions struct {
	hosts        []string
	policy       schedule.Policy
	filters      []string
	tls          tlsFlags
	failureRetry int
	heartbeat    time.Duration
	refreshMin   time.Duration
	refreshMax   time.Duration
	cors         bool
	clusterOpts  []string
	driver       string
	discovery    []string
	backlog      int
	apiMax       string
	logLevel     string
	logFormat    string
	noContext    bool
	use          bool
	sources      []string
	createRetry  int
	publish      publishing
	socket       string
	metricsAddr  string
	debugSocket  string
	tokens       tokenFlags
	replication  replication
	// rescheduleDelay is how long a node is silent before it is lost.
	rescheduleDelay time.Duration
	overlay         overlayFlags
}

func (p *program) serveCmd() *cobra.Command {
	o := newServeOptions()
	cmd := &cobra.Command{
		Use:   "serve [OPTIONS] [DISCOVERY]",
		Short: "Serve all machines as one Docker host",
		Long: `Serve all machines as one Docker host: your fleet is one DOCKER_HOST.

DISCOVERY says where the engines are. Without it they are the machines of the store, which come and go as they are
created and removed. Else it is a list (nodes://10.0.0.1:2376,10.0.0.2:2376, also with ranges: 10.0.0.[1:9]:2376),
a file with an address a line (file:///etc/berth/nodes), unix:///path and ssh://user@host for single engines, or where
agents ("berth join") say that their engines are there: token://HOST:PORT/TOKEN, etcd://HOST,HOST/PREFIX, also consul://
and zk://, or gossip://SEED,SEED.

The endpoint is a unix socket unless -H says otherwise, and the docker context "berth" leads to it:

    docker context use berth

With --token-service the manager keeps tokens, too, as "berth discovery serve" does: "berth swarm create" makes one, agents
join by it, and this manager, started with it as DISCOVERY, or others serve its members.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.sources = args
			return p.serve(cmd.Context(), o)
		},
	}
	p.serveFlags(cmd, o)
	return cmd
}

func newServeOptions() *serveOptions { return &serveOptions{policy: schedule.DefaultPolicy()} }

func (p *program) serveFlags(cmd *cobra.Command, o *serveOptions) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.hosts, "host", "H", envList("SWARM_HOST"), "Where to listen: unix:///path or tcp://host:port; repeatable [$SWARM_HOST]")
	f.StringVar(&o.policy.Strategy, "strategy", schedule.Spread, "Placement strategy: spread, binpack, random")
	f.StringArrayVarP(&o.filters, "filter", "f", nil, "Filter to use, in this order; repeatable (default: all seven)")
	f.BoolVar(&o.tls.enable, "tls", false, "Use TLS; with --tlsverify verify the other side")
	f.BoolVar(&o.tls.verify, "tlsverify", false, "Use TLS and verify clients and engines")
	f.StringVar(&o.tls.ca, "tlscacert", "", "Trust certificates signed only by this authority")
	f.StringVar(&o.tls.cert, "tlscert", "", "Certificate to show to clients and engines")
	f.StringVar(&o.tls.key, "tlskey", "", "Its private key")
	f.BoolVar(&o.tls.plainEngines, "engine-plain", false, "Reach engines of DISCOVERY without TLS although the endpoint has it")
	f.IntVar(&o.failureRetry, "engine-failure-retry", 3, "Failed attempts to connect until a node is unhealthy")
	f.DurationVar(&o.refreshMin, "engine-refresh-min-interval", 0, "Accepted for classic Swarm's sake: nodes are followed by their events")
	f.DurationVar(&o.refreshMax, "engine-refresh-max-interval", 5*time.Minute, "How often a node is listed whole although its events told everything")
	f.DurationVar(&o.heartbeat, "heartbeat", time.Minute, "How often a discovery file is read again; members of a store that was away are believed gone after three")
	f.StringArrayVar(&o.discovery, "discovery-opt", nil, discoveryOptUsage)
	f.BoolVar(&o.cors, "api-enable-cors", false, "Allow browsers of any origin to use the API")
	f.BoolVar(&o.cors, "cors", false, "Same as --api-enable-cors")
	f.StringVarP(&o.driver, "cluster-driver", "c", "swarm", "Cluster driver: swarm is the only one")
	f.StringArrayVar(&o.clusterOpts, "cluster-opt", nil, "swarm.overcommit=0.05 (share of memory and CPUs given away twice), swarm.createretry=0")
	f.IntVar(&o.backlog, "max-events-backlog", 16384, "Events remembered for docker events --since")
	f.StringVar(&o.apiMax, "api-max", apiMax, "Newest API version to advertise")
	f.StringVarP(&o.logLevel, "log-level", "l", "info", "debug, info, warn, error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	o.publish.flags(f)
	f.StringVar(&o.socket, "socket", socketNode, "What containers get that mount /var/run/docker.sock: their node's engine (node) or the fleet")
	f.StringVar(&o.metricsAddr, "metrics-addr", "", "Serve /metrics (prometheus), /healthz and /readyz on host:port")
	f.StringVar(&o.debugSocket, "debug-socket", "", "Serve the same and /debug/pprof on this unix socket")
	f.StringVar(&o.tokens.host, "token-service", "", "Serve tokens as \"berth discovery serve\" does, on `HOST:PORT`; beyond this computer with the endpoint's certificate")
	f.Lookup("token-service").NoOptDefVal = defaultService
	f.StringVar(&o.tokens.data, "token-service-data", "", "`FILE` that keeps the tokens (default: discovery.db in the machine store)")
	f.BoolVar(&o.tokens.insecure, "token-service-insecure", false, "Serve tokens beyond this computer without TLS: on networks where nobody listens in")
	f.DurationVar(&o.rescheduleDelay, "reschedule-delay", defaultRescheduleDelay, "How long a node does not answer until its containers with reschedule:on-node-failure are started elsewhere")
	o.replication.flags(f)
	f.BoolVar(&o.overlay.on, "overlay", false, "Keep networks across hosts, by Swarm mode beneath, and make networks without a driver such")
	o.overlay.flags(f, "overlay-")
	f.BoolVar(&o.noContext, "no-context", false, "Make no docker context")
	f.BoolVar(&o.use, "use", false, "Switch the docker client to the context")
	for _, old := range []string{"experimental", "refresh-on-node-filter"} {
		f.Bool(old, false, "Accepted for classic Swarm's sake")
		_ = f.MarkHidden(old) // it was defined one line above
	}
	f.String("container-name-refresh-filter", "", "Accepted for classic Swarm's sake")
	_ = f.MarkHidden("container-name-refresh-filter") // it was defined one line above
}

// defaultRescheduleDelay leaves a host time to restart its engine, and a network to come back.
const defaultRescheduleDelay = 30 * time.Second

func envList(name string) []string {
	if v := os.Getenv(name); v != "" {
		return []string{v}
	}
	return nil
}

// check refuses what can never work, before anything is opened.
func (o *serveOptions) check() error {
	if o.filters != nil {
		o.policy.Filters = o.filters
	}
	if o.driver != "swarm" {
		return fmt.Errorf("unsupported cluster %q: the only driver is swarm", o.driver)
	}
	if o.failureRetry <= 0 {
		return errors.New("invalid failure retry count: --engine-failure-retry must be above 0")
	}
	if o.heartbeat < time.Second {
		return errors.New("--heartbeat should be at least one second")
	}
	if o.rescheduleDelay < 0 {
		return errors.New("--reschedule-delay must not be negative")
	}
	if o.refreshMax < max(o.refreshMin, time.Second) {
		return errors.New("--engine-refresh-max-interval must be at least a second and no less than --engine-refresh-min-interval")
	}
	for _, kv := range o.clusterOpts {
		if err := o.clusterOpt(kv); err != nil {
			return err
		}
	}
	if err := o.policy.Check(); err != nil {
		return err
	}
	if err := o.publish.check(); err != nil {
		return err
	}
	if o.socket != socketNode && o.socket != socketFleet {
		return fmt.Errorf("--socket %s: want node or fleet", o.socket)
	}
	if err := o.replication.check(); err != nil {
		return err
	}
	if err := o.overlay.check("--overlay-"); err != nil {
		return err
	}
	if err := o.tls.check(); err != nil {
		return err
	}
	return o.checkTokens()
}

// checkTokens refuses flags of a token service that is not served, and an address that was taken for DISCOVERY.
func (o *serveOptions) checkTokens() error {
	if o.tokens.host == "" {
		if o.tokens.data != "" || o.tokens.insecure {
			return errors.New("--token-service-data and --token-service-insecure need --token-service")
		}
		return nil
	}
	for _, s := range o.sources {
		if host, _, err := net.SplitHostPort(s); err == nil && (host == "" || net.ParseIP(host).IsUnspecified() || s == defaultService) {
			return fmt.Errorf("no engine can be at %s: did you mean --token-service=%s?", s, s)
		}
	}
	// Who joins need not be a client of the fleet: the token is what lets them in.
	o.tokens.tls = tlsFlags{enable: o.tls.enable, cert: o.tls.cert, key: o.tls.key}
	return nil
}

func (o *serveOptions) clusterOpt(kv string) (err error) {
	k, v, _ := strings.Cut(kv, "=")
	switch k {
	case "swarm.overcommit":
		if o.policy.Overcommit, err = strconv.ParseFloat(v, 64); err != nil || o.policy.Overcommit <= -1 {
			return fmt.Errorf("--cluster-opt %s: want a number above -1", kv)
		}
	case "swarm.createretry":
		if o.createRetry, err = strconv.Atoi(v); err != nil || o.createRetry < 0 {
			return fmt.Errorf("--cluster-opt %s: want a number that is not negative", kv)
		}
	default:
		return fmt.Errorf("--cluster-opt %s: known are swarm.overcommit and swarm.createretry", kv)
	}
	return nil
}

func (o *serveOptions) logger(p *program) (*slog.Logger, error) {
	var level slog.Level
	if p.debug {
		level = slog.LevelDebug
	} else if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %s: want debug, info, warn or error", o.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(p.err, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(p.err, options)), nil
	}
	return nil, fmt.Errorf("--log-format %s: want text or json", o.logFormat)
}

// serve runs the endpoint until ctx ends.
func (p *program) serve(ctx context.Context, o *serveOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	log, err := o.logger(p)
	if err != nil {
		return err
	}
	state := &notices{}
	sources, err := p.sources(o, state, log)
	if err != nil {
		return err
	}
	if len(o.hosts) == 0 {
		o.hosts = []string{"unix://" + defaultSocket()}
	}
	var listeners []net.Listener
	for _, h := range o.hosts {
		l, err := listener(ctx, h, &o.tls)
		if err != nil {
			return err
		}
		defer l.Close() //nolint:errcheck // the server closes it first
		listeners = append(listeners, l)
	}
	var tokens *tokenServer
	if o.tokens.host != "" {
		if tokens, err = p.openTokens(ctx, &o.tokens, "--token-service=", "give --tls with --tlscert and --tlskey, listen on 127.0.0.1, or say --token-service-insecure"); err != nil {
			return err
		}
		defer tokens.Close() //nolint:errcheck // every change was written when it was made
	}
	var among *replicated
	if o.replication.on {
		if among, err = o.newReplicated(log); err != nil {
			return err
		}
		defer among.shelf.Close() //nolint:errcheck // nothing is lost with it
	}
	release, _ := buildVersion()
	tunnels := new(proxy.Tunnels)
	counts := metrics.New(release, tunnels.Len)
	wanted, err := p.intents(ctx, among, log)
	if err != nil {
		return err
	}
	clusterOptions := p.clusterOptions(o, log, tunnels, counts)
	clusterOptions.Intents = wanted
	if among != nil {
		clusterOptions.Office = among.standing
	}
	var ports *ingress.Ingress
	clusterOptions.PortFree = func(p fleet.Port) bool { return ports == nil || ports.Free(p) }
	c := cluster.New(clusterOptions)
	ports = o.publish.ingress(o.hosts, c, log)
	counts.Follow(c)
	watchers, err := o.watchers(ctx, counts.Mux(c, c.Looked()))
	for _, w := range watchers {
		defer w.Close() //nolint:errcheck // its server closes it first
	}
	if err != nil {
		return err
	}
	id, err := p.endpointID()
	if err != nil {
		return err
	}
	options := api.Options{Version: release, APIMax: o.apiMax, ID: id, CORS: o.cors, Log: log, Ready: c.Looked(), Notices: state.list, Members: c}
	if ports != nil {
		options.Ingress = ports
		options.Notices = func() []string { return append(state.list(), ports.Notices()...) }
	}
	if among != nil {
		options.Role = among.standing.Role
	}
	keeper := newOverlay(c, o, log, among)
	options.Overlay = &overlays{keeper}
	told := options.Notices
	options.Notices = func() []string { return append(told(), keeper.Problems()...) }
	e := &serving{cluster: c, overlay: keeper, replicated: among, intents: wanted, sources: sources, listeners: listeners, ingress: ports, tunnels: tunnels, watchers: watchers, tokens: tokens, log: log}
	if o.socket == socketFleet {
		if e.relays, err = newRelays(c, log); err != nil {
			return err
		}
		options.Sockets, e.listeners = e.relays, append(listeners, e.relays)
	}
	owner := id
	if among != nil {
		owner = among.owner() // what one primary began another finishes
	}
	if e.mover, err = p.newMover(c, owner, o, log, &e.api, among, keeper); err != nil {
		return err
	}
	options.Moves, options.Rescues = e.mover, e.mover.rescuer
	if err := p.offerContext(o, log); err != nil {
		return err
	}
	e.traces = tracing.New(ctx, release, log) // run closes it
	e.api = api.New(c, options)
	e.handler = e.traces.Handler(e.api)
	if among != nil {
		e.handler = among.before(e.handler, tunnels)
	}
	return e.run(ctx)
}

func (p *program) clusterOptions(o *serveOptions, log *slog.Logger, tunnels *proxy.Tunnels, counts *metrics.Metrics) cluster.Options {
	timing := engine.DefaultTiming()
	timing.Resync = o.refreshMax
	return cluster.Options{
		Engine: engine.Options{
			APIMax: o.apiMax, FailureRetry: o.failureRetry, Timing: timing, Log: log, Tunnels: tunnels, Observe: counts.Called,
			Limit: make(chan struct{}, 256), Courtesy: engine.NewCourtesy(),
		},
		Policy: o.policy, CreateRetry: o.createRetry, Backlog: o.backlog, Log: log, UniquePorts: o.publish.chosen(o.hosts), Placed: counts.Placed, Told: counts.Told,
	}
}

// sources are where the engines come from: the store, or what the command line names.
func (p *program) sources(o *serveOptions, state *notices, log *slog.Logger) ([]cluster.Source, error) {
	store, err := p.store()
	if err != nil {
		return nil, err
	}
	where := o.where()
	if where == "" {
		return []cluster.Source{&storeSource{store, log}}, nil
	}
	options := discoveryOptions(o.discovery)
	options.Heartbeat = o.heartbeat
	state.follow(&options, log)
	source, err := discovery.Parse(where, options)
	if err != nil {
		return nil, err
	}
	config, err := o.tls.client()
	if err != nil {
		return nil, err
	}
	known := filepath.Join(store.Dir(), "known_hosts")
	return []cluster.Source{&addrSource{source: source, tls: config, known: known, log: log}}, nil
}

// where is the discovery URL, or "" for the machines of the store.
func (o *serveOptions) where() string {
	for _, url := range append(o.sources, envList("SWARM_DISCOVERY")...) {
		return url
	}
	return ""
}

// defaultSocket is where the endpoint listens: for root /run/berth, else the user's own runtime folder.
func defaultSocket() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		return filepath.Join(dir, "berth", "docker.sock")
	}
	if os.Geteuid() != 0 {
		return filepath.Join(os.TempDir(), fmt.Sprintf("berth-%d", os.Geteuid()), "docker.sock")
	}
	return "/run/berth/docker.sock"
}

// intents are what is wanted of nodes: in the machine store, or where several managers share it. What such a manager knew when it was
// alone goes there, if nothing is there yet.
func (p *program) intents(ctx context.Context, among *replicated, log *slog.Logger) (*intents.Keeper, error) {
	store, err := p.store()
	if err != nil {
		return nil, err
	}
	alone, err := intents.Open(filepath.Join(store.Dir(), "intents.json"))
	if err != nil || among == nil {
		return alone, err
	}
	shared := intents.Share(among.shelf, intents.Sharing{Seed: alone.All(), Log: log})
	_ = shared.Refresh(ctx) // Follow tells that it failed, and when it does not any more
	return shared, nil
}

// endpointID is docker info's ID: made once and kept in the store.
func (p *program) endpointID() (string, error) {
	store, err := p.store()
	if err != nil {
		return "", err
	}
	path := filepath.Join(store.Dir(), "endpoint-id")
	if b, err := os.ReadFile(path); err == nil && len(b) >= 16 {
		return strings.TrimSpace(string(b)), nil
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	id := hex.EncodeToString(b[:])
	if err := ensureDir(store.Dir()); err != nil {
		return "", err
	}
	return id, atomicfile.Write(path, []byte(id+"\n"), 0o600)
}

// contextName is the docker context that leads to the endpoint.
const contextName = "berth"

// offerContext makes the docker context. That it cannot be made is no reason not to serve.
func (p *program) offerContext(o *serveOptions, log *slog.Logger) error {
	if o.noContext {
		return nil
	}
	contexts, err := dockercontext.Open()
	if err != nil {
		return err
	}
	host := o.hosts[0]
	if !strings.Contains(host, "://") {
		host = "tcp://" + host
	}
	if strings.HasPrefix(host, "tcp://") && o.tls.enable {
		log.Info("no docker context is made for an endpoint with TLS: its clients need certificates of their own", "host", host)
		return nil
	}
	err = contexts.Put(dockercontext.Context{Name: contextName, Description: "berth: the fleet as one Docker host", Host: host})
	if err != nil {
		log.Warn("the docker client is not told of the endpoint", "error", err)
		return nil
	}
	if !o.use {
		log.Info("docker context use "+contextName+" switches the docker client to the fleet", "host", host)
		return nil
	}
	if v := os.Getenv("DOCKER_HOST"); v != "" {
		log.Warn("DOCKER_HOST is set and wins over the context", "DOCKER_HOST", v)
	}
	return contexts.Use(contextName)
}
