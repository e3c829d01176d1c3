package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"

	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// networkFilter is a parsed filter of GET /networks, by the rules of moby's daemon/network/filter.go.
type networkFilter struct {
	f        filters
	dangling *bool
	builtin  *bool
	all      []*fleet.Node
}

// around are the nodes that a network of one can have containers on.
func (p *networkFilter) around(n *fleet.Node, w *fleet.Network) []*fleet.Node {
	if w.Spans() {
		return p.all
	}
	return []*fleet.Node{n}
}

func parseNetworkFilter(q url.Values) (*networkFilter, error) {
	f, err := parseFilters(q, "dangling", "driver", "id", "label", "name", "node", "scope", "type")
	if err != nil {
		return nil, err
	}
	p := &networkFilter{f: f}
	if p.dangling, err = f.optional("dangling"); err != nil {
		return nil, err
	}
	for _, v := range f["type"] {
		if v != "builtin" && v != "custom" {
			return nil, invalidf("invalid filter: 'type'='%s'", v)
		}
		is := v == "builtin"
		p.builtin = &is
	}
	if len(f["type"]) > 1 {
		p.builtin = nil
	}
	return p, nil
}

// optional is boolean with nil for a filter that was not given.
func (f filters) optional(name string) (*bool, error) {
	v, given, err := f.boolean(name)
	if err != nil || !given {
		return nil, err
	}
	return &v, nil
}

// matches tells whether one of a filter's values is, or as a regular expression is found in, s; as engines match names.
func (f filters) matches(name, s string) bool {
	return f.any(name, func(v string) bool {
		if v == s {
			return true
		}
		re, err := regexp.Compile(v)
		return err == nil && re.MatchString(s)
	})
}

// onNode tells whether the filter `node` lets a node through.
func (f filters) onNode(n *fleet.Node) bool {
	return f.any("node", func(v string) bool { return n.Name == v || n.ID == v || n.EngineID == v })
}

func (p *networkFilter) match(n *fleet.Node, w *fleet.Network) bool {
	label := func(k string) (string, bool) {
		if k == fleet.LabelNode && !w.Predefined() && !w.Spans() {
			return n.Name, true
		}
		v, ok := w.Labels[k]
		return v, ok
	}
	switch {
	case p.builtin != nil && *p.builtin != w.Predefined():
	case p.dangling != nil && *p.dangling != (!w.Predefined() && !slices.ContainsFunc(p.around(n, w), func(n *fleet.Node) bool { return networkInUse(n, w) })):
	case !p.f.equal("driver", w.Driver):
	case !p.f.equal("scope", w.Scope):
	case !p.f.matches("id", w.ID):
	case !p.f.matches("name", w.Name):
	case !p.f.labels("label", label):
	default:
		return true
	}
	return false
}

// networkInUse tells whether a running container is connected, as engines count it.
func networkInUse(n *fleet.Node, w *fleet.Network) bool {
	return slices.ContainsFunc(n.Containers, func(c *fleet.Container) bool {
		if !c.Running() {
			return false
		}
		for _, a := range c.Networks {
			if a.NetworkID == w.ID {
				return true
			}
		}
		return false
	})
}

// representative is the node that stands for all where they are alike: always the same one while it is healthy, since
// clients compare what they are told.
func representative(nodes []*fleet.Node) *fleet.Node {
	for _, n := range nodes {
		if n.State == fleet.Healthy {
			return n
		}
	}
	for _, n := range nodes {
		if len(n.Networks) > 0 {
			return n
		}
	}
	return nil
}

// listNetworks answers from memory. Networks of nodes that do not answer are listed as they were last seen: a client that
// missed them would make them anew.
func listNetworks(s *Server, w http.ResponseWriter, r *request) error {
	p, err := parseNetworkFilter(r.URL.Query())
	if err != nil {
		return err
	}
	s.fleet.Settle(r.Context(), fleet.KindNetwork, fleet.KindContainer)
	var nodes []*fleet.Node
	p.all = s.fleet.Snapshot().Nodes()
	for _, n := range p.all {
		if p.f.onNode(n) {
			nodes = append(nodes, n)
		}
		if n.State != fleet.Healthy {
			w.Header().Add("X-Berth-Partial", n.Name)
		}
	}
	shown := representative(nodes)
	seen := map[string]bool{}
	var rows [][]byte
	for _, n := range managersFirst(nodes) {
		for _, v := range n.Networks {
			if v.Predefined() && n != shown || seen[v.ID] || !p.match(n, v) {
				continue
			}
			seen[v.ID] = true
			row, err := networkRow(n, v)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
	}
	writeRaw(w, http.StatusOK, append(joinRows(rows), '\n'))
	return nil
}

// managersFirst puts the nodes in front whose engines know all of what reaches over hosts. Without any the order is the same.
func managersFirst(nodes []*fleet.Node) []*fleet.Node {
	if !slices.ContainsFunc(nodes, func(n *fleet.Node) bool { return n.Swarm.Manager }) {
		return nodes
	}
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(a, b *fleet.Node) int {
		return rankHolder(fleet.NetworkRef{Node: a}) - rankHolder(fleet.NetworkRef{Node: b})
	})
	return sorted
}

func networkRow(n *fleet.Node, w *fleet.Network) ([]byte, error) {
	if w.Predefined() || w.Scope != "local" {
		return w.Row, nil
	}
	return labelled(w.Row, n, "")
}

// labelled adds the node's label to the row of a list, and changes its name unless that is empty.
func labelled(row []byte, n *fleet.Node, name string) ([]byte, error) {
	o, err := rawjson.ParseTrusted(row)
	if err != nil {
		return nil, fmt.Errorf("node %s: list: %w", n.Name, err)
	}
	labels, err := o.Object("Labels")
	if err != nil {
		return nil, fmt.Errorf("node %s: list: %w", n.Name, err)
	}
	labels.Set(fleet.LabelNode, n.Name)
	o.Set("Labels", labels)
	if name != "" {
		o.Set("Name", name)
	}
	return o.Bytes(), nil
}

func joinRows(rows [][]byte) []byte {
	size := 2
	for _, row := range rows {
		size += len(row) + 1
	}
	out := append(make([]byte, 0, size), '[')
	for i, row := range rows {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, row...)
	}
	return append(out, ']')
}

// createNetwork makes a network on one node, where its group is.
func createNetwork(s *Server, w http.ResponseWriter, r *request) error {
	if r.ContentLength == 0 {
		return s.anyHealthy(w, r) // the engine has the words for it
	}
	m, err := s.parseMaking(r, fleet.KindNetwork)
	if err != nil {
		return err
	}
	release, err := m.lock(r.Context(), s)
	if err != nil {
		return err
	}
	defer release()
	for _, n := range s.fleet.Snapshot().Nodes() {
		for _, o := range n.Networks {
			if o.Name == m.name && !o.Predefined() {
				return conflict(fmt.Sprintf("network with name %s already exists", m.name))
			}
		}
	}
	if spans, err := s.spans(m); err != nil {
		return err
	} else if spans {
		return s.createOverlay(w, m)
	}
	ties, err := s.configTie(r.Context(), m)
	if err != nil {
		return err
	}
	n, y, err := s.house(r.Context(), m, ties)
	if err != nil {
		return err
	}
	return s.make(w, m, n, y)
}

// configTie is that of a network to the one that has its configuration.
func (s *Server) configTie(ctx context.Context, m *making) ([]schedule.Tie, error) {
	var b struct{ ConfigFrom struct{ Network string } }
	if err := decodeBody(m.body, &b); err != nil || b.ConfigFrom.Network == "" {
		return nil, err
	}
	found, err := s.findNetworks(ctx, b.ConfigFrom.Network)
	var none *fleet.NotFoundError
	if errors.As(err, &none) {
		return nil, notFound(fmt.Sprintf("configuration network %q does not exist", b.ConfigFrom.Network))
	}
	if err != nil {
		return nil, err
	}
	tie := schedule.Tie{What: "network " + b.ConfigFrom.Network}
	for _, f := range found {
		tie.NodeIDs = append(tie.NodeIDs, f.Node.ID)
		s.groups.used(object{fleet.KindNetwork, f.Network.Name})
	}
	return []schedule.Tie{tie}, nil
}

// inspectNetwork asks the owner. The label is not added here: Compose 1 compares all labels with those in its file.
func inspectNetwork(s *Server, w http.ResponseWriter, r *request) error {
	found, err := s.findNetworks(r.Context(), r.vars["id"])
	if err != nil {
		return s.lostNetworks(err)
	}
	first := found[0]
	if first.Network.Predefined() && s.standsForAll(r.vars["id"], first) {
		return s.inspectPredefined(w, r, first.Network.Name)
	}
	if first.Network.Spans() {
		return s.inspectOverlay(w, r, found)
	}
	n := first.Node
	for _, f := range found {
		if f.Node.State == fleet.Healthy {
			n = f.Node
			break
		}
	}
	return s.forward(w, r, n, forwarding{path: "/networks/" + first.Network.ID, before: editBody(func(b []byte) ([]byte, error) { //nolint:bodyclose // proxy closes it
		if first.Network.Predefined() || first.Network.Scope == "local" {
			return ownedBy(b, n)
		}
		return b, nil
	})})
}

// standsForAll tells whether a reference means a predefined network of the whole fleet and not that of one node.
func (s *Server) standsForAll(ref string, f fleet.NetworkRef) bool {
	if ref == f.Network.Name {
		return true
	}
	if _, qualified := s.ownNode(ref); qualified {
		return false
	}
	return representative(s.fleet.Snapshot().Nodes()) == f.Node
}

// ownedBy adds the object Node to an inspection.
func ownedBy(b []byte, n *fleet.Node) ([]byte, error) {
	o, err := rawjson.ParseTrusted(b)
	if err != nil {
		return nil, fmt.Errorf("node %s: inspect: %w", n.Name, err)
	}
	o.Set("Node", map[string]any{"ID": n.ID, "Name": n.Name, "IP": n.IP, "Addr": n.Addr})
	return append(o.Bytes(), '\n'), nil
}

// inspectPredefined is the representative's network with the containers of all nodes.
func (s *Server) inspectPredefined(w http.ResponseWriter, r *request, name string) error {
	nodes := s.nodes()
	if len(nodes) == 0 {
		return unavailable("no healthy node is available in the fleet")
	}
	answers, errs := each(r.Context(), nodes, listDeadline, func(ctx context.Context, n *fleet.Node) (*rawjson.Object, error) {
		b, err := s.ask(ctx, n, http.MethodGet, r.version, "/networks/"+name, r.URL.Query(), nil)
		if err != nil {
			return nil, err
		}
		return rawjson.ParseTrusted(b)
	})
	if err := partial(w, nodes, errs); err != nil {
		return err
	}
	for _, n := range s.fleet.Snapshot().Nodes() {
		asked := slices.ContainsFunc(nodes, func(o *fleet.Node) bool { return o.ID == n.ID })
		if !asked && n.State != fleet.Healthy {
			w.Header().Add("X-Berth-Partial", n.Name)
		}
	}
	var whole *rawjson.Object
	containers := new(rawjson.Object)
	for i, o := range answers {
		if o == nil {
			continue
		}
		if whole == nil {
			whole = o
		}
		here, err := o.Object("Containers")
		if err != nil {
			return fmt.Errorf("node %s: inspect network %s: %w", nodes[i].Name, name, err)
		}
		for _, id := range here.Keys() {
			containers.SetRaw(id, here.Get(id))
		}
	}
	whole.Set("Containers", containers)
	writeRaw(w, http.StatusOK, append(whole.Bytes(), '\n'))
	return nil
}

// removeNetwork takes the network out of the picture with the answer.
func removeNetwork(s *Server, w http.ResponseWriter, r *request) error {
	found, err := s.findNetworks(r.Context(), r.vars["id"])
	if err != nil {
		return s.lostNetworks(err)
	}
	n, network := found[0].Node, found[0].Network
	if network.Predefined() {
		return &statusError{status: http.StatusForbidden, message: network.Name + " is a pre-defined network and cannot be removed"}
	}
	if network.Spans() {
		return s.removeOverlay(w, r, network)
	}
	return s.forward(w, r, n, forwarding{path: r.ownPath(network.ID), before: func(res *http.Response) error {
		if res.StatusCode < 300 || res.StatusCode == http.StatusNotFound {
			s.refresh(r.Context(), n, fleet.KindNetwork, "")
			s.groups.gone(object{fleet.KindNetwork, network.Name}, network.ID)
		}
		return nil
	}})
}

// pruneNetworks runs on every node and joins the answers.
func pruneNetworks(s *Server, w http.ResponseWriter, r *request) error {
	return s.prune(w, r, "NetworksDeleted", fleet.KindNetwork) // of which each manager of a swarm prunes all that reach over hosts
}
