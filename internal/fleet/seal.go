package fleet

import (
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
)

// LabelSlots is the engine label that bounds how many containers its node takes.
const LabelSlots = "containerslots"

// keptLabels bounds how many label keys a node remembers the values of: clients choose the keys.
const keptLabels = 8

// index is what placement asks of a node and nobody should work out twice. The eager part is cheap for every publish. The
// lists behind the atomic pointers are made when first asked for, since most fleets never ask: any goroutine may make one,
// two that race make the same, and once stored it is never changed.
type index struct {
	hash     uint64
	slots    int
	limited  bool
	ports    []Port // taken host ports, by HostPort
	hostPort []uint16
	exposed  []Port // by containers on the host's network

	containers []*Container // what labels was made from
	labels     atomic.Pointer[[]labelValues]
	images     []*Image // what imageNames was made from
	imageNames atomic.Pointer[imageNames]
}

type labelValues struct {
	key    string
	values []string
}

type imageNames struct {
	list []string
	set  map[string]struct{}
}

// Seal computes what follows from a node's lists and is asked for often. Whoever builds a Node calls it once, as the last
// thing before publishing it. A Node that began as a copy of a sealed one keeps what still holds, so a list that changed
// must be a new slice, as published data demands anyway.
func (n *Node) Seal() *Node {
	n.Sum = AddUp(n.Containers)
	old := n.index
	n.index = newIndex(n)
	if old == nil {
		return n
	}
	if same(old.containers, n.Containers) {
		n.index.labels.Store(old.labels.Load())
	}
	if same(old.images, n.Images) {
		n.index.imageNames.Store(old.imageNames.Load())
	}
	return n
}

func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func newIndex(n *Node) *index {
	x := &index{hash: fnv(n.ID), containers: n.Containers, images: n.Images}
	if v, ok := n.Labels[LabelSlots]; ok {
		slots, err := strconv.Atoi(v)
		x.slots, x.limited = slots, err == nil // anything but a number is no limit, as in Swarm
	}
	for _, c := range n.Containers {
		for _, p := range c.Wanted {
			if p.HostPort != 0 {
				x.ports = append(x.ports, p)
			}
		}
		for _, p := range c.Published {
			if p.HostPort != 0 && !slices.Contains(c.Wanted, p) {
				x.ports = append(x.ports, p)
			}
		}
		if c.NetworkMode == "host" {
			x.exposed = append(x.exposed, c.Exposed...)
		}
	}
	slices.SortFunc(x.ports, func(a, b Port) int { return int(a.HostPort) - int(b.HostPort) })
	x.hostPort = make([]uint16, len(x.ports))
	for i, p := range x.ports {
		x.hostPort[i] = p.HostPort
	}
	return x
}

// derived is the node's index; a node that nobody sealed pays for it each time.
func (n *Node) derived() *index {
	if n.index == nil {
		return newIndex(n)
	}
	return n.index
}

// fnv is FNV-1a, the same on every manager.
func fnv(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// Hash is a hash of the node's ID that is the same in every process.
func (n *Node) Hash() uint64 {
	if n.index == nil {
		return fnv(n.ID)
	}
	return n.index.hash
}

// Slots is how many containers the node takes by its label containerslots, and whether it has such a limit.
func (n *Node) Slots() (limit int, limited bool) {
	x := n.derived()
	return x.slots, x.limited
}

// PortTaken tells whether a container of the node, running or not, has or wants the host port.
func (n *Node) PortTaken(p Port) bool {
	x := n.derived()
	i := sort.Search(len(x.hostPort), func(i int) bool { return x.hostPort[i] >= p.HostPort })
	for ; i < len(x.ports) && x.hostPort[i] == p.HostPort; i++ {
		if x.ports[i].Overlaps(p) {
			return true
		}
	}
	return false
}

// ExposedOnHost tells whether a container on the host's network exposes the port.
func (n *Node) ExposedOnHost(p Port) bool {
	return slices.ContainsFunc(n.derived().exposed, p.SameExposed)
}

// SameExposed tells whether two ports are the same to containers that share a network.
func (p Port) SameExposed(q Port) bool { return p.Port == q.Port && p.proto() == q.proto() }

// Overlaps tells whether both cannot be bound on one host.
func (p Port) Overlaps(q Port) bool {
	return p.HostPort == q.HostPort && p.proto() == q.proto() && overlap(p.HostIP, q.HostIP)
}

func (p Port) proto() string {
	if p.Proto == "" {
		return "tcp"
	}
	return p.Proto
}

// overlap compares host addresses: "" is every address, 0.0.0.0 every IPv4 one and :: every IPv6 one. What is not an
// address is taken for every address, so that nothing is given away twice.
func overlap(a, b string) bool {
	if a == b || a == "" || b == "" {
		return true
	}
	x, errX := netip.ParseAddr(strings.Trim(a, "[]"))
	y, errY := netip.ParseAddr(strings.Trim(b, "[]"))
	if errX != nil || errY != nil {
		return true
	}
	x, y = x.Unmap(), y.Unmap()
	return x == y || x.Is4() == y.Is4() && (x.IsUnspecified() || y.IsUnspecified())
}

// LabelValues are the different values that the node's containers have for a label, sorted; a container without the label
// has the value "". The slice must not be changed.
func (n *Node) LabelValues(key string) []string {
	if n.index == nil {
		return valuesOf(n.Containers, key)
	}
	var kept []labelValues
	if have := n.index.labels.Load(); have != nil {
		kept = *have
	}
	for _, l := range kept {
		if l.key == key {
			return l.values
		}
	}
	values := valuesOf(n.Containers, key)
	next := append([]labelValues{{key, values}}, kept...)
	next = slices.Clip(next[:min(len(next), keptLabels)])
	n.index.labels.Store(&next) // what a racing store loses is made again
	return values
}

func valuesOf(cs []*Container, key string) []string {
	values := make([]string, len(cs))
	for i, c := range cs {
		values[i] = c.Labels[key]
	}
	slices.Sort(values)
	return slices.Clone(slices.Compact(values)) // the array may be much larger than what is left in it
}

// ImageNames are all names of the node's images: ID, repo:tag, repo and repo@digest. The slice must not be changed.
func (n *Node) ImageNames() []string { return n.allImageNames().list }

// HasImageName tells whether one of ImageNames is name.
func (n *Node) HasImageName(name string) bool {
	_, ok := n.allImageNames().set[name]
	return ok
}

func (n *Node) allImageNames() *imageNames {
	if n.index == nil {
		return namesOf(n.Images)
	}
	if have := n.index.imageNames.Load(); have != nil {
		return have
	}
	names := namesOf(n.Images)
	n.index.imageNames.Store(names)
	return names
}

func namesOf(images []*Image) *imageNames {
	names := &imageNames{set: make(map[string]struct{}, 4*len(images))}
	add := func(s string) {
		if _, had := names.set[s]; !had && !strings.HasPrefix(s, "<none>") {
			names.set[s] = struct{}{}
			names.list = append(names.list, s)
		}
	}
	for _, i := range images {
		add(i.ID)
		for _, tag := range i.RepoTags {
			add(tag)
			add(Repository(tag))
		}
		for _, digest := range i.RepoDigests {
			add(digest)
			add(Repository(digest))
		}
	}
	return names
}

// Repository cuts the tag or digest off an image reference.
func Repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}
