package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/fleet"
)

// Members are the nodes as the operator wants them.
type Members interface {
	// SetIntent changes what is wanted of the node with the object ID, if version still is the one there; the snapshot shows it
	// then.
	SetIntent(ctx context.Context, id string, version uint64, edit func(fleet.Intent) fleet.Intent) error
	// Removed are nodes that were removed and that a source still names, by object ID.
	Removed() map[string]fleet.Intent
}

// Moves is what takes containers from node to node.
type Moves interface {
	// Report tells how far the draining of a node is.
	Report(n *fleet.Node) fleet.Draining
	// Moving names the containers that are on their way now.
	Moving() []string
	// Plan tells which containers would be better off elsewhere, at most limit of the considered ones that can move.
	Plan(ctx context.Context, limit int) (plan []fleet.Shift, considered int, err error)
	// Shift moves a container to a node, both by ID, and returns that node.
	Shift(ctx context.Context, container, to string) (*fleet.Node, error)
}

// Rescues is what starts the containers of lost nodes elsewhere.
type Rescues interface {
	// Waiting says why a container, by its ID, does not run elsewhere yet; "" if there is nothing to say.
	Waiting(id string) string
}

// memberRoutes are Swarm mode's routes for nodes, with which the stock client steers ours.
func memberRoutes() []route {
	return []route{
		{"GET", "/nodes", local, listMembers, "the fleet's nodes, as `docker node ls` shows them"},
		{"GET", "/nodes/{id}", local, inspectMember, "an object Berth is added: address, reservations, what a drain could not move"},
		{"POST", "/nodes/{id}/update", local, updateMember, "availability and added labels; see docs/nodes.md"},
		{"DELETE", "/nodes/{id}", local, removeMember, "refused while the node answers and its source names it, unless forced"},
		{"GET", "/berth/nodes/{id}/draining", local, showDraining, "berth's own: how far the draining of a node is, for `berth node update`"},
		{"GET", "/berth/rebalance", local, planRebalance, "berth's own: which containers would be better off elsewhere, for `berth rebalance`"},
		{"POST", "/berth/containers/{id}/move", owner, moveContainer, "berth's own: to the node of the parameter to"},
		{"GET", "/tasks", local, listTasks, "with filter node only: the node's containers, for `docker node ps`; else 503"},
	}
}

// member is a node as an object, with the ID that clients know it by.
type member struct {
	*fleet.Node
	object  string // its ID as one
	removed bool
}

// memberNode is Swarm mode's node with what is ours.
type memberNode struct {
	swarm.Node
	Berth memberDetail
}

type memberDetail struct {
	NodeID, Addr, IP                 string
	Containers, Running              int
	ReservedMemory, ReservedNanoCPUs int64
	Draining                         *fleet.Draining `json:",omitempty"`
}

// roster lists the nodes with their IDs. Those of cloned machines, which share an engine ID, take their address into it.
func roster(snap *fleet.Snapshot) []member {
	shared := map[string]int{}
	for _, n := range snap.Nodes() {
		shared[n.EngineID]++
	}
	all := make([]member, 0, len(snap.Nodes()))
	for _, n := range snap.Nodes() {
		m := member{Node: n, object: n.ObjectID()}
		if n.EngineID != "" && shared[n.EngineID] > 1 {
			m.object = fleet.ObjectID(n.ID)
		}
		all = append(all, m)
	}
	return all
}

// member finds a node by its ID, its name, its engine's ID or the beginning of its ID, and last among those that were removed.
func (s *Server) member(ref string) (member, error) {
	all := roster(s.fleet.Snapshot())
	for _, test := range []func(member) bool{
		func(m member) bool { return m.object == ref },
		func(m member) bool { return m.Name == ref || m.ID == ref },
		func(m member) bool { return m.EngineID == ref },
		func(m member) bool { return strings.HasPrefix(m.object, ref) },
	} {
		var found []member
		for _, m := range all {
			if test(m) {
				found = append(found, m)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return member{}, invalidf("node %s is ambiguous (%d matches found)", ref, len(found))
		}
	}
	if s.o.Members != nil {
		for id, i := range s.o.Members.Removed() {
			if id == ref || i.Name == ref || i.Addr == ref {
				n := &fleet.Node{
					EngineID: i.EngineID, Name: i.Name, Addr: i.Addr, State: fleet.Disconnected, Error: "it was removed", IntentVersion: i.Version,
				}
				return member{n, id, true}, nil
			}
		}
	}
	return member{}, notFound("node " + ref + " not found")
}

func listMembers(s *Server, w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.URL.Query(), "id", "name", "label", "node.label", "role", "membership")
	if err != nil {
		return err
	}
	s.awaitReady(r.Context())
	s.fleet.Settle(r.Context(), fleet.KindContainer)
	list := []memberNode{}
	for _, m := range roster(s.fleet.Snapshot()) {
		shown := s.showMember(m)
		of := func(labels map[string]string) func(string) (string, bool) {
			return func(k string) (string, bool) { v, ok := labels[k]; return v, ok }
		}
		if f.any("id", func(v string) bool { return strings.HasPrefix(m.object, v) }) && f.any("name", func(v string) bool { return strings.HasPrefix(m.Name, v) }) &&
			f.equal("role", string(swarm.NodeRoleWorker)) && f.equal("membership", "accepted") &&
			f.labels("label", of(shown.Description.Engine.Labels)) && f.labels("node.label", of(m.Added)) {
			list = append(list, shown)
		}
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

func inspectMember(s *Server, w http.ResponseWriter, r *request) error {
	s.awaitReady(r.Context())
	m, err := s.member(r.vars["id"])
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.showMember(m))
	return nil
}

// memberVersion is that of a node's object. It is never 0, as no index of Swarm mode is: the types of clients leave 0 out, and docker-py
// then finds no version to update from.
func memberVersion(m member) uint64 { return m.IntentVersion + 1 }

// showMember is a node as Swarm mode shows one.
func (s *Server) showMember(m member) memberNode {
	n := memberNode{}
	n.ID, n.Version.Index = m.object, memberVersion(m)
	n.CreatedAt, n.UpdatedAt = m.JoinedAt.UTC(), m.UpdatedAt.UTC()
	n.Spec = swarm.NodeSpec{
		Annotations: swarm.Annotations{Labels: m.Added}, Role: swarm.NodeRoleWorker, Availability: swarm.NodeAvailability(availability(m.Node)),
	}
	if n.Spec.Labels == nil {
		n.Spec.Labels = map[string]string{}
	}
	n.Description.Hostname = m.Name
	n.Description.Resources = swarm.Resources{NanoCPUs: m.CPUs * 1e9, MemoryBytes: m.Memory}
	n.Description.Engine.EngineVersion = m.Version
	n.Description.Platform = swarm.Platform{Architecture: m.Arch, OS: m.OS}
	describeEngine(&n.Description, m.Node)
	n.Status = swarm.NodeStatus{State: memberState(m.Node), Message: m.Error, Addr: m.IP}
	n.Berth = memberDetail{
		NodeID: m.ID, Addr: m.Addr, IP: m.IP, Containers: len(m.Containers), Running: m.Sum.Running,
		ReservedMemory: m.Sum.Memory, ReservedNanoCPUs: m.Sum.NanoCPUs,
	}
	if m.Availability == fleet.Drain && s.o.Moves != nil {
		r := s.o.Moves.Report(m.Node)
		n.Berth.Draining = &r
		if n.Status.Message == "" { // which the stock client shows
			n.Status.Message = drainMessage(r)
		}
	}
	return n
}

// drainMessage says what a drain leaves, and why.
func drainMessage(r fleet.Draining) string {
	var left []string
	for _, x := range r.Stuck {
		left = append(left, x.Name+": "+strings.Join(x.Reasons, "; "))
	}
	if len(left) == 0 {
		return ""
	}
	return "cannot be moved: " + strings.Join(left, ", ")
}

// describeEngine adds what the engine says of itself.
func describeEngine(d *swarm.NodeDescription, n *fleet.Node) {
	var info struct {
		Architecture string
		Labels       []string
		Plugins      map[string][]string
	}
	if json.Unmarshal(n.Info, &info) != nil {
		return // never reached: it has said nothing yet
	}
	if info.Architecture != "" {
		d.Platform.Architecture = info.Architecture
	}
	d.Engine.Labels = map[string]string{}
	for _, l := range info.Labels {
		k, v, _ := strings.Cut(l, "=")
		d.Engine.Labels[k] = v
	}
	for _, kind := range slices.Sorted(maps.Keys(info.Plugins)) {
		for _, name := range info.Plugins[kind] {
			d.Engine.Plugins = append(d.Engine.Plugins, swarm.PluginDescription{Type: kind, Name: name})
		}
	}
}

// showDraining tells how far the draining of a node is.
func showDraining(s *Server, w http.ResponseWriter, r *request) error {
	s.awaitReady(r.Context())
	m, err := s.member(r.vars["id"])
	if err != nil {
		return err
	}
	if s.o.Moves == nil {
		return unavailable("this manager moves no containers")
	}
	s.fleet.Settle(r.Context(), fleet.KindContainer)
	if m, err = s.member(m.object); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.o.Moves.Report(m.Node))
	return nil
}

// Rebalancing is the answer to what would even the fleet out.
type Rebalancing struct {
	Shifts     []fleet.Shift
	Considered int // containers that can move at all
}

// maxShifts bounds one plan.
const maxShifts = 1000

func planRebalance(s *Server, w http.ResponseWriter, r *request) error {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit < 1 || limit > maxShifts {
		return invalidf("limit: want a number from 1 to %d", maxShifts)
	}
	if s.o.Moves == nil {
		return unavailable("this manager moves no containers")
	}
	s.awaitReady(r.Context())
	plan, considered, err := s.o.Moves.Plan(r.Context(), limit)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, Rebalancing{plan, considered})
	return nil
}

func moveContainer(s *Server, w http.ResponseWriter, r *request) error {
	if s.o.Moves == nil {
		return unavailable("this manager moves no containers")
	}
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	to, err := s.member(r.URL.Query().Get("to"))
	if err != nil {
		return err
	}
	if to.ID == c.Node.ID {
		return conflict("container " + c.Container.Name + " is on node " + to.Name + " already")
	}
	if _, err := s.o.Moves.Shift(r.Context(), c.Container.ID, to.ID); err != nil {
		return conflict(err.Error())
	}
	writeJSON(w, http.StatusOK, fleet.Moved{Name: c.Container.Name, To: to.Name})
	return nil
}

func memberState(n *fleet.Node) swarm.NodeState {
	switch n.State {
	case fleet.Healthy:
		return swarm.NodeStateReady
	case fleet.Pending:
		return swarm.NodeStateUnknown
	case fleet.Disconnected:
		return swarm.NodeStateDisconnected
	}
	return swarm.NodeStateDown
}

func availability(n *fleet.Node) string {
	if n.Availability == "" {
		return string(fleet.Active)
	}
	return string(n.Availability)
}

// staleUpdate is what dockerd answers to an update that was made from an older state, word for word and with its status.
func staleUpdate() error {
	return &statusError{status: http.StatusInternalServerError, message: "rpc error: code = Unknown desc = update out of sequence"}
}

// noRoles answers docker node promote.
const noRoles = "the nodes of a berth fleet are all workers: its managers are `berth serve`"

func updateMember(s *Server, w http.ResponseWriter, r *request) error {
	s.awaitReady(r.Context())
	version, err := strconv.ParseUint(r.URL.Query().Get("version"), 10, 64)
	if err != nil {
		return invalidf("invalid node version '%s': %v", r.URL.Query().Get("version"), err)
	}
	o, err := body(r)
	if err != nil {
		return err
	}
	var spec struct {
		Name, Role, Availability string
		Labels                   map[string]string
	}
	if err := decodeBody(o, &spec); err != nil {
		return err
	}
	m, err := s.member(r.vars["id"])
	if err != nil {
		return err
	}
	next := fleet.Intent{
		Availability: fleet.Availability(spec.Availability), Labels: spec.Labels, EngineID: m.EngineID, Addr: m.Addr, Name: m.Name,
	}
	switch {
	case s.o.Members == nil:
		return unavailable("this manager keeps no intents for nodes")
	case spec.Role != "" && spec.Role != string(swarm.NodeRoleWorker):
		return invalid(noRoles)
	case spec.Name != "" && spec.Name != m.Name:
		return invalid("a node's name cannot be changed here")
	case m.EngineID == "" && !m.removed:
		return unavailable(fmt.Sprintf("node %s was not reached yet (%s), so nothing can be wanted of it", m.Name, m.Error))
	case version != memberVersion(m):
		return staleUpdate()
	}
	if err := checkIntent(&next); err != nil {
		return err
	}
	err = s.o.Members.SetIntent(r.Context(), m.object, m.IntentVersion, func(fleet.Intent) fleet.Intent { return next })
	if err != nil {
		return err
	}
	s.o.Log.Info("node updated", "node", m.Name, "availability", next.Availability, "labels", next.Labels)
	w.WriteHeader(http.StatusOK)
	return nil
}

// checkIntent refuses what cannot be wanted.
func checkIntent(i *fleet.Intent) error {
	switch i.Availability {
	case "":
		i.Availability = fleet.Active
	case fleet.Active, fleet.Pause, fleet.Drain:
	default:
		return invalidf("invalid availability %q: it is active, pause or drain", i.Availability)
	}
	for k := range i.Labels {
		switch k {
		case "":
			return invalid("a label needs a name")
		case "storagedriver", "kernelversion", "operatingsystem", "ostype", "node":
			return invalidf("label %s says what the engine is, and cannot be given", k)
		}
	}
	return nil
}

// removeMember takes a node out of the fleet. One that its source still names comes back by an update, or when the source
// stopped naming it for a while.
func removeMember(s *Server, w http.ResponseWriter, r *request) error {
	s.awaitReady(r.Context())
	m, err := s.member(r.vars["id"])
	switch {
	case err != nil:
		return err
	case s.o.Members == nil:
		return unavailable("this manager keeps no intents for nodes")
	case m.removed:
		return notFound("node " + r.vars["id"] + " not found: it was removed before")
	case m.State == fleet.Healthy && !flag(r.URL.Query(), "force"):
		return invalidf("node %s answers, and its source still names it (%s): take it out there, where it is made or listed "+
			"(such as `berth rm %s`); --force removes it from this fleet all the same, and its containers run on unseen", m.Name, m.Addr, m.Name)
	}
	gone := fleet.Intent{Removed: true, EngineID: m.EngineID, Addr: m.Addr, Name: m.Name}
	if err := s.o.Members.SetIntent(r.Context(), m.object, m.IntentVersion, func(fleet.Intent) fleet.Intent { return gone }); err != nil {
		return err
	}
	s.o.Log.Info("node removed", "node", m.Name, "addr", m.Addr)
	w.WriteHeader(http.StatusOK)
	return nil
}
