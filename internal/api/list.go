package api

import (
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
	names  []*regexp.Regexp
	exited map[int]bool
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
		"label!", "name", "network", "node", "publish", "since", "status", "volume")
	if err != nil {
		return nil, err
	}
	l := &listing{all: flag(q, "all"), size: flag(q, "size"), f: f, exited: map[int]bool{}}
	if v := q.Get("limit"); v != "" {
		if l.limit, err = strconv.Atoi(v); err != nil {
			return nil, invalidf("limit: %q is not a number", v)
		}
	}
	// -1 is what old clients send for no limit. A limit looks at all containers, as in the engine.
	l.all = l.all || l.limit > 0 || f.has("status")
	for _, v := range f["name"] {
		re, err := regexp.Compile(v)
		if err != nil {
			return nil, invalidf("invalid filter 'name=%s': %v", v, err)
		}
		l.names = append(l.names, re)
	}
	for _, v := range f["exited"] {
		code, err := strconv.Atoi(v)
		if err != nil {
			return nil, invalidf("invalid filter 'exited=%s'", v)
		}
		l.exited[code] = true
	}
	for _, v := range f["status"] {
		if !slices.Contains([]string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}, v) {
			return nil, invalidf("invalid filter 'status=%s'", v)
		}
	}
	if _, _, err := f.boolean("is-task"); err != nil {
		return nil, err
	}
	return l, s.bounds(l, q)
}

// bounds resolves before and since, which name containers that may be on any node.
func (s *Server) bounds(l *listing, q url.Values) error {
	snap := s.fleet.Snapshot()
	for _, b := range []struct {
		name string
		at   *int64
	}{{"before", &l.before}, {"since", &l.since}} {
		refs := l.f[b.name]
		if v := q.Get(b.name); v != "" {
			refs = append(refs, v)
		}
		for _, ref := range refs {
			c, err := snap.Container(ref)
			if err != nil {
				return err
			}
			*b.at = c.Container.Created
		}
	}
	if l.before != 0 || l.since != 0 {
		l.all = true
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
	case l.f.has("label!") && l.f.labels("label!", labelOf(n, c)):
	case !l.f.any("volume", func(v string) bool { return mounts(c, v) }):
	case !l.f.any("network", func(v string) bool { return attached(c, v) }):
	case !l.f.any("publish", func(v string) bool { return published(c.Published, v, true) }):
	case !l.f.any("expose", func(v string) bool { return exposed(c, v) }):
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
	return slices.ContainsFunc(l.names, func(re *regexp.Regexp) bool {
		// The engine tries the name with and without its slash.
		if re.MatchString("/"+c.Name) || re.MatchString(c.Name) {
			return true
		}
		return slices.ContainsFunc(c.Aliases, func(a string) bool { return re.MatchString("/"+a) || re.MatchString(a) })
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
		if name == v || a.NetworkID == v || len(v) >= 12 && strings.HasPrefix(a.NetworkID, v) {
			return true
		}
	}
	return false
}

// published reads the publish filter: port, range and protocol, of the host's side or the container's.
func published(ports []fleet.Port, v string, host bool) bool {
	spec, proto, ok := strings.Cut(v, "/")
	if !ok {
		proto = "tcp"
	}
	first, last, isRange := strings.Cut(spec, "-")
	if !isRange {
		last = first
	}
	lo, err1 := strconv.Atoi(first)
	hi, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil {
		return false
	}
	return slices.ContainsFunc(ports, func(p fleet.Port) bool {
		in := func(port uint16) bool { return int(port) >= lo && int(port) <= hi }
		return p.Proto == proto && (in(p.Port) || host && in(p.HostPort))
	})
}

func exposed(c *fleet.Container, v string) bool { return published(c.Exposed, v, false) }

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
