// Package fleet is the picture of the fleet: nodes and the containers, images, networks and volumes they hold.
//
// It is data only. What has been published in a Snapshot is never changed; a change is a new Node in a new Snapshot that
// shares everything else. So readers need no lock, and a scheduler pass sees one consistent moment.
package fleet

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// State is where a node stands, in classic Swarm's words.
type State int

const (
	// Pending nodes have never been reached.
	Pending State = iota
	// Healthy nodes answer.
	Healthy
	// Unhealthy nodes did answer once and do not now; what is known of them is the last that was seen.
	Unhealthy
	// Disconnected nodes have left the fleet.
	Disconnected
)

var stateWords = [...]string{"Pending", "Healthy", "Unhealthy", "Disconnected"}

// String is the word that docker info shows.
func (s State) String() string { return stateWords[s] }

// Label keys that berth writes or shows. The com.docker.swarm ones are classic Swarm's, read and written alike.
const (
	LabelNode        = "berth.node"  // synthetic: shown in lists and inspect, never stored
	LabelPrefix      = "berth."      // stripped from what clients send
	LabelGroup       = "berth.group" // the one berth label that clients may set: objects with the same value share a node
	LabelRelay       = "berth.relay" // on what carries the fleet's socket to containers: berth's own, and no load
	LabelTerm        = "berth.term"  // of the primary that asked for a container, where there are several managers
	LabelSwarmID     = "com.docker.swarm.id"
	LabelConstraints = "com.docker.swarm.constraints"
	LabelAffinities  = "com.docker.swarm.affinities"
	LabelWhitelists  = "com.docker.swarm.whitelists"
	LabelReschedule  = "com.docker.swarm.reschedule-policies"
	LabelProject     = "com.docker.compose.project"
	LabelMoved       = "berth.moved"   // on a container that took another's place: a Move, as JSON
	LabelRescued     = "berth.rescued" // on one that took a place because a node was lost: a Rescue, as JSON
	LabelStale       = "berth.stale"   // synthetic, in the place of all labels of one that was set aside: the name that it had
)

// Node is one engine as it was last seen.
type Node struct {
	ID       string // engine ID and address: cloned VMs share the former
	EngineID string
	Name     string // unique in the fleet
	HostName string // what the engine calls itself
	Addr     string // where it was discovered: host:port, unix:///path, ssh://…
	IP       string // the address its published ports answer on; "" if it has none

	State State
	// Health is 100 for a node without failures and falls with each; 0 means do not schedule.
	Health    int
	facts     *Facts    // what Seal derived; here because placement reads the three together
	Error     string    // why it is not Healthy; else ""
	UpdatedAt time.Time // when State or Error was last confirmed

	Version         string // of the engine
	API, MinAPI     string // newest and oldest API version it speaks
	OS, Arch        string
	OperatingSystem string
	KernelVersion   string
	StorageDriver   string
	CPUs            int64             // before overcommit
	Memory          int64             // bytes, before overcommit
	Labels          map[string]string // engine labels and the built-in ones: storagedriver, kernelversion, operatingsystem, ostype
	Info            json.RawMessage   // GET /info as the engine gave it
	VersionInfo     json.RawMessage   // GET /version as the engine gave it
	// What the operator wants; see Intent. Labels hold the added ones too.
	Availability  Availability // "" is Active
	Added         map[string]string
	IntentVersion uint64
	JoinedAt      time.Time // when this manager began to follow it
	// Swarm is the Swarm-mode cluster that it is in, NoOverlay why it can be in none; "" if nothing speaks against it.
	Swarm     Swarm
	NoOverlay string

	// Skew is the engine's clock minus ours.
	Skew time.Duration

	Containers []*Container // by ID
	Images     []*Image     // by ID
	Networks   []*Network   // by ID
	Volumes    []*Volume    // by name
	Sum        Sum
}

// Sum is what the containers of a node add up to; it is kept so that nobody has to add it up again.
type Sum struct {
	Memory   int64 // bytes, reserved by limits
	NanoCPUs int64 // reserved by --cpus or quota
	Running  int
	Paused   int
	Stopped  int
}

// Container is one container as its engine listed it, with what placement needs from its inspection.
type Container struct {
	// What lists read stands first, close together.

	// Head and Tail are the row of the container list, ready to send: Head, a JSON string with the status, Tail.
	Head, Tail []byte
	Created    int64  // Unix nanoseconds; whole seconds until it was inspected
	State      string // created, running, paused, restarting, removing, exited, dead
	Health     string // "", none, starting, healthy, unhealthy
	StartedAt  time.Time
	ID         string
	Name       string // without a slash
	Labels     Labels // the engine's own
	FinishedAt time.Time
	ExitCode   int
	Status     string // the engine's words at the time of the list

	Aliases []string // further names of old links: "web/db"
	Image   string   // as the container was created with
	ImageID string

	NetworkMode string
	Networks    []Attachment // in no order
	Mounts      []Mount
	Published   []Port // what is bound now

	// Known since the container was inspected, or created here; see Inspected.
	Inspected bool
	// Relay: it carries the fleet's socket, and is no load.
	Relay bool
	// Reschedule: what is to be done when its node is lost.
	Reschedule Reschedule
	// Moved: it takes the place of a container on another node; nil for all others.
	Moved *Move
	// Rescued: it took the place of containers whose nodes were lost; nil for all others.
	Rescued *Rescue
	// Promised: an engine has just made it, and what is known is what was asked for. Its row has not been read yet.
	Promised  bool
	Memory    int64  // bytes; 0 no limit
	NanoCPUs  int64  // from NanoCpus or CpuQuota/CpuPeriod; 0 no limit
	CPUShares int64  //
	Wanted    []Port // requested host ports, bound or not
	Exposed   []Port // exposed ports, which a host-network container occupies
	ExecIDs   []string
}

// Port is a published or wanted port. HostPort 0 is any.
type Port struct {
	Proto    string // tcp, udp, sctp
	HostIP   string // "" is all addresses
	HostPort uint16
	Port     uint16 // in the container
}

// number is the host port as text.
func (p Port) number() string { return strconv.Itoa(int(p.HostPort)) }

// String is "80/tcp".
func (p Port) String() string { return strconv.Itoa(int(p.Port)) + "/" + p.Proto }

// Attachment is a container's place in a network.
type Attachment struct {
	Name      string // of the network
	NetworkID string
	IP        string
}

// Mount is one mount of a container.
type Mount struct {
	Type, Name, Source, Destination string
}

// Image is one image of one node.
type Image struct {
	ID          string // sha256:…
	ParentID    string
	RepoTags    []string
	RepoDigests []string
	Labels      map[string]string
	Created     int64
	Size        int64
	Row         json.RawMessage // the engine's list row
}

// Network is one network of one node.
type Network struct {
	ID, Name, Driver, Scope string
	Labels                  map[string]string
	Created                 time.Time
	Row                     json.RawMessage // the engine's list row
}

// Predefined tells whether every engine has a network of this name by itself, those that Swarm mode makes among them.
func (n *Network) Predefined() bool {
	return IsPredefinedNetwork(n.Name) || n.Name == NetworkGateway || n.Name == NetworkIngress && n.Scope == "swarm"
}

// IsPredefinedNetwork is Predefined by name, for those that engines have without Swarm mode too.
func IsPredefinedNetwork(name string) bool {
	return name == "bridge" || name == "host" || name == "none"
}

// Volume is one volume of one node.
type Volume struct {
	Name, Driver, Scope string
	Labels              map[string]string
	CreatedAt           string
	Row                 json.RawMessage // the engine's list row
}

// Kind is a kind of object.
type Kind string

// The kinds of objects a node holds.
const (
	KindContainer Kind = "container"
	KindImage     Kind = "image"
	KindNetwork   Kind = "network"
	KindVolume    Kind = "volume"
)

// Event is one line of an engine's event stream.
type Event struct {
	NodeID     string
	Node       string // the node's name
	Type       string // container, image, …
	Action     string
	ActorID    string
	Attributes []byte // a JSON object, part of Raw as a rule
	Scope      string
	TimeNano   int64
	Raw        []byte // the line with the node's attributes added
	// Replay marks what happened before the manager followed the node: it is remembered, but is no news.
	Replay bool
	// Seq counts the events of this manager, starting at 1, so that a reader can tell replayed from live ones.
	Seq uint64
}

// Path puts the API version that this node should be asked with in front of an unversioned path: the client's own, moved
// into what the node speaks.
func (n *Node) Path(version, path string) string { return "/v" + n.Clamp(version) + path }

// Clamp moves an API version into the range that the node speaks.
func (n *Node) Clamp(version string) string {
	switch {
	case n.MinAPI != "" && CompareVersions(version, n.MinAPI) < 0:
		return n.MinAPI
	case n.API != "" && CompareVersions(version, n.API) > 0:
		return n.API
	}
	return version
}

// CompareVersions compares API versions such as 1.9 and 1.41, giving -1, 0 or 1.
func CompareVersions(a, b string) int {
	if a == b {
		return 0
	}
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		if d := cmp.Compare(number(x), number(y)); d != 0 {
			return d
		}
	}
	return 0
}

func number(part string) int {
	n, _ := strconv.Atoi(part) // versions are checked where they come in; anything else sorts first
	return n
}
