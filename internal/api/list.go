package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// listing is a parsed GET /containers/json.
type listing struct {
	all    bool
	limit  int
	size   bool
	f      filters
	tests  []test // of the filters that were given, all to be passed
	labels []labelTest
	names  []string // the only names that pass the filter name, if it has whole names only
	before int64    // created before, in nanoseconds; 0 for no bound
	since  int64
	only   map[string]bool // by ID, where only the engines can tell; nil for all
	sizes  map[string][2]rawValue
	// hindered are the ports of a container that answer only elsewhere.
	hindered func(id string) []fleet.Hindrance

	mayName func(names string) bool // whether a node may have what the filter name asks for; nil if only its containers tell
}

type rawValue = []byte

// labelTest is a filter label=key=value, or label=key. Compose asks with it all the time, so nodes keep what their
// containers have.
type labelTest struct {
	key  string
	want fleet.Text
	any  bool // any value will do
}

// test is one filter.
type test func(n *fleet.Node, c *fleet.Container) bool

// listContainers answers from memory. Only what the engines alone know, sizes and image ancestry, is asked of them.
func listContainers(s *Server, w http.ResponseWriter, r *request) error {
	l, err := s.parseListing(r)
	if err != nil {
		return err
	}
	if l.size || l.f.has("ancestor") {
		if err := s.askEngines(w, r, l); err != nil {
			return err
		}
	}
	s.fleet.Settle(r.Context(), fleet.KindContainer)
	snap := s.fleet.Snapshot()
	for _, n := range snap.Unwell() {
		if l.wants(n) {
			w.Header().Add("X-Berth-Partial", n.Name)
		}
	}
	return s.writeRows(w, s.sequence(snap, l), l)
}

// runs begins the list: from what the fleet's indexes name if the filters allow that, or else from every node.
func (l *listing) runs(snap *fleet.Snapshot) runs {
	match := l.match()
	if refs, ok := l.named(snap); ok {
		all := make(runs, 0, len(refs))
		for _, ref := range refs {
			if l.wants(ref.Node) && l.labelled(ref.Container) && (match == nil || match(ref.Node, ref.Container)) {
				all = append(all, run{node: ref.Node, next: ref.Container.Aged()})
			}
		}
		return all
	}
	all := make(runs, 0, len(snap.Nodes()))
	for _, n := range snap.Nodes() {
		if l.wants(n) && (l.mayName == nil || l.mayName(n.Facts().Names())) {
			all.add(n, l.labels, match)
		}
	}
	return all
}

// wants tells whether the list is to show containers of the node.
func (l *listing) wants(n *fleet.Node) bool {
	return l.f.any("node", func(v string) bool { return n.Name == v || n.ID == v || n.EngineID == v })
}

// manyNamed is up to how many containers are looked at one by one: more are quicker found by going through the nodes.
const manyNamed = 1000

// named finds the only containers that can pass the filters id or name, where indexes of the fleet tell.
func (l *listing) named(snap *fleet.Snapshot) (refs []fleet.Ref, ok bool) {
	switch {
	case len(l.f["id"]) > 0:
		for _, v := range l.f["id"] {
			if refs = append(refs, snap.WithID(v, manyNamed+1-len(refs))...); len(refs) > manyNamed {
				return nil, false
			}
		}
	case len(l.names) > 0:
		for _, name := range l.names {
			refs = append(refs, snap.Called(name)...)
		}
	default:
		return nil, false
	}
	seen := make(map[fleet.Ref]bool, len(refs))
	return slices.DeleteFunc(refs, func(ref fleet.Ref) bool {
		twice := seen[ref]
		seen[ref] = true
		return twice
	}), true
}

// labelled tells whether the container has the labels of the filters.
func (l *listing) labelled(c *fleet.Container) bool {
	for _, t := range l.labels {
		if v, ok := c.Labels.Lookup(t.key); !ok || !t.any && v != t.want.Value() {
			return false
		}
	}
	return true
}

func (s *Server) parseListing(r *request) (*listing, error) {
	q := r.URL.Query()
	f, err := parseFilters(q, "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label",
		"name", "network", "node", "publish", "since", "status", "volume")
	if err != nil {
		return nil, err
	}
	l := &listing{all: flag(q, "all"), size: flag(q, "size"), f: f, hindered: s.hindered}
	if v := q.Get("limit"); v != "" {
		if l.limit, err = strconv.Atoi(v); err != nil {
			return nil, invalidf("limit: %q is not a number", v)
		}
	}
	// -1 is what old clients send for no limit. A limit looks at all containers, as in the engine.
	l.all = l.all || l.limit > 0 || f.has("status")
	if err := l.parseTests(); err != nil {
		return nil, err
	}
	return l, s.bounds(l, q)
}

var (
	containerStates = []string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}
	healthStates    = []string{"none", "starting", "healthy", "unhealthy"}
)

// parseTests refuses the values that engines refuse. The rules are those of moby's daemon/list.go.
func (l *listing) parseTests() error {
	for _, parse := range []func() error{l.parseIDs, l.parseNames, l.parseStates, l.parseExits, l.parseLabels, l.parseUses, l.parsePorts, l.parseTask} {
		if err := parse(); err != nil {
			return err
		}
	}
	return nil
}

// either adds a test that one of a filter's values has to pass.
func (l *listing) either(name string, passes func(n *fleet.Node, c *fleet.Container, v string) bool) {
	if values := l.f[name]; len(values) > 0 {
		l.tests = append(l.tests, func(n *fleet.Node, c *fleet.Container) bool {
			return slices.ContainsFunc(values, func(v string) bool { return passes(n, c, v) })
		})
	}
}

func (l *listing) parseIDs() error {
	l.either("id", func(_ *fleet.Node, c *fleet.Container, v string) bool { return strings.HasPrefix(c.ID, v) })
	return nil
}

func (l *listing) parseStates() error {
	for _, e := range []struct {
		name  string
		words []string
	}{{"status", containerStates}, {"health", healthStates}} {
		for _, v := range l.f[e.name] {
			if !slices.Contains(e.words, v) {
				return invalidf("invalid filter '%s=%s': invalid value (%s): must be one of %s", e.name, v, v, strings.Join(e.words, ", "))
			}
		}
	}
	l.either("status", func(n *fleet.Node, c *fleet.Container, v string) bool { return v == shownState(n, c) })
	l.either("health", func(_ *fleet.Node, c *fleet.Container, v string) bool {
		return v == c.Health || v == "none" && c.Health == ""
	})
	return nil
}

func (l *listing) parseExits() error {
	exited := map[int]bool{}
	for _, v := range l.f["exited"] {
		code, err := strconv.Atoi(v)
		if err != nil {
			return invalidf("invalid filter 'exited=%s'", v)
		}
		exited[code] = true
	}
	if len(exited) > 0 {
		l.tests = append(l.tests, func(_ *fleet.Node, c *fleet.Container) bool {
			return !c.Running() && c.State != "created" && exited[c.ExitCode]
		})
	}
	return nil
}

// parseLabels reads the filters, each a key or key=value. The label of the node is the one that we show.
func (l *listing) parseLabels() error {
	for _, v := range l.f["label"] {
		key, want, hasValue := strings.Cut(v, "=")
		switch {
		case key != fleet.LabelNode:
			l.labels = append(l.labels, labelTest{key, unique.Make(want), !hasValue})
		case hasValue:
			l.tests = append(l.tests, func(n *fleet.Node, _ *fleet.Container) bool { return n.Name == want })
		}
	}
	return nil
}

func (l *listing) parseUses() error {
	l.either("volume", func(_ *fleet.Node, c *fleet.Container, v string) bool { return mounts(c, v) })
	l.either("network", func(_ *fleet.Node, c *fleet.Container, v string) bool { return attached(c, v) })
	return nil
}

func (l *listing) parsePorts() error {
	var ports []portFilter
	for _, name := range []string{"publish", "expose"} {
		for _, v := range l.f[name] {
			p, err := parsePortFilter(name, v)
			if err != nil {
				return err
			}
			ports = append(ports, p)
		}
	}
	if len(ports) > 0 {
		l.tests = append(l.tests, func(_ *fleet.Node, c *fleet.Container) bool {
			return slices.ContainsFunc(ports, func(p portFilter) bool { return p.match(c) })
		})
	}
	return nil
}

func (l *listing) parseTask() error {
	want, given, err := l.f.boolean("is-task")
	if err == nil && given {
		l.tests = append(l.tests, func(_ *fleet.Node, c *fleet.Container) bool {
			_, is := c.Labels.Lookup("com.docker.swarm.task")
			return is == want
		})
	}
	return err
}

// bounds resolves before and since, which name containers that may be on any node. As parameters of their own they look at
// all containers, as API 1.24 has it.
func (s *Server) bounds(l *listing, q url.Values) error {
	snap := s.fleet.Snapshot()
	for _, b := range []struct {
		name string
		at   *int64
	}{{"before", &l.before}, {"since", &l.since}} {
		refs := l.f[b.name]
		if v := q.Get(b.name); v != "" {
			refs, l.all = append(slices.Clone(refs), v), true
		}
		for _, ref := range refs {
			c, err := snap.Container(ref)
			if err != nil {
				return err
			}
			*b.at = c.Container.Created
		}
	}
	return nil
}

// match tells whether a container belongs into the list; nil if all do.
func (l *listing) match() test {
	if l.all && l.only == nil && l.before == 0 && l.since == 0 && len(l.tests) == 0 {
		return nil
	}
	return func(n *fleet.Node, c *fleet.Container) bool {
		switch {
		case l.only != nil && !l.only[c.ID]:
		case !l.all && (!c.Running() || n.State != fleet.Healthy):
		case l.before != 0 && c.Created >= l.before:
		case l.since != 0 && c.Created <= l.since:
		default:
			return l.passes(n, c)
		}
		return false
	}
}

func (l *listing) passes(n *fleet.Node, c *fleet.Container) bool {
	for _, passes := range l.tests {
		if !passes(n, c) {
			return false
		}
	}
	return true
}

// shownState is the container's state, or dead where its node does not answer, so that no client counts on it.
func shownState(n *fleet.Node, c *fleet.Container) string {
	if n.State != fleet.Healthy {
		return "dead"
	}
	return c.State
}

func mounts(c *fleet.Container, v string) bool {
	return slices.ContainsFunc(c.Mounts, func(m fleet.Mount) bool {
		return m.Name == v || m.Destination == v || m.Type == "bind" && m.Source == v
	})
}

func attached(c *fleet.Container, v string) bool {
	for _, a := range c.Networks {
		if a.Name == v || strings.HasPrefix(a.NetworkID, v) {
			return true
		}
	}
	return false
}

// portFilter is one value of the filters publish and expose, of which a container must meet any one.
type portFilter struct {
	published   bool // else exposed
	proto       string
	first, last uint64
}

// parsePortFilter reads port, port/proto or first-last/proto.
func parsePortFilter(name, v string) (portFilter, error) {
	if strings.Contains(v, ":") {
		return portFilter{}, invalidf("filter for '%s' should not contain ':': %s", name, v)
	}
	spec, proto, ok := strings.Cut(v, "/")
	if !ok || proto == "" {
		proto = "tcp"
	}
	p := portFilter{published: name == "publish", proto: proto}
	first, last, isRange := strings.Cut(spec, "-")
	if !isRange {
		last = first
	}
	var err1, err2 error
	p.first, err1 = strconv.ParseUint(first, 10, 16)
	p.last, err2 = strconv.ParseUint(last, 10, 16)
	if err := cmp.Or(err1, err2); err != nil {
		return portFilter{}, invalidf("error while looking up for %s %s: %v", name, v, err)
	}
	if p.last < p.first {
		return portFilter{}, invalidf("error while looking up for %s %s: invalid range specified for port: %s", name, v, spec)
	}
	return p, nil
}

// match looks at the ports of the list's row, which only running containers have.
func (p portFilter) match(c *fleet.Container) bool {
	in := func(proto string, port uint16) bool {
		return proto == p.proto && uint64(port) >= p.first && uint64(port) <= p.last
	}
	if p.published {
		return slices.ContainsFunc(c.Published, func(b fleet.Port) bool { return in(b.Proto, b.HostPort) })
	}
	return c.Running() && slices.ContainsFunc(c.Exposed, func(b fleet.Port) bool { return in(b.Proto, b.Port) }) ||
		slices.ContainsFunc(c.Published, func(b fleet.Port) bool { return in(b.Proto, b.Port) })
}

// askEngines asks for what only they know.
func (s *Server) askEngines(w http.ResponseWriter, r *request, l *listing) error {
	q := url.Values{"all": {"1"}}
	if l.size {
		q.Set("size", "1")
	}
	if l.f.has("ancestor") {
		l.only = map[string]bool{}
		q.Set("filters", filters{"ancestor": l.f["ancestor"]}.encode())
	}
	nodes := s.nodes()
	lists, errs := each(r.Context(), nodes, 30*time.Second, func(ctx context.Context, n *fleet.Node) ([]rawValueRow, error) {
		return s.askRows(ctx, n, r.version, q)
	})
	l.sizes = map[string][2]rawValue{}
	for _, rows := range lists {
		for _, row := range rows {
			if l.only != nil {
				l.only[row.id] = true
			}
			l.sizes[row.id] = [2]rawValue{row.rw, row.rootFs}
		}
	}
	return partial(w, nodes, errs)
}

type rawValueRow struct {
	id         string
	rw, rootFs rawValue
}

func (s *Server) askRows(ctx context.Context, n *fleet.Node, version string, q url.Values) ([]rawValueRow, error) {
	b, err := s.ask(ctx, n, http.MethodGet, version, "/containers/json", q, nil)
	if err != nil {
		return nil, err
	}
	raws, err := rawjson.Array(b)
	if err != nil {
		return nil, fmt.Errorf("node %s: container list: %w", n.Name, err)
	}
	var rows []rawValueRow
	for _, raw := range raws {
		o, err := rawjson.ParseTrusted(raw)
		if err != nil {
			return nil, fmt.Errorf("node %s: container list: %w", n.Name, err)
		}
		var id string
		if err := o.Decode("Id", &id); err != nil {
			return nil, fmt.Errorf("node %s: container list: %w", n.Name, err)
		}
		rows = append(rows, rawValueRow{id, o.Get("SizeRw"), o.Get("SizeRootFs")})
	}
	return rows, nil
}
