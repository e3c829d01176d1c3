// Package api is what each route of the Docker Engine API means for a fleet.
//
// Every request takes the same road: the version gate, the route table, a handler that finds the node or nodes concerned,
// and one function that turns an error into a status and {"message"}. Bodies and streams go through as they are; only names,
// IDs, placement and the fields listed beside each handler are rewritten. It asks for the cluster through its own
// interfaces and keeps no state that another manager would need.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"berth/internal/fleet"
	"berth/internal/proxy"
	"berth/internal/schedule"
)

// Viewer is the picture of the fleet.
type Viewer interface {
	Snapshot() *fleet.Snapshot
	// Refresh returns once the snapshot shows the object as its engine has it now.
	Refresh(ctx context.Context, nodeID string, kind fleet.Kind, id string) error
	RefreshDetails(ctx context.Context, nodeID, id string) error
	// Changed tells that an object has changed. It returns at once; who asks Settle next sees it.
	Changed(nodeID string, kind fleet.Kind, id string)
	// Changing is for a request that is about to change an object, and takes its time; changed ends it as Changed does.
	Changing(nodeID string, kind fleet.Kind, id string) (changed func())
	// Settle returns when the snapshot shows all changes of these kinds that were made or told of before, or cannot be had
	// soon.
	Settle(ctx context.Context, kinds ...fleet.Kind)
	Forget(nodeID, id string)
}

// Caller reaches single nodes.
type Caller interface {
	Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error)
	Forward(w http.ResponseWriter, r *http.Request, nodeID string, o proxy.Options) error
}

// Placer decides where containers go.
type Placer interface {
	Create(ctx context.Context, r *schedule.Request, build func(n *fleet.Node, name string, labels map[string]string, claim func([]fleet.Port) ([]fleet.Port, error)) (*http.Request, error)) (*http.Response, *fleet.Node, error)
	Place(r *schedule.Request) (*fleet.Node, error)
	View() schedule.View
	Policy() schedule.Policy
	// Reserve holds a name for the container with the ID.
	Reserve(name, id string) (release func(), err error)
}

// Teller tells what happens in the fleet.
type Teller interface {
	Subscribe(ctx context.Context) (backlog []fleet.Event, live <-chan fleet.Event)
}

// Fleet is all that the API asks of a cluster.
type Fleet interface {
	Viewer
	Caller
	Placer
	Teller
}

// Options of a Server.
type Options struct {
	Version string // berth's own
	APIMax  string // the newest API version that we have verified
	ID      string // stable ID of this endpoint, shown as docker info's ID
	CORS    bool   // --api-enable-cors
	Role    func() (role, primary string)
	Log     *slog.Logger
	// Ready ends when the fleet has been looked at once; requests wait for it a moment. nil for at once.
	Ready <-chan struct{}
	Now   func() time.Time
	// Notices are what docker info warns of beside its nodes. nil for nothing.
	Notices func() []string
	// Sockets are what containers get that mount /var/run/docker.sock; nil leaves them their node's own.
	Sockets Sockets
	// Ingress has published ports answer on the endpoint's own computer; nil if only their nodes do.
	Ingress Ingress
	// Members changes what is wanted of nodes; nil if nothing can be.
	Members Members
	// Moves takes containers from node to node; nil if nothing does.
	Moves Moves
	// Overlay keeps networks across hosts; nil if nothing does.
	Overlay Overlay
	// Rescues starts the containers of lost nodes elsewhere; nil if nothing does.
	Rescues Rescues
}

// Server is the endpoint's http.Handler.
type Server struct {
	o        Options
	fleet    Fleet
	routes   router
	gate     gate
	execs    *execs
	groups   *groups
	images   *imageIndex
	builders *builders
	usage    usage
	stamp    atomic.Pointer[stamp]
	orders   orders
}

// New makes a Server. It starts nothing.
func New(f Fleet, o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Server{
		o: o, fleet: f, routes: newRouter(routes()), gate: gate{max: o.APIMax},
		execs: newExecs(), groups: newGroups(), images: newImageIndex(), builders: newBuilders(),
	}
}

// request is one client request on its way to a handler.
type request struct {
	*http.Request
	version string // of the API that the client speaks
	path    string // without the version
	vars    map[string]string
	route   *route
}

// ServeHTTP answers one request of a client.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.headers(w.Header())
	if s.o.CORS {
		cors(w.Header())
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	began := s.o.Now()
	err := s.serve(w, r)
	if err != nil {
		s.writeError(w, r, err)
	}
	if !s.o.Log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	s.o.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "took", s.o.Now().Sub(began), "error", err)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	if proxy.IsRPC(r) {
		return callBuilder(s, w, &request{Request: r, path: r.URL.Path})
	}
	version, path, err := s.gate.pass(r.URL.Path, s.fleet.Snapshot())
	if err != nil {
		return err
	}
	rt, vars := s.routes.match(r.Method, path)
	if rt == nil {
		return notFound("page not found")
	}
	if rt.class != local {
		s.awaitReady(r.Context())
	}
	return rt.handle(s, w, &request{Request: r, version: version, path: path, vars: vars, route: rt})
}

// awaitReady gives a manager that has just started the time to see its fleet.
func (s *Server) awaitReady(ctx context.Context) {
	if s.o.Ready == nil {
		return
	}
	select {
	case <-s.o.Ready:
	case <-ctx.Done():
	}
}

// headers are on every answer, in place of a node's.
func (s *Server) headers(h http.Header) {
	snap := s.fleet.Snapshot()
	api, lowest := s.gate.advertised(snap), lowestVersion(snap)
	st := s.stamp.Load()
	if st == nil || st.api[0] != api || st.lowest != lowest {
		st = &stamp{lowest, []string{api}, []string{"Docker/" + lowest + "+berth." + s.o.Version + " (linux)"}}
		s.stamp.Store(st)
	}
	h["Api-Version"], h["Server"] = st.api, st.server
	h["Docker-Experimental"], h["Ostype"] = notExperimental, linux
}

// stamp is what headers says of the fleet. Nobody changes the values of a header in place.
type stamp struct {
	lowest      string
	api, server []string
}

var notExperimental, linux = []string{"false"}, []string{"linux"}

func cors(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", "Origin, X-Requested-With, Content-Type, Accept, X-Registry-Auth")
	h.Set("Access-Control-Allow-Methods", "HEAD, GET, POST, DELETE, PUT, OPTIONS")
}
