package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// Overlay is what keeps the networks across hosts.
type Overlay interface {
	// Defaults are the driver options of new overlay networks, and whether networks without a driver are to be such.
	Defaults() (options map[string]string, on bool)
	Status() fleet.OverlayStatus
	// Up has them kept from now on, Down ends that, ForceNewCluster makes what is left of a swarm without a quorum work again.
	Up(ctx context.Context, wish OverlayWish) error
	Down(ctx context.Context, force bool) error
	ForceNewCluster(ctx context.Context) error
}

// OverlayWish is the body of POST /berth/overlay/up.
type OverlayWish struct {
	Settings        bool // those below are meant; else they stay as they are
	Encrypted       bool
	MTU             int
	DataInterface   string
	Pool            string
	ForceNewCluster bool
}

// overlayRoutes are berth's own, for `berth overlay`.
func overlayRoutes() []route {
	return []route{
		{"GET", "/berth/overlay", local, showOverlay, "berth's own: how the networks across hosts are, for `berth overlay status`"},
		{"POST", "/berth/overlay/up", local, overlayUp, "berth's own: have them, for `berth overlay up`"},
		{"POST", "/berth/overlay/down", local, overlayDown, "berth's own: have them no more; 409 while they are in use, unless forced"},
	}
}

func (s *Server) overlay() (Overlay, error) {
	if s.o.Overlay == nil {
		return nil, unavailable("this endpoint keeps no overlay networks")
	}
	return s.o.Overlay, nil
}

func showOverlay(s *Server, w http.ResponseWriter, _ *request) error {
	o, err := s.overlay()
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, o.Status())
	return nil
}

func overlayUp(s *Server, w http.ResponseWriter, r *request) error {
	o, err := s.overlay()
	if err != nil {
		return err
	}
	var wish OverlayWish
	b, err := body(r)
	if err == nil {
		err = decodeBody(b, &wish)
	}
	switch {
	case err != nil:
		return err
	case wish.ForceNewCluster:
		err = o.ForceNewCluster(r.Context())
	default:
		err = o.Up(r.Context(), wish)
	}
	if err != nil {
		return err
	}
	return showOverlay(s, w, r)
}

func overlayDown(s *Server, w http.ResponseWriter, r *request) error {
	o, err := s.overlay()
	if err == nil {
		err = o.Down(r.Context(), flag(r.URL.Query(), "force"))
	}
	if err != nil {
		return err
	}
	return showOverlay(s, w, r)
}

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

// spanning finds the network that a reference means if it reaches over hosts.
func (s *Server) spanning(ref string) (*fleet.Network, bool) {
	return spanning(s.fleet.Snapshot(), ref)
}

func spanning(snap *fleet.Snapshot, ref string) (*fleet.Network, bool) {
	if ref == "" || ref == "default" || fleet.IsPredefinedNetwork(ref) || strings.HasPrefix(ref, "container:") {
		return nil, false
	}
	found, err := snap.Networks(ref)
	if err != nil || !found[0].Network.Spans() {
		return nil, false
	}
	return found[0].Network, true
}

// entersOverlay tells whether a start has to bring the container into a network that reaches over hosts. Until it has been started
// for the first time engines know its networks by name alone.
func (s *Server) entersOverlay(c *fleet.Container) bool {
	return slices.ContainsFunc(c.Networks, func(a fleet.Attachment) bool {
		if a.NetworkID != "" {
			return fleet.IsSwarmNetworkID(a.NetworkID)
		}
		_, is := s.spanning(a.Name)
		return is
	})
}

// insist makes a call that brings a container into an overlay network, again as long as it fails for a passing reason.
func (s *Server) insist(ctx context.Context, n *fleet.Node, r *request, path string, body []byte) (int, []byte, error) {
	began := s.o.Now()
	for {
		header := http.Header{}
		if kind := r.Header.Get("Content-Type"); kind != "" {
			header.Set("Content-Type", kind)
		}
		code, b, err := s.call(ctx, n, http.MethodPost, r.version, path, r.URL.Query(), body, header)
		if err != nil || !fleet.PassingNetworkFailure(code, engineMessage(b)) || s.o.Now().Sub(began) > overlayPatience {
			return code, b, err
		}
		s.o.Log.Debug("brought into an overlay network again", "node", n.Name, "path", path, "error", engineMessage(b))
		if !sleep(ctx, overlayRetry) {
			return code, b, nil
		}
	}
}

// heldAddress refuses to bring a container into a network under an address that another one has: Swarm mode would let it wait for
// twenty seconds, and say nothing of why.
func (s *Server) heldAddress(ctx context.Context, c fleet.Ref, r *request) error {
	b, err := s.ask(ctx, c.Node, http.MethodGet, r.version, "/containers/"+c.Container.ID+"/json", nil, nil)
	if err != nil {
		return err
	}
	var is struct {
		HostConfig      struct{ AutoRemove bool }
		NetworkSettings struct {
			Networks map[string]struct {
				IPAMConfig *struct{ IPv4Address, IPv6Address string }
				NetworkID  string
			}
		}
	}
	if err := decode(c.Node, "inspect", b, &is); err != nil {
		return err
	}
	for name, at := range is.NetworkSettings.Networks {
		network, spans := s.spanning(name)
		if !spans || at.IPAMConfig == nil {
			continue
		}
		for _, addr := range []string{at.IPAMConfig.IPv4Address, at.IPAMConfig.IPv6Address} {
			if err := s.freeAddress(network, addr, c.Container.ID); err != nil {
				if is.HostConfig.AutoRemove {
					s.undo(ctx, c.Node, c.Container.ID) // as an engine does, and clients wait for
				}
				return err
			}
		}
	}
	return nil
}

// freeAddress refuses an address that another running container has in a network.
func (s *Server) freeAddress(network *fleet.Network, addr, except string) error {
	if addr == "" {
		return nil
	}
	for _, n := range s.fleet.Snapshot().Nodes() {
		for _, o := range n.Containers {
			if o.ID == except || !o.Running() || !slices.ContainsFunc(o.Networks, func(a fleet.Attachment) bool { return a.NetworkID == network.ID && a.IP == addr }) {
				continue
			}
			text := fmt.Sprintf("Address already in use: %s in network %s is that of %s on node %s", addr, network.Name, o.Name, n.Name)
			if n.State != fleet.Healthy {
				text += ", which does not answer"
			}
			return forbidden(text)
		}
	}
	return nil
}

// startOverlaid starts or restarts a container that uses an overlay network. claimed ends what was claimed for it.
func (s *Server) startOverlaid(w http.ResponseWriter, r *request, c fleet.Ref, claimed func(status int)) error {
	if !c.Container.Running() {
		s.fleet.Settle(r.Context(), fleet.KindContainer)
		if err := s.heldAddress(r.Context(), c, r); err != nil {
			return err
		}
	}
	b, err := body(r)
	if err != nil {
		return err
	}
	var sent []byte
	if b.Len() > 0 {
		sent = b.Bytes()
	}
	code, answer, err := s.insist(r.Context(), c.Node, r, r.ownPath(c.Container.ID), sent)
	if err != nil {
		return err
	}
	if code >= 400 && fleet.PassingNetworkFailure(code, engineMessage(answer)) {
		return s.whyNot(code, engineMessage(answer))
	}
	claimed(code)
	w.Header().Set("X-Berth-Node", c.Node.Name)
	if len(answer) == 0 {
		w.WriteHeader(code)
		return nil
	}
	writeRaw(w, code, answer)
	return nil
}

// whyNot adds what is wrong with the swarm to an engine's failure.
func (s *Server) whyNot(code int, message string) error {
	if s.o.Overlay != nil {
		if st := s.o.Overlay.Status(); len(st.Problems) > 0 {
			message += " (" + st.Problems[0] + ")"
		}
	}
	return &statusError{status: code, message: message}
}

// markedAddress is markAddress for a place that is not parsed.
func markedAddress(endpoint []byte) ([]byte, error) {
	if string(endpoint) == "null" {
		return endpoint, nil
	}
	o, err := rawjson.ParseTrusted(endpoint)
	if err != nil {
		return nil, invalidf("request body: %v", err)
	}
	if err := markAddress(o); err != nil {
		return nil, err
	}
	return o.Bytes(), nil
}

// markAddress marks the addresses that a client asks for in overlay networks, so that they are told from those that Swarm mode
// chose when the container is to be made anew elsewhere.
func markAddress(endpoint *rawjson.Object) error {
	var asked struct{ IPv4Address, IPv6Address string }
	if err := json.Unmarshal(orNull(endpoint.Get("IPAMConfig")), &asked); err != nil {
		return invalidf("request body: %v", err)
	}
	if asked.IPv4Address == "" && asked.IPv6Address == "" {
		return nil
	}
	options, err := endpoint.Object("DriverOpts")
	if err != nil {
		return invalidf("request body: %v", err)
	}
	options.Set(fleet.OptionAddress, "fixed")
	endpoint.Set("DriverOpts", options)
	return nil
}

// requireOverlay keeps a container to the nodes that can have the networks which it uses. There links are names, that can be anywhere.
func (s *Server) requireOverlay(req *schedule.Request, mode string, bonds []bond) {
	if _, is := s.spanning(mode); is {
		req.Links = nil
	}
	for _, b := range bonds {
		if b.spans {
			req.Overlays = append(req.Overlays, b.name)
			if b.swarm != "" {
				req.Swarm = b.swarm
			}
		}
	}
}

// lostNetworks says why a network may not be found: managers that have lost their quorum know none.
func (s *Server) lostNetworks(err error) error {
	if s.o.Overlay == nil || !errors.As(err, new(*fleet.NotFoundError)) {
		return err
	}
	if st := s.o.Overlay.Status(); st.State == "no quorum" && len(st.Problems) > 0 {
		return fmt.Errorf("%w (%s)", err, st.Problems[0])
	}
	return err
}
