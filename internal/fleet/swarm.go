package fleet

import (
	"net/http"
	"strings"
)

// Swarm is what an engine says of the Swarm-mode cluster that it is in: what carries overlay networks from node to node.
type Swarm struct {
	State    string            // inactive, pending, active, error, locked; "" of engines without Swarm mode
	NodeID   string            // its own ID there
	Addr     string            // that it gives the others
	Manager  bool              // it has a say in the cluster
	Cluster  string            // the cluster's ID; workers do not know it, nor managers without a quorum
	Labels   map[string]string // of the cluster, where its ID is known
	Managers []string          // IDs of the managers that it knows
	Error    string
}

// Active tells whether it takes part.
func (s *Swarm) Active() bool { return s.State == "active" }

// In tells whether it takes part in a cluster, by the IDs of that one's managers.
func (s *Swarm) In(managers map[string]bool) bool {
	if !s.Active() {
		return false
	}
	for _, id := range s.Managers {
		if managers[id] {
			return true
		}
	}
	return managers[s.NodeID]
}

// SwarmManagers are the IDs of a cluster's managers, as far as nodes of the fleet say that they are; of all clusters for "".
func (s *Snapshot) SwarmManagers(cluster string) map[string]bool {
	ids := map[string]bool{}
	for n := range s.byName.all() {
		if n.Swarm.Manager && (cluster == "" || n.Swarm.Cluster == cluster) {
			ids[n.Swarm.NodeID] = true
		}
	}
	return ids
}

// SwarmOf is the ID of the cluster that a node is in; "" if none of its managers says so.
func (s *Snapshot) SwarmOf(n *Node) string {
	if n.Swarm.Cluster != "" || !n.Swarm.Active() {
		return n.Swarm.Cluster
	}
	for other := range s.byName.all() {
		if other.Swarm.Cluster != "" && other.Swarm.Manager && n.Swarm.In(map[string]bool{other.Swarm.NodeID: true}) {
			return other.Swarm.Cluster
		}
	}
	return ""
}

// OverlayStatus is how the networks across hosts are.
type OverlayStatus struct {
	On        bool
	State     string // off, waiting, forming, ready, degraded, no quorum
	Swarm     string // the ID of the Swarm-mode cluster that carries them
	Ours      bool   // berth formed it
	Encrypted bool   // new networks are
	MTU       int    // of the hosts' links, where it was said
	Managers  int    // of that cluster
	Reachable int    // of its managers
	Members   int    // nodes of the fleet in it
	Nodes     []OverlayNode
	Networks  []OverlayNetwork
	Problems  []string // what is wrong, and what is to be done
}

// OverlayNode is a node of the fleet as it takes part in overlay networks.
type OverlayNode struct {
	Name, Role, State, Addr string
	Reason                  string `json:",omitempty"` // why it does not take part
}

// OverlayNetwork is one of them.
type OverlayNetwork struct {
	ID, Name   string
	Containers []string // that run in it, as node/name
}

// The networks that Swarm mode makes for itself.
const (
	NetworkIngress = "ingress"
	NetworkGateway = "docker_gwbridge"
)

// Spans tells whether the network reaches over hosts.
func (n *Network) Spans() bool { return n.Scope != "local" && !n.Predefined() }

// IsSwarmNetworkID tells Swarm mode's IDs of networks, 25 characters long, from the engines' own, which have 64.
func IsSwarmNetworkID(id string) bool { return len(id) == 25 }

// OptionAddress marks, among the driver options of a container's place in an overlay network, an address that was asked for:
// Swarm mode writes the one that it chose into the same field.
const OptionAddress = "berth.address"

// PassingNetworkFailure tells an engine's failure to bring a container into an overlay network that is over in a moment: the node has
// not heard of the network, or another container's leaving has just taken it away. Engines have no status for that: 404 and 500 are
// all there is, and what will never work has the same.
func PassingNetworkFailure(status int, message string) bool {
	if status != http.StatusNotFound && status < http.StatusInternalServerError {
		return false
	}
	message = strings.ToLower(message)
	for _, text := range []string{
		"could not attach to network", "attaching to network failed", "could not find network", "subnet sandbox join failed", "network sandbox join failed",
		"does not have a leader", "lost leader status", "no such network", "error creating vxlan interface", "raft:",
	} {
		if strings.Contains(message, text) {
			return true
		}
	}
	return strings.Contains(message, "network ") && strings.Contains(message, " not found")
}
