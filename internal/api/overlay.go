package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// Drivers of networks, as clients name them.
const (
	driverOverlay = "overlay"
	driverBridge  = "bridge"
)

// spans tells whether a network that is to be made reaches over hosts. Docker's own command line always names a driver: its bridge
// is what others leave empty, unless the scope is said too.
func (s *Server) spans(m *making) (bool, error) {
	var b struct {
		Scope      string
		ConfigOnly bool
		ConfigFrom *struct{ Network string }
		Options    map[string]string
	}
	if err := decodeBody(m.body, &b); err != nil {
		return false, err
	}
	if m.driver == driverOverlay {
		return true, nil
	}
	unsaid := m.driver == "" || m.driver == "default" || m.driver == driverBridge && strings.HasPrefix(m.r.UserAgent(), "Docker-Client/")
	bridge := slices.ContainsFunc(slices.Collect(maps.Keys(b.Options)), func(k string) bool { return strings.HasPrefix(k, "com.docker.network.bridge.") })
	if s.o.Overlay == nil || !unsaid || bridge || m.pinned != nil || b.Scope == "local" || b.ConfigOnly || b.ConfigFrom != nil && b.ConfigFrom.Network != "" {
		return false, nil
	}
	_, on := s.o.Overlay.Defaults()
	return on, nil
}

// createOverlay makes a network that reaches over hosts: any swarm manager makes it for all.
func (s *Server) createOverlay(w http.ResponseWriter, m *making) error {
	n, err := s.swarmManager()
	if err != nil {
		return err
	}
	if err := s.freeSubnets(m); err != nil {
		return err
	}
	m.body.Set("Driver", driverOverlay)
	m.body.Set("Attachable", true) // or none but services could be in it
	m.body.Delete("Scope")
	if s.o.Overlay != nil {
		if err := m.defaults(s.o.Overlay); err != nil {
			return err
		}
	}
	m.spans = true
	return s.make(w, m, n, nil)
}

// defaults adds the options that the operator wants on new networks to those of the client.
func (m *making) defaults(o Overlay) error {
	defaults, _ := o.Defaults()
	options, err := m.body.Object("Options")
	if err != nil {
		return invalidf("request body: %v", err)
	}
	changed := false
	for _, k := range slices.Sorted(maps.Keys(defaults)) {
		if !options.Has(k) {
			options.Set(k, defaults[k])
			changed = true
		}
	}
	if changed {
		m.body.Set("Options", options)
	}
	return nil
}

// swarmManager is a node that can change overlay networks.
func (s *Server) swarmManager() (*fleet.Node, error) {
	var best *fleet.Node
	for _, n := range s.nodes() {
		if n.Swarm.Manager && n.Swarm.Active() && (best == nil || rankManager(n) < rankManager(best)) {
			best = n
		}
	}
	if best != nil {
		return best, nil
	}
	why := "overlay networks need Swarm mode beneath, and no node that answers is a manager of one"
	if s.o.Overlay != nil {
		if st := s.o.Overlay.Status(); len(st.Problems) > 0 {
			return nil, unavailable(why + ": " + st.Problems[0])
		} else if st.On {
			return nil, unavailable(why + " yet: it is being formed; berth overlay status tells how far it is")
		}
	}
	return nil, unavailable(why + ": start berth serve with --overlay, or call berth overlay up")
}

// rankManager puts the managers of berth's own swarm first, and those that know of a quorum.
func rankManager(n *fleet.Node) int {
	switch {
	case n.Swarm.Cluster == "":
		return 2
	case n.Swarm.Labels["berth.overlay"] == "":
		return 1
	}
	return 0
}

// freeSubnets refuses addresses that a network of a node has already, or the node itself: Swarm mode would take them, and
// containers there would not reach the one or the other.
func (s *Server) freeSubnets(m *making) error {
	var b struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
	if err := decodeBody(m.body, &b); err != nil {
		return err
	}
	for _, c := range b.IPAM.Config {
		if c.Subnet == "" {
			continue
		}
		want, err := netip.ParsePrefix(c.Subnet)
		if err != nil {
			return invalidf("invalid subnet %s: %v", c.Subnet, err)
		}
		for _, n := range s.fleet.Snapshot().Nodes() {
			if ip, err := netip.ParseAddr(n.IP); err == nil && want.Contains(ip.Unmap()) && !ip.IsLoopback() {
				return forbidden(fmt.Sprintf("Pool overlaps with other one on this address space: subnet %s has the address %s of node %s in it", c.Subnet, n.IP, n.Name))
			}
			for _, o := range n.Networks {
				if slices.ContainsFunc(o.Subnets(), want.Overlaps) {
					where := " of node " + n.Name
					if o.Spans() {
						where = ""
					}
					return forbidden(fmt.Sprintf("Pool overlaps with other one on this address space: subnet %s overlaps with network %s%s", c.Subnet, o.Name, where))
				}
			}
		}
	}
	return nil
}

func forbidden(message string) error {
	return &statusError{status: http.StatusForbidden, message: message}
}

// holders are the nodes that have a network which reaches over hosts, managers first: they know all of it.
func holders(found []fleet.NetworkRef) []fleet.NetworkRef {
	sorted := slices.Clone(found)
	slices.SortStableFunc(sorted, func(a, b fleet.NetworkRef) int { return rankHolder(a) - rankHolder(b) })
	return sorted
}

func rankHolder(f fleet.NetworkRef) int {
	switch {
	case f.Node.State != fleet.Healthy:
		return 2
	case !f.Node.Swarm.Manager:
		return 1
	}
	return 0
}

// inspectOverlay is a manager's answer with the containers of all nodes that have the network, each with its node.
func (s *Server) inspectOverlay(w http.ResponseWriter, r *request, found []fleet.NetworkRef) error {
	s.fleet.Settle(r.Context(), fleet.KindContainer)
	var nodes []*fleet.Node
	for _, n := range s.aware(holders(found)) {
		if n.State == fleet.Healthy {
			nodes = append(nodes, n)
		} else {
			w.Header().Add("X-Berth-Partial", n.Name)
		}
	}
	if len(nodes) == 0 {
		return unavailable(fmt.Sprintf("network %s: no node that has it answers", found[0].Network.Name))
	}
	answers, errs := each(r.Context(), nodes, listDeadline, func(ctx context.Context, n *fleet.Node) (*rawjson.Object, error) {
		b, err := s.ask(ctx, n, http.MethodGet, r.version, "/networks/"+found[0].Network.ID, r.URL.Query(), nil)
		if err != nil {
			return nil, err
		}
		return rawjson.ParseTrusted(b)
	})
	if err := partial(w, nodes, errs); err != nil {
		return err
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
		if err := addContainers(containers, o, nodes[i]); err != nil {
			return err
		}
		if !whole.Has("Peers") && o.Has("Peers") {
			whole.SetRaw("Peers", o.Get("Peers")) // which only who has containers in it knows
		}
	}
	whole.Set("Containers", containers)
	writeRaw(w, http.StatusOK, append(whole.Bytes(), '\n'))
	return nil
}

// aware are the nodes that have a network, and those that have containers in it and have not said so yet.
func (s *Server) aware(found []fleet.NetworkRef) []*fleet.Node {
	id := found[0].Network.ID
	var nodes []*fleet.Node
	for _, f := range found {
		nodes = append(nodes, f.Node)
	}
	for _, n := range s.fleet.Snapshot().Nodes() {
		has := slices.ContainsFunc(nodes, func(o *fleet.Node) bool { return o.ID == n.ID })
		if !has && slices.ContainsFunc(n.Containers, func(c *fleet.Container) bool {
			return c.Running() && slices.ContainsFunc(c.Networks, func(a fleet.Attachment) bool { return a.NetworkID == id })
		}) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// addContainers adds one node's containers, and the node to each. What engines list besides, the end of their own in a network, is
// on every node and no container.
func addContainers(all, inspection *rawjson.Object, n *fleet.Node) error {
	here, err := inspection.Object("Containers")
	if err != nil {
		return fmt.Errorf("node %s: inspect network: %w", n.Name, err)
	}
	for _, id := range here.Keys() {
		if strings.HasPrefix(id, "lb-") {
			continue
		}
		c, err := rawjson.ParseTrusted(here.Get(id))
		if err != nil {
			return fmt.Errorf("node %s: inspect network: %w", n.Name, err)
		}
		c.Set("Node", n.Name)
		all.Set(id, c)
	}
	return nil
}

// How long what Swarm mode does in its own time is waited for.
const (
	overlayPatience = 10 * time.Second
	overlayRetry    = 250 * time.Millisecond
)

// usersOf are the running containers in a network, as node/name, and those of them whose nodes do not answer.
func usersOf(snap *fleet.Snapshot, id string) (users, silent []string) {
	for _, n := range snap.Nodes() {
		for _, c := range n.Containers {
			if !c.Running() || !slices.ContainsFunc(c.Networks, func(a fleet.Attachment) bool { return a.NetworkID == id }) {
				continue
			}
			if n.State == fleet.Healthy {
				users = append(users, n.Name+"/"+c.Name)
			} else {
				silent = append(silent, n.Name+"/"+c.Name)
			}
		}
	}
	return users, silent
}

// removeOverlay has a manager remove the network. That containers have left it is known there a moment later.
func (s *Server) removeOverlay(w http.ResponseWriter, r *request, network *fleet.Network) error {
	s.fleet.Settle(r.Context(), fleet.KindContainer)
	users, silent := usersOf(s.fleet.Snapshot(), network.ID)
	if len(users) > 0 {
		return forbidden(fmt.Sprintf("error while removing network: network %s id %s has active endpoints: %s", network.Name, network.ID, strings.Join(users, ", ")))
	}
	n, err := s.swarmManager()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), overlayPatience)
	defer cancel()
	for {
		code, b, err := s.call(context.WithoutCancel(ctx), n, http.MethodDelete, r.version, "/networks/"+network.ID, nil, nil, nil)
		switch {
		case err != nil:
			return err
		case code < 300 || code == http.StatusNotFound:
			s.forgetOverlay(r.Context(), network)
			w.Header().Set("X-Berth-Node", n.Name)
			if code == http.StatusNotFound {
				return notFound(engineMessage(b))
			}
			w.WriteHeader(code)
			return nil
		case code != http.StatusBadRequest: // which is what "in use by a task" is
			return &statusError{status: code, message: engineMessage(b)}
		case len(silent) > 0 || ctx.Err() != nil || !sleep(ctx, overlayRetry):
			return s.stillUsed(network, silent, engineMessage(b))
		}
	}
}

// stillUsed says what keeps a network that no container is seen in.
func (s *Server) stillUsed(network *fleet.Network, silent []string, text string) error {
	if len(silent) == 0 {
		return forbidden(fmt.Sprintf("error while removing network: network %s id %s is still in use: %s", network.Name, network.ID, text))
	}
	return forbidden(fmt.Sprintf("error while removing network: network %s id %s is used by containers on nodes that do not answer: %s; it can be removed when they are back, or when the nodes are removed from the fleet",
		network.Name, network.ID, strings.Join(silent, ", ")))
}

// forgetOverlay waits until no node shows a network any more.
func (s *Server) forgetOverlay(ctx context.Context, network *fleet.Network) {
	for began := s.o.Now(); s.o.Now().Sub(began) < overlayPatience; {
		left := 0
		for _, n := range s.nodes() {
			if slices.ContainsFunc(n.Networks, func(o *fleet.Network) bool { return o.ID == network.ID }) {
				left++
				s.refresh(ctx, n, fleet.KindNetwork, "")
			}
		}
		if left == 0 {
			return
		}
		if !sleep(ctx, overlayRetry/5) {
			return
		}
	}
}

// sleep tells whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
