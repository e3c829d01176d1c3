package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"berth/internal/fleet"
	"berth/internal/proxy"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// rehearsal is the fleet as it would be after what a dry run asked for so far. The handlers work on it as they work on the
// cluster, so a dry run answers what they would; but what they make and move exists in this picture only, and no engine is
// asked. It belongs to one request.
type rehearsal struct {
	teller  Teller
	policy  schedule.Policy
	before  *fleet.Snapshot
	now     *fleet.Snapshot
	pending []schedule.Pending // of others, in flight when it began

	asked  *schedule.Request // the last that was put to the scheduler,
	seen   schedule.View     // and what it saw then
	chosen *fleet.Node       // by the last create
	left   map[object]string // removed from a node, until it is made on another
	moves  []string
}

// rehearse returns a server that only pretends. It begins once nothing is between two nodes.
func (s *Server) rehearse(ctx context.Context) (*Server, *rehearsal, error) {
	g, err := s.groups.copy(ctx)
	if err != nil {
		return nil, nil, err
	}
	view := s.fleet.View()
	p := &rehearsal{
		teller: s.fleet, policy: s.fleet.Policy(), before: view.Snapshot, now: view.Snapshot, pending: view.Pending,
		left: map[object]string{},
	}
	o := s.o
	o.Log = slog.New(slog.DiscardHandler) // nothing happens, so there is nothing to tell
	// The index of images is only read: no create of a rehearsal looks after its image.
	return &Server{
		o: o, fleet: p, routes: s.routes, gate: gate{max: s.o.APIMax},
		execs: newExecs(), groups: g, images: s.images, builders: newBuilders(),
	}, p, nil
}

// copy is for what must not change the original. Its locks are its own, so nobody waits for who holds them.
func (g *groups) copy(ctx context.Context) (*groups, error) {
	for {
		g.mu.Lock()
		var wait chan struct{}
		for _, ch := range g.moving {
			wait = ch
		}
		if wait == nil {
			c := &groups{
				locks: newLocks(), young: maps.Clone(g.young), moving: map[string]chan struct{}{}, moves: g.moves, moved: maps.Clone(g.moved),
			}
			g.mu.Unlock()
			return c, nil
		}
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Snapshot is the fleet as it would be now.
func (p *rehearsal) Snapshot() *fleet.Snapshot { return p.now }

// Refresh has nothing to do: the picture is the only truth here.
func (p *rehearsal) Refresh(context.Context, string, fleet.Kind, string) error { return nil }

// RefreshDetails is Refresh.
func (p *rehearsal) RefreshDetails(context.Context, string, string) error { return nil }

// Changed has nothing to do either.
func (p *rehearsal) Changed(string, fleet.Kind, string) {}

// Changing is Changed.
func (p *rehearsal) Changing(string, fleet.Kind, string) (changed func()) { return func() {} }

// Settle is Changed.
func (p *rehearsal) Settle(context.Context, ...fleet.Kind) {}

// Forget takes a container away.
func (p *rehearsal) Forget(nodeID, id string) {
	p.edit(nodeID, func(n *fleet.Node) {
		n.Containers = slices.DeleteFunc(slices.Clone(n.Containers), func(c *fleet.Container) bool { return c.ID == id })
	})
}

// Subscribe tells what really happened.
func (p *rehearsal) Subscribe(ctx context.Context) (backlog []fleet.Event, live <-chan fleet.Event) {
	return p.teller.Subscribe(ctx)
}

// View is what the scheduler would see.
func (p *rehearsal) View() schedule.View {
	return schedule.View{Snapshot: p.now, Pending: slices.Clip(p.pending)}
}

// Policy is the cluster's.
func (p *rehearsal) Policy() schedule.Policy { return p.policy }

// Place asks the scheduler.
func (p *rehearsal) Place(r *schedule.Request) (*fleet.Node, error) {
	asked := *r
	p.asked, p.seen = &asked, p.View()
	return schedule.Place(p.seen, r, p.policy)
}

// Create puts a container into the picture. The request for the engine is not built: building it moves images.
func (p *rehearsal) Create(_ context.Context, r *schedule.Request, _ func(*fleet.Node, string, map[string]string, claim) (*http.Request, error)) (*http.Response, *fleet.Node, error) {
	if _, err := p.Reserve(r.Name, ""); err != nil {
		return nil, nil, err
	}
	n, err := p.Place(r)
	if err != nil {
		return nil, nil, err
	}
	p.chosen = n
	c := &fleet.Container{
		ID: pretendedID(), Name: r.Name, Image: r.Image, Labels: fleet.LabelsOf(r.Labels), State: "created",
		Inspected: true, Memory: r.Memory, NanoCPUs: r.NanoCPUs, Wanted: r.Ports, Exposed: r.Exposed,
	}
	if r.HostNetwork {
		c.NetworkMode, c.Wanted = "host", nil
	}
	p.edit(n.ID, func(n *fleet.Node) {
		at, _ := slices.BinarySearchFunc(n.Containers, c, func(a, b *fleet.Container) int { return strings.Compare(a.ID, b.ID) })
		n.Containers = slices.Insert(slices.Clone(n.Containers), at, c)
	})
	return pretended(http.StatusCreated, rawjson.Encode(map[string]any{"Id": c.ID, "Warnings": []string{}})), n, nil
}

// Reserve only looks whether a name is free: nobody else is told of it. The text is the engine's.
func (p *rehearsal) Reserve(name, id string) (release func(), err error) {
	taken := func(by string) error {
		return conflict(fmt.Sprintf("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, by))
	}
	if name == "" {
		return func() {}, nil
	}
	for _, r := range p.now.Named(name) {
		if r.Container.ID != id {
			return nil, taken(r.Container.ID)
		}
	}
	if slices.ContainsFunc(p.pending, func(o schedule.Pending) bool { return o.Request.Name == name }) {
		return nil, taken("(being created)")
	}
	return func() {}, nil
}

// Forward reaches nobody.
func (p *rehearsal) Forward(http.ResponseWriter, *http.Request, string, proxy.Options) error {
	return unavailable("a dry run asks no engine")
}

// Do answers what a move or a create of a network or volume asks of an engine, out of the picture.
func (p *rehearsal) Do(_ context.Context, nodeID string, r *http.Request) (*http.Response, error) {
	n, ok := p.now.Node(nodeID)
	if !ok {
		return nil, unavailable("the node has left the fleet")
	}
	path := r.URL.Path
	if m := versioned.FindStringSubmatch(path); m != nil {
		path = m[2]
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch r.Method + " " + kind {
	case "POST networks":
		return p.makeNetwork(n, r.Body)
	case "POST volumes":
		return p.makeVolume(n, r.Body)
	case "DELETE networks":
		p.removeNetwork(n, rest)
		return pretended(http.StatusNoContent, nil), nil
	case "DELETE volumes":
		p.removeVolume(n, rest)
		return pretended(http.StatusNoContent, nil), nil
	}
	return nil, unavailable("a dry run asks no engine: " + r.Method + " " + path)
}

// made is what is read of a body that makes a network or a volume.
type made struct {
	Name, Driver string
	Labels       map[string]string
}

func readMade(body io.Reader, driver string) (m made, err error) {
	if err := json.NewDecoder(body).Decode(&m); err != nil {
		return m, invalidf("request body: %v", err)
	}
	if m.Driver == "" || m.Driver == "default" {
		m.Driver = driver
	}
	return m, nil
}

func (p *rehearsal) makeNetwork(n *fleet.Node, body io.Reader) (*http.Response, error) {
	m, err := readMade(body, "bridge")
	if err != nil {
		return nil, err
	}
	scope := "local"
	if m.Driver == "overlay" {
		scope = "swarm"
	}
	w := &fleet.Network{ID: pretendedID(), Name: m.Name, Driver: m.Driver, Scope: scope, Labels: m.Labels}
	p.edit(n.ID, func(n *fleet.Node) { n.Networks = append(slices.Clip(n.Networks), w) })
	p.arrived(object{fleet.KindNetwork, w.Name}, n)
	return pretended(http.StatusCreated, rawjson.Encode(map[string]string{"Id": w.ID})), nil
}

func (p *rehearsal) makeVolume(n *fleet.Node, body io.Reader) (*http.Response, error) {
	m, err := readMade(body, "local")
	if err != nil {
		return nil, err
	}
	if m.Name == "" {
		m.Name = pretendedID()
	}
	v := &fleet.Volume{Name: m.Name, Driver: m.Driver, Scope: "local", Labels: m.Labels, CreatedAt: pretendedID()}
	if i := slices.IndexFunc(n.Volumes, func(v *fleet.Volume) bool { return v.Name == m.Name }); i >= 0 {
		v = n.Volumes[i]
	} else {
		p.edit(n.ID, func(n *fleet.Node) { n.Volumes = append(slices.Clip(n.Volumes), v) })
		p.arrived(object{fleet.KindVolume, v.Name}, n)
	}
	return pretended(http.StatusCreated, rawjson.Encode(map[string]string{"Name": v.Name, "CreatedAt": v.CreatedAt})), nil
}

func (p *rehearsal) removeNetwork(n *fleet.Node, id string) {
	p.edit(n.ID, func(n *fleet.Node) {
		n.Networks = slices.DeleteFunc(slices.Clone(n.Networks), func(w *fleet.Network) bool {
			if w.ID == id {
				p.left[object{fleet.KindNetwork, w.Name}] = n.ID
			}
			return w.ID == id
		})
	})
}

func (p *rehearsal) removeVolume(n *fleet.Node, name string) {
	p.edit(n.ID, func(n *fleet.Node) {
		n.Volumes = slices.DeleteFunc(slices.Clone(n.Volumes), func(v *fleet.Volume) bool { return v.Name == name })
	})
	p.left[object{fleet.KindVolume, name}] = n.ID
}

// arrived notes that a thing which really exists would be moved.
func (p *rehearsal) arrived(o object, to *fleet.Node) {
	from, ok := p.before.Node(p.left[o])
	delete(p.left, o)
	if ok && from.ID != to.ID && markOf(from, o) != "" {
		p.moves = append(p.moves, fmt.Sprintf("%s from %s to %s", o, from.Name, to.Name))
	}
}

// edit replaces a node by a changed copy. Lists that change must be new ones.
func (p *rehearsal) edit(nodeID string, change func(*fleet.Node)) {
	n, ok := p.now.Node(nodeID)
	if !ok {
		return
	}
	edited := *n
	change(&edited)
	p.now = p.now.Replace(edited.Seal())
}

func pretended(code int, body []byte) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
}

func pretendedID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	return hex.EncodeToString(b[:])
}
