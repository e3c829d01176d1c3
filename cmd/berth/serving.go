package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/api"
	"berth/internal/cluster"
	"berth/internal/ingress"
	"berth/internal/intents"
	"berth/internal/overlay"
	"berth/internal/proxy"
	"berth/internal/relay"
	"berth/internal/tracing"
)

// serving is all that runs while a fleet is served.
type serving struct {
	cluster   *cluster.Cluster
	intents   *intents.Keeper // nil if nothing is wanted of nodes
	sources   []cluster.Source
	api       *api.Server
	handler   http.Handler
	mover     *mover     // nil if no containers are moved
	moving    sync.Mutex // held while it works
	listeners []net.Listener
	tunnels   *proxy.Tunnels
	// replicated is nil for a manager that is alone.
	replicated *replicated
	overlay    *overlay.Keeper
	ingress    *ingress.Ingress // nil if ports answer on their nodes only
	relays     *relay.Relays    // nil if containers get the sockets of their nodes
	watchers   []watcher
	tokens     *tokenServer // nil if no tokens are served
	traces     *tracing.Tracing
	log        *slog.Logger
}

// watcher is a listener for those who watch the manager.
type watcher struct {
	net.Listener
	handler http.Handler
}

// watchers opens the listeners of --metrics-addr and --debug-socket. Those that are open when there is an error, too, are the
// caller's to close.
func (o *serveOptions) watchers(ctx context.Context, mux *http.ServeMux) (all []watcher, err error) {
	if o.metricsAddr != "" {
		l, err := openTCP(ctx, "--metrics-addr ", o.metricsAddr, &o.tls, o.tls.verify, "beyond this computer it needs mutual TLS, since it tells how the fleet is: "+
			"give --tlsverify with --tlscacert, --tlscert and --tlskey, or listen on 127.0.0.1")
		if err != nil {
			return all, err
		}
		all = append(all, watcher{l, mux})
	}
	if o.debugSocket != "" {
		path := strings.TrimPrefix(o.debugSocket, "unix://")
		l, err := openUnix(ctx, "--debug-socket "+path, path)
		if err != nil {
			return all, err
		}
		all = append(all, watcher{l, profiles(mux)})
	}
	return all, nil
}

// intentsEvery is how often other managers' changes to the intents are looked for.
const intentsEvery = time.Second

// catchUpLimit is how long a new primary may be kept waiting for that. The store has just given it the lease; but another connection to
// one that was away may take two seconds longer.
const catchUpLimit, catchUpRetry = 3 * time.Second, 100 * time.Millisecond

// catchUp has a new primary begin with what is wanted of the nodes now, and not with what it saw a moment ago.
func (e *serving) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	err := e.intents.Refresh(ctx)
	for err != nil {
		select {
		case <-time.After(catchUpRetry):
			err = e.intents.Refresh(ctx)
		case <-ctx.Done():
			e.log.Warn("the primary begins with what it last knew is wanted of the nodes", "error", err)
			return
		}
	}
	e.cluster.IntentsChanged()
}

// sayIntents tells that the intents cannot be read, and once they can.
func (e *serving) sayIntents(err error) {
	if err != nil {
		e.log.Warn("what is wanted of the nodes could not be read again: what was known last holds", "error", err)
		return
	}
	e.log.Info("what is wanted of the nodes can be read again")
}

// profiles adds Go's to what others may see too.
func profiles(mux *http.ServeMux) *http.ServeMux {
	all := http.NewServeMux()
	all.Handle("/", mux)
	all.HandleFunc("/debug/pprof/", pprof.Index)
	all.HandleFunc("/debug/pprof/profile", pprof.Profile)
	all.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return all
}

// run runs the cluster and the servers together; the end of one ends all.
func (e *serving) run(ctx context.Context) error {
	if !collectorIsSet() {
		debug.SetGCPercent(collectAt)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	pauses := newLulls()
	server := e.server(pauses.watch(e.handler))
	server.Protocols, server.ConnContext = &protocols, api.ConnContext
	g, ctx := errgroup.WithContext(ctx)
	// Engines are followed, and relays kept, until clients have had their time: a request to an engine ends with that.
	following, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	g.Go(func() error { return e.cluster.Run(following, e.sources...) })
	if e.tokens != nil {
		e.tokens.tell(e.log)
		// This manager may follow it, so it goes when the engines do.
		g.Go(func() error { return e.tokens.run(following) })
	}
	if e.intents != nil {
		g.Go(func() error {
			return e.intents.Follow(ctx, intentsEvery, e.cluster.IntentsChanged, e.sayIntents)
		})
	}
	if e.mover != nil {
		g.Go(func() error { return e.mover.keeper.Run(following) })
	}
	if e.replicated != nil {
		g.Go(func() error { return e.replicated.hear(ctx, e.cluster) })
		// The office is kept until clients have had their time; no move begins once ctx has ended.
		g.Go(func() error {
			return e.replicated.run(following, e.catchUp, func(office context.Context) error { return e.act(ctx, office) })
		})
	} else {
		g.Go(func() error { return e.act(ctx, ctx) })
	}
	if e.ingress != nil {
		g.Go(func() error { return e.ingress.Run(following) })
	}
	if e.relays != nil {
		g.Go(func() error { return e.relays.Run(following) })
	}
	g.Go(func() error {
		e.sayLimits(ctx)
		e.keepSmall(ctx, pauses)
		return nil
	})
	for _, l := range e.listeners {
		e.log.Info("serving", "addr", l.Addr().Network()+"://"+l.Addr().String())
		g.Go(func() error { return serveHTTP(server, l) })
	}
	for _, w := range e.watchers {
		watched := e.server(w.handler)
		g.Go(func() error { return serveHTTP(watched, w) })
		g.Go(func() error {
			<-ctx.Done()
			return watched.Close()
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		defer release()
		defer e.moved() // a move that is undone needs its engines
		return e.shutdown(server)
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// act is what one manager of a fleet does by itself: it moves containers and keeps overlay networks.
func (e *serving) act(ctx, office context.Context) error {
	g, office := errgroup.WithContext(office)
	g.Go(func() error { return e.move(ctx, office) })
	if e.overlay != nil {
		g.Go(func() error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(office, cancel)()
			if err := e.overlay.Run(ctx); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

// move moves containers until ctx ends, or the office under which that is allowed. It returns with the office, which its return
// would end.
func (e *serving) move(ctx, office context.Context) error {
	if err := e.moveUntil(ctx, office); err != nil && ctx.Err() == nil && office.Err() == nil {
		return err
	}
	<-office.Done()
	return nil
}

func (e *serving) moveUntil(ctx, office context.Context) error {
	if e.mover == nil {
		return nil
	}
	e.moving.Lock()
	defer e.moving.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(office, cancel)()
	return e.mover.run(ctx)
}

// moved returns once no container is on its way.
func (e *serving) moved() {
	e.moving.Lock()
	defer e.moving.Unlock()
}

// A node needs an event stream and a few connections at rest, and clients need some.
const descriptorsPerNode, descriptorsForClients = 3, 256

// sayLimits warns if the fleet is larger than what this process may open. It waits until the fleet is known.
func (e *serving) sayLimits(ctx context.Context) {
	select {
	case <-e.cluster.Looked():
	case <-ctx.Done():
		return
	}
	need := uint64(descriptorsPerNode*len(e.cluster.Snapshot().Nodes()) + descriptorsForClients)
	if limit, known := descriptorLimit(); known && limit < need {
		e.log.Warn("this process may open too few files for the fleet: raise its hard limit (ulimit -Hn, LimitNOFILE)", "limit", limit, "want", need)
	}
}

func (e *serving) server(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Minute, ErrorLog: slog.NewLogLogger(e.log.Handler(), slog.LevelDebug)}
}

func serveHTTP(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// shutdownLimit is how long clients have to end what they began; streams are then cut.
const shutdownLimit = 3 * time.Second

func (e *serving) shutdown(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	e.cluster.EndEvents() // their readers would wait for ever
	err := server.Shutdown(ctx)
	if cut := e.tunnels.Drain(ctx); cut != nil {
		e.log.Info("streams were cut", "reason", cut)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	e.flush()
	return err
}

// flushLimit is how long the last traces have to reach their collector. It is not a part of the clients' time, which one open
// stream uses up.
const flushLimit = time.Second

func (e *serving) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	if err := e.traces.Close(ctx); err != nil {
		e.log.Warn("traces were lost", "reason", err)
	}
}
