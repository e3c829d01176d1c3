package dockertest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// cluster is the Swarm-mode cluster that several daemons are in, as far as it carries networks. Its lock is taken while a daemon's is
// held, and no daemon's while its own is.
type cluster struct {
	id, token string

	mu       sync.Mutex
	version  uint64
	spec     json.RawMessage
	nodes    []*clusterNode
	networks []*network
	held     map[string]map[string]holder // network ID → address → who has it
	subnets  int
}

// holder is a container on a node.
type holder struct{ container, node string }

// clusterNode is a daemon's entry in it. Guarded by cluster.mu.
type clusterNode struct {
	d       *Daemon
	id      string
	addr    string
	version uint64
	spec    clusterNodeSpec
	raft    bool // it has a vote
}

type clusterNodeSpec struct {
	Name         string            `json:",omitempty"`
	Labels       map[string]string `json:"Labels"`
	Role         string
	Availability string
}

// clusters are those that can be joined, by their tokens.
var clusters sync.Map

// swarmID is an ID as Swarm mode makes them.
func swarmID() string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	b := make([]byte, 25)
	_, _ = rand.Read(b) // never fails: crypto/rand.Read ends the program instead
	for i := range b {
		b[i] = digits[int(b[i])%len(digits)]
	}
	return string(b)
}

func swarmRoutes(add func(string, handler)) {
	add("POST /swarm/init", (*Daemon).initSwarm)
	add("POST /swarm/join", (*Daemon).joinSwarm)
	add("POST /swarm/leave", (*Daemon).leaveSwarm)
	add("POST /swarm/update", onManager((*Daemon).updateSwarm))
	add("GET /swarm", onManager((*Daemon).inspectSwarm))
	add("GET /nodes", onManager((*Daemon).listNodes))
	add("GET /nodes/{id}", onManager((*Daemon).inspectNode))
	add("POST /nodes/{id}/update", onManager((*Daemon).updateNode))
	add("DELETE /nodes/{id}", onManager((*Daemon).removeNode))
}

// onManager calls a handler with both locks, if the daemon is a manager of a cluster that can decide.
func onManager(h func(*Daemon, *cluster, http.ResponseWriter, *request) error) handler {
	return func(d *Daemon, w http.ResponseWriter, r *request) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		c := d.swarm
		if c == nil {
			return fail(http.StatusServiceUnavailable, "%s", notManager)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err := c.decides(d); err != nil {
			return err
		}
		return h(d, c, w, r)
	}
}

// decides is an error unless d is a manager, and most managers are there. Called with c.mu.
func (c *cluster) decides(d *Daemon) error {
	if n := c.node(d); n == nil || !n.manager() {
		return fail(http.StatusServiceUnavailable, "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.")
	}
	if !c.quorum() {
		return fail(http.StatusInternalServerError, "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.")
	}
	return nil
}

func (n *clusterNode) manager() bool { return n.spec.Role == "manager" && n.raft }
func (n *clusterNode) up() bool      { return !n.d.gone.Load() }

func (c *cluster) quorum() bool {
	up, all := 0, 0
	for _, n := range c.nodes {
		if n.manager() {
			all++
			if n.up() {
				up++
			}
		}
	}
	return 2*up > all
}

func (c *cluster) node(d *Daemon) *clusterNode {
	for _, n := range c.nodes {
		if n.d == d && n.id == d.swarmNode {
			return n
		}
	}
	return nil
}

// swarmRequest is the body of an init or a join.
type swarmRequest struct {
	AdvertiseAddr, JoinToken string
	ForceNewCluster          bool
	Spec                     json.RawMessage
}

func (d *Daemon) initSwarm(w http.ResponseWriter, r *request) error {
	var req swarmRequest
	if err := r.decode(&req, http.StatusBadRequest, "EOF"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.swarm != nil && req.ForceNewCluster:
		d.swarm.mu.Lock()
		defer d.swarm.mu.Unlock()
		for _, n := range d.swarm.nodes {
			if n.d != d {
				n.raft = false // it is to be one still
			}
		}
	case d.swarm != nil:
		return fail(http.StatusServiceUnavailable, "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.")
	default:
		c := &cluster{id: swarmID(), token: "SWMTKN-1-" + randomID() + "-" + swarmID(), spec: req.Spec, held: map[string]map[string]holder{}}
		c.networks = []*network{{
			Name: "ingress", ID: swarmID(), Created: timestamp(d.now()), Scope: "swarm", Driver: "overlay", Ingress: true,
			IPAM: ipam{Driver: "default", Config: []ipamConfig{c.nextSubnet()}}, Options: map[string]string{}, Labels: map[string]string{},
		}}
		clusters.Store(c.token, c)
		d.enterSwarm(c, req.AdvertiseAddr, "manager")
	}
	writeJSON(w, http.StatusOK, d.swarmNode)
	return nil
}

// enterSwarm adds the daemon. Called with d.mu; nobody else knows c, or c.mu is held.
func (d *Daemon) enterSwarm(c *cluster, addr, role string) {
	setDefault(&addr, d.opt.Name)
	d.swarm, d.swarmNode = c, swarmID()
	c.nodes = append(c.nodes, &clusterNode{raft: role == "manager", d: d, id: d.swarmNode, addr: addr, version: 1, spec: clusterNodeSpec{Role: role, Availability: "active", Labels: map[string]string{}}})
	gateway := d.newNetwork("docker_gwbridge", "bridge")
	gateway.IPAM.Config = []ipamConfig{d.freeSubnet()}
	d.networks = append(d.networks, gateway)
	d.emitNetwork("create", gateway)
}

func (d *Daemon) joinSwarm(w http.ResponseWriter, r *request) error {
	var req swarmRequest
	if err := r.decode(&req, http.StatusBadRequest, "EOF"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	found, ok := clusters.Load(req.JoinToken)
	if !ok {
		return fail(http.StatusBadRequest, "invalid join token")
	}
	if d.swarm != nil {
		return fail(http.StatusServiceUnavailable, "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.")
	}
	c := found.(*cluster) //nolint:errcheck,forcetypeassert // nothing else is in there
	c.mu.Lock()
	defer c.mu.Unlock()
	d.enterSwarm(c, req.AdvertiseAddr, "worker")
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *Daemon) leaveSwarm(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.swarm
	if c == nil {
		return fail(http.StatusServiceUnavailable, "This node is not part of a swarm")
	}
	c.mu.Lock()
	n := c.node(d)
	manager := n != nil && n.manager()
	c.mu.Unlock()
	if manager && !r.flag("force") {
		return fail(http.StatusServiceUnavailable, "You are attempting to leave the swarm on a node that is participating as a manager. Use `--force` to suppress this message.")
	}
	for _, o := range d.order {
		for _, e := range o.endpoints {
			if e.network != nil && e.network.Scope == "swarm" && e.live() {
				o.disconnect(e)
			}
		}
		o.endpoints = slices.DeleteFunc(o.endpoints, func(e *endpoint) bool { return e.network != nil && e.network.Scope == "swarm" && o.running() })
	}
	d.networks = slices.DeleteFunc(d.networks, func(n *network) bool { return n.Scope == "swarm" || n.Name == "docker_gwbridge" })
	d.swarm, d.swarmNode = nil, ""
	d.emitNetwork("remove", &network{ID: swarmID(), Name: "docker_gwbridge", Driver: "bridge"})
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *Daemon) inspectSwarm(c *cluster, w http.ResponseWriter, _ *request) error {
	writeJSON(w, http.StatusOK, map[string]any{
		"ID": c.id, "Version": map[string]uint64{"Index": c.version}, "Spec": orEmpty(c.spec), "JoinTokens": map[string]string{"Worker": c.token, "Manager": c.token},
	})
	return nil
}

func orEmpty(b json.RawMessage) json.RawMessage {
	if len(b) == 0 {
		return json.RawMessage("{}")
	}
	return b
}

func (d *Daemon) updateSwarm(c *cluster, w http.ResponseWriter, r *request) error {
	if r.param("version") != strconv.FormatUint(c.version, 10) {
		return fail(http.StatusInternalServerError, "rpc error: code = Unknown desc = update out of sequence")
	}
	var spec json.RawMessage
	if err := r.decode(&spec, http.StatusBadRequest, "EOF"); err != nil {
		return err
	}
	c.spec = spec
	c.version++
	w.WriteHeader(http.StatusOK)
	return nil
}

// row is a node as managers list it.
func (c *cluster) row(n *clusterNode) map[string]any {
	state := "ready"
	if !n.up() {
		state = "down"
	}
	row := map[string]any{
		"ID": n.id, "Version": map[string]uint64{"Index": n.version}, "Spec": n.spec, "Status": map[string]string{"State": state, "Addr": n.addr},
		"Description": map[string]any{"Hostname": n.d.opt.Name},
	}
	if n.manager() {
		reach := "reachable"
		if !n.up() {
			reach = "unreachable"
		}
		row["ManagerStatus"] = map[string]any{"Leader": n == c.leader(), "Reachability": reach, "Addr": n.addr + ":2377"}
	}
	return row
}

func (c *cluster) leader() *clusterNode {
	for _, n := range c.nodes {
		if n.manager() && n.up() {
			return n
		}
	}
	return nil
}

func (d *Daemon) listNodes(c *cluster, w http.ResponseWriter, _ *request) error {
	rows := []any{}
	for _, n := range c.nodes {
		rows = append(rows, c.row(n))
	}
	writeJSON(w, http.StatusOK, rows)
	return nil
}

func (c *cluster) find(id string) (*clusterNode, error) {
	for _, n := range c.nodes {
		if n.id == id {
			return n, nil
		}
	}
	return nil, fail(http.StatusNotFound, "node %s not found", id)
}

func (d *Daemon) inspectNode(c *cluster, w http.ResponseWriter, r *request) error {
	n, err := c.find(r.name)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, c.row(n))
	return nil
}

func (d *Daemon) updateNode(c *cluster, w http.ResponseWriter, r *request) error {
	n, err := c.find(r.name)
	if err != nil {
		return err
	}
	if r.param("version") != strconv.FormatUint(n.version, 10) {
		return fail(http.StatusInternalServerError, "rpc error: code = Unknown desc = update out of sequence")
	}
	var spec clusterNodeSpec
	if err := r.decode(&spec, http.StatusBadRequest, "EOF"); err != nil {
		return err
	}
	if n.spec.Role == "manager" && !n.raft && spec.Role == "worker" {
		return fail(http.StatusNotFound, "rpc error: code = NotFound desc = can't find manager in raft memberlist")
	}
	n.raft = spec.Role == "manager" && (n.raft || n.spec.Role == "worker")
	n.spec = spec
	n.version++
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *Daemon) removeNode(c *cluster, w http.ResponseWriter, r *request) error {
	n, err := c.find(r.name)
	switch {
	case err != nil:
		return err
	case n.manager():
		return fail(http.StatusBadRequest, "rpc error: code = FailedPrecondition desc = node %s is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal", n.id)
	case n.up() && !r.flag("force"):
		return fail(http.StatusBadRequest, "rpc error: code = FailedPrecondition desc = node %s is not down and can't be removed", n.id)
	}
	c.nodes = slices.DeleteFunc(c.nodes, func(o *clusterNode) bool { return o == n })
	for _, held := range c.held {
		maps.DeleteFunc(held, func(_ string, by holder) bool { return by.node == n.id })
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// swarmInfo is the part of GET /info. Called with d.mu.
func (d *Daemon) swarmInfo() map[string]any {
	info := map[string]any{"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": nil}
	c := d.swarm
	if c == nil {
		return info
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	info["NodeID"], info["LocalNodeState"] = d.swarmNode, "active"
	var managers []any
	for _, n := range c.nodes {
		if n.manager() {
			managers = append(managers, map[string]string{"NodeID": n.id, "Addr": n.addr + ":2377"})
		}
	}
	info["RemoteManagers"] = managers
	n := c.node(d)
	if n == nil {
		return info
	}
	info["NodeAddr"], info["ControlAvailable"] = n.addr, n.manager()
	if n.manager() && c.quorum() {
		info["Cluster"] = map[string]any{"ID": c.id, "Spec": orEmpty(c.spec)}
	}
	return info
}

// nextSubnet is where the cluster's next network is. Called with c.mu, or before anybody knows c.
func (c *cluster) nextSubnet() ipamConfig {
	subnet := fmt.Sprintf("10.192.%d.0/24", c.subnets)
	c.subnets++
	return ipamConfig{Subnet: subnet, Gateway: netip.MustParsePrefix(subnet).Addr().Next().String()}
}

// makeOverlay makes a network for the whole cluster. Called with d.mu.
func (d *Daemon) makeOverlay(req networkRequest) (*network, error) {
	c := d.swarm
	if c == nil {
		return nil, fail(http.StatusInternalServerError, "%s", notManager)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.node(d); n == nil || !n.manager() {
		return nil, fail(http.StatusForbidden, "Cannot create a multi-host network from a worker node. Please create the network from a manager node.")
	}
	if err := c.decides(d); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(c.networks, func(n *network) bool { return n.Name == req.Name }) {
		return nil, fail(http.StatusConflict, "network with name %s already exists", req.Name)
	}
	n := &network{
		Name: req.Name, ID: swarmID(), Created: timestamp(d.now()), Scope: "swarm", Driver: "overlay", EnableIPv6: req.EnableIPv6, Internal: req.Internal,
		Attachable: req.Attachable, IPAM: ipam{Driver: "default"}, Options: map[string]string{}, Labels: req.Labels,
	}
	for k, v := range req.Options {
		n.Options[k] = v
	}
	if req.IPAM != nil && len(req.IPAM.Config) > 0 {
		n.IPAM.Config = req.IPAM.Config
	} else {
		n.IPAM.Config = []ipamConfig{c.nextSubnet()}
	}
	c.networks = append(c.networks, n)
	return n, nil
}

// shownNetworks are the daemon's, and if it is a manager the cluster's. Called with d.mu.
func (d *Daemon) shownNetworks() []*network {
	c := d.swarm
	if c == nil {
		return d.networks
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.decides(d) != nil {
		return d.networks
	}
	all := slices.Clone(d.networks)
	for _, n := range c.networks {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

// attach has the cluster give the daemon a network that it does not know. Called with d.mu.
func (d *Daemon) attach(ref string) (*network, error) {
	c := d.swarm
	if c == nil {
		return nil, fail(http.StatusNotFound, "network %s not found", ref)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.quorum() {
		return nil, fail(http.StatusInternalServerError, "Could not attach to network %s: rpc error: code = Unknown desc = The swarm does not have a leader.", ref)
	}
	for _, n := range c.networks {
		if n.Name == ref || n.ID == ref {
			if !n.Attachable {
				return nil, fail(http.StatusForbidden, "Could not attach to network %s: rpc error: code = PermissionDenied desc = network %s not manually attachable", ref, ref)
			}
			d.networks = append(d.networks, n)
			return n, nil
		}
	}
	return nil, fail(http.StatusInternalServerError, "Could not attach to network %s: rpc error: code = NotFound desc = network %s not found", ref, ref)
}

// hold gives a container an address, the one it asks for or the next free one. Called with d.mu.
func (c *cluster) hold(n *network, by holder, want string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held[n.ID]
	if held == nil {
		held = map[string]holder{}
		c.held[n.ID] = held
	}
	if want == "" {
		a := netip.MustParsePrefix(n.IPAM.Config[0].Subnet).Masked().Addr().Next().Next()
		for held[a.String()] != (holder{}) {
			a = a.Next()
		}
		want = a.String()
	}
	if has := held[want]; has != (holder{}) && has != by {
		return "", fail(http.StatusInternalServerError, "attaching to network failed, make sure your network options are correct and check manager logs: context deadline exceeded")
	}
	held[want] = by
	return want, nil
}

// release gives a container's address back. Called with c.mu.
func (c *cluster) release(n *network, container string) {
	maps.DeleteFunc(c.held[n.ID], func(_ string, by holder) bool { return by.container == container })
}

// letGo gives back the address of a container that has left a network, and forgets the network if it was the last one here. What a
// daemon that ends had is held for it. Called with d.mu.
func (d *Daemon) letGo(n *network, container string) {
	if d.swarm == nil || d.gone.Load() {
		return
	}
	d.swarm.mu.Lock()
	defer d.swarm.mu.Unlock()
	d.swarm.release(n, container)
	if len(d.endpointsOn(n)) == 0 {
		d.networks = slices.DeleteFunc(d.networks, func(o *network) bool { return o == n })
	}
}

// removeOverlay takes a network from the cluster. Called with d.mu.
func (d *Daemon) removeOverlay(n *network) error {
	c := d.swarm
	if c == nil {
		return fail(http.StatusServiceUnavailable, "%s", notManager)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.decides(d); err != nil {
		return err
	}
	if len(c.held[n.ID]) > 0 {
		return fail(http.StatusBadRequest, "rpc error: code = FailedPrecondition desc = network %s is in use by task %s", n.ID, swarmID())
	}
	c.networks = slices.DeleteFunc(c.networks, func(o *network) bool { return o == n })
	d.networks = slices.DeleteFunc(d.networks, func(o *network) bool { return o == n })
	d.emitNetwork("remove", n)
	return nil
}

// SwarmNodes tells how a daemon's cluster sees its nodes, as "name role state" with the labels in order; nil outside of one.
func (d *Daemon) SwarmNodes() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.swarm == nil {
		return nil
	}
	d.swarm.mu.Lock()
	defer d.swarm.mu.Unlock()
	var all []string
	for _, n := range d.swarm.nodes {
		state := "ready"
		if !n.up() {
			state = "down"
		}
		words := []string{n.d.opt.Name, n.spec.Role, state}
		for _, k := range sortedKeys(n.spec.Labels) {
			words = append(words, k+"="+n.spec.Labels[k])
		}
		all = append(all, strings.Join(words, " "))
	}
	slices.Sort(all)
	return all
}

// SwarmNode is the daemon's own ID in its cluster; "" outside of one.
func (d *Daemon) SwarmNode() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.swarmNode
}
