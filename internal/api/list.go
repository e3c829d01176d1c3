package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// listing is a parsed GET /containers/json.
type listing struct {
	all    bool
	limit  int
	size   bool
	f      filters
	names  []func(name string) bool
	exited map[int]bool
	ports  []portFilter
	before int64 // created before, in nanoseconds; 0 for no bound
	since  int64
	only   map[string]bool // by ID, where only the engines can tell; nil for all
	sizes  map[string][2]rawValue
}

type rawValue = []byte

// found is one container of a list.
type found struct {
	node      *fleet.Node
	container *fleet.Container
}

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
	var hits []found
	for _, n := range snap.Nodes() {
		if !l.f.any("node", func(v string) bool { return n.Name == v || n.ID == v || n.EngineID == v }) {
			continue
		}
		if n.State != fleet.Healthy {
			w.Header().Add("X-Berth-Partial", n.Name)
		}
		for _, c := range n.Containers {
			if l.match(n, c) {
				hits = append(hits, found{n, c})
			}
		}
	}
	slices.SortStableFunc(hits, func(a, b found) int {
		switch {
		case a.container.Created > b.container.Created:
			return -1
		case a.container.Created < b.container.Created:
			return 1
		}
		return strings.Compare(a.container.ID, b.container.ID)
	})
	if l.limit > 0 && len(hits) > l.limit {
		hits = hits[:l.limit]
	}
	out, err := s.rows(hits, l)
	if err != nil {
		return err
	}
	writeRaw(w, http.StatusOK, out)
	return nil
}

func (s *Server) parseListing(r *request) (*listing, error) {
	q := r.URL.Query()
	f, err := parseFilters(q, "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label",
		"name", "network", "node", "publish", "since", "status", "volume")
	if err != nil {
		return nil, err
	}
	l := &listing{all: flag(q, "all"), size: flag(q, "size"), f: f}
	if v := q.Get("limit"); v != "" {
		if l.limit, err = strconv.Atoi(v); err != nil {
			return nil, invalidf("limit: %q is not a number", v)
		}
	}
	// -1 is what old clients send for no limit. A limit looks at all containers, as in the engine.
	l.all = l.all || l.limit > 0 || f.has("status")
	if err := l.parseValues(); err != nil {
		return nil, err
	}
	return l, s.bounds(l, q)
}

var (
	containerStates = []string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}
	healthStates    = []string{"none", "starting", "healthy", "unhealthy"}
)

// parseValues refuses the values that engines refuse.
func (l *listing) parseValues() error {
	for _, v := range l.f["name"] {
		l.names = append(l.names, nameFilter(v))
	}
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
	for _, v := range l.f["exited"] {
		code, err := strconv.Atoi(v)
		if err != nil {
			return invalidf("invalid filter 'exited=%s'", v)
		}
		if l.exited == nil {
			l.exited = map[int]bool{}
		}
		l.exited[code] = true
	}
	for _, name := range []string{"publish", "expose"} {
		for _, v := range l.f[name] {
			p, err := parsePortFilter(name, v)
			if err != nil {
				return err
			}
			l.ports = append(l.ports, p)
		}
	}
	_, _, err := l.f.boolean("is-task")
	return err
}

// nameFilter is a regular expression, or the name itself for what is none.
func nameFilter(v string) func(string) bool {
	re, err := regexp.Compile(v)
	if err != nil {
		return func(name string) bool { return name == v }
	}
	return func(name string) bool { return name == v || re.MatchString(name) }
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

// match tells whether a container belongs into the list, by the rules of moby's daemon/list.go.
func (l *listing) match(n *fleet.Node, c *fleet.Container) bool {
	switch {
	case l.only != nil && !l.only[c.ID]:
	case !l.all && (!c.Running() || n.State != fleet.Healthy):
	case l.before != 0 && c.Created >= l.before:
	case l.since != 0 && c.Created <= l.since:
	case !l.f.any("id", func(v string) bool { return strings.HasPrefix(c.ID, v) }):
	case !l.matchName(c):
	case !l.f.equal("status", shownState(n, c)):
	case l.f.has("exited") && (c.Running() || c.State == "created" || !l.exited[c.ExitCode]):
	case !l.f.any("health", func(v string) bool { return v == c.Health || v == "none" && c.Health == "" }):
	case !l.f.labels("label", labelOf(n, c)):
	case !l.f.any("volume", func(v string) bool { return mounts(c, v) }):
	case !l.f.any("network", func(v string) bool { return attached(c, v) }):
	case len(l.ports) > 0 && !slices.ContainsFunc(l.ports, func(p portFilter) bool { return p.match(c) }):
	case !l.matchTask(c):
	default:
		return true
	}
	return false
}

// shownState is the container's state, or dead where its node does not answer, so that no client counts on it.
func shownState(n *fleet.Node, c *fleet.Container) string {
	if n.State != fleet.Healthy {
		return "dead"
	}
	return c.State
}

func (l *listing) matchName(c *fleet.Container) bool {
	if len(l.names) == 0 {
		return true
	}
	return slices.ContainsFunc(l.names, func(match func(string) bool) bool {
		// The engine tries the name with and without its slash.
		if match("/"+c.Name) || match(c.Name) {
			return true
		}
		return slices.ContainsFunc(c.Aliases, func(a string) bool { return match("/"+a) || match(a) })
	})
}

func (l *listing) matchTask(c *fleet.Container) bool {
	want, given, err := l.f.boolean("is-task")
	if err != nil || !given {
		return true // an error was refused when it was parsed
	}
	_, is := c.Labels["com.docker.swarm.task"]
	return is == want
}

// labelOf reads a container's labels together with the one that we show.
func labelOf(n *fleet.Node, c *fleet.Container) func(string) (string, bool) {
	return func(k string) (string, bool) {
		if k == fleet.LabelNode {
			return n.Name, true
		}
		v, ok := c.Labels[k]
		return v, ok
	}
}

func mounts(c *fleet.Container, v string) bool {
	return slices.ContainsFunc(c.Mounts, func(m fleet.Mount) bool {
		return m.Name == v || m.Destination == v || m.Type == "bind" && m.Source == v
	})
}

func attached(c *fleet.Container, v string) bool {
	for name, a := range c.Networks {
		if name == v || strings.HasPrefix(a.NetworkID, v) {
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

// rows joins the rows that the engines gave with the statuses of this moment.
func (s *Server) rows(hits []found, l *listing) ([]byte, error) {
	size := 3
	for _, h := range hits {
		size += len(h.container.Head) + len(h.container.Tail) + 48
	}
	out := append(make([]byte, 0, size), '[')
	now := s.o.Now()
	for i, h := range hits {
		if i > 0 {
			out = append(out, ',')
		}
		c := h.container
		if h.node.State == fleet.Healthy && !l.size {
			out = append(out, c.Head...)
			out = append(out, rawjson.Encode(c.StatusAt(now.Add(h.node.Skew)))...)
			out = append(out, c.Tail...)
			continue
		}
		row, err := s.editedRow(h, l, now)
		if err != nil {
			return nil, err
		}
		out = append(out, row...)
	}
	return append(out, ']', '\n'), nil
}

// editedRow is a row with sizes, or of a container whose node does not answer.
func (s *Server) editedRow(h found, l *listing, now time.Time) ([]byte, error) {
	c := h.container
	status := c.StatusAt(now.Add(h.node.Skew))
	if h.node.State != fleet.Healthy {
		status = "Host Down (node " + h.node.Name + " is unreachable)"
	}
	row := append(append(slices.Clone(c.Head), rawjson.Encode(status)...), c.Tail...)
	o, err := rawjson.ParseTrusted(row)
	if err != nil {
		return nil, fmt.Errorf("row of container %s: %w", c.ID, err)
	}
	o.Set("State", shownState(h.node, c))
	if sizes, ok := l.sizes[c.ID]; ok && l.size {
		for i, key := range []string{"SizeRw", "SizeRootFs"} {
			if sizes[i] != nil {
				o.SetRaw(key, sizes[i])
			}
		}
	}
	return o.Bytes(), nil
}
