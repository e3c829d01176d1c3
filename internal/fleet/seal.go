package fleet

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unique"
)

// LabelSlots is the engine label that bounds how many containers its node takes.
const LabelSlots = "containerslots"

// Text is a string that is stored once however many nodes have it, so that comparing two is comparing addresses.
type Text = unique.Handle[string]

// Figures are what placement compares of all nodes.
type Figures struct {
	Hash                     uint64 // of the node's ID, the same in every process
	Memory, NanoCPUs         int64  // what the node has
	UsedMemory, UsedNanoCPUs int64  // what its containers may use
	Containers, Running      int32
	Slots                    int32 // how many containers it takes by its label containerslots
}

// Facts is what placement asks of a node, close together: reading it costs what the memory costs. It is made by Seal and not changed.
//
// The lists behind the atomic pointers are made when first asked for, since most fleets never ask. Any goroutine may make
// one, two that race make the same, and once stored it is not changed either.
type Facts struct {
	Figures

	labels    []label
	mayTake   [4]uint64 // a bit for each of hostPorts: most questions are answered by one that is not set
	hostPorts []uint64  // taken host ports, each with the place of its container in ofContainers, in order
	values    atomic.Pointer[labelValues]
	images    atomic.Pointer[[]Text]
	byAge     atomic.Pointer[[]Aged]
	columns   atomic.Pointer[labelColumn]
	names     atomic.Pointer[string]

	exposed []Port // by containers on the host's network
	guarded []*Container
	rescued []*Container
	tally   tally
	id      Text // the node's

	// What the lists were made from.
	ofLabels     map[string]string
	ofContainers []*Container
	ofImages     []*Image
}

type label struct{ key, value Text }

// Seal computes what follows from a node's fields and is asked for often. Whoever builds a Node calls it once, as the last
// thing before publishing it. A Node that began as a copy of a sealed one keeps what still holds, so a list that changed
// must be a new slice, as published data demands anyway.
func (n *Node) Seal() *Node {
	n.facts = newFacts(n, n.facts)
	n.Sum = n.facts.tally.Sum
	return n
}

// Facts of a node that was not sealed are made anew each time.
func (n *Node) Facts() *Facts {
	if n.facts == nil {
		return newFacts(n, nil)
	}
	return n.facts
}

func newFacts(n *Node, old *Facts) *Facts {
	if old == nil {
		old = new(Facts)
	}
	t := old.tally.after(old.ofContainers, n.Containers)
	f := &Facts{
		Figures: Figures{
			Hash: fnv(n.ID), Memory: n.Memory, NanoCPUs: n.CPUs * 1e9, Slots: slots(n.Labels),
			UsedMemory: t.Memory, UsedNanoCPUs: t.NanoCPUs,
			Containers: int32(len(n.Containers)) - t.relays, Running: int32(t.Running+t.Paused) - t.relaysUp,
		},
		tally: t, id: old.id,
		ofLabels: n.Labels, ofContainers: n.Containers, ofImages: n.Images,
	}
	if old.id == (Text{}) || old.id.Value() != n.ID {
		f.id = unique.Make(n.ID)
	}
	if t.binding > 0 {
		f.addPorts(n.Containers)
	}
	if t.watched > 0 {
		f.guarded, f.rescued = watched(n.Containers)
	}
	if old.labels != nil && maps.Equal(old.ofLabels, n.Labels) {
		f.labels = old.labels
	} else {
		f.labels = labelsOf(n.Labels)
	}
	if same(old.ofContainers, n.Containers) {
		f.values.Store(old.values.Load())
		f.byAge.Store(old.byAge.Load())
		f.columns.Store(old.columns.Load())
		f.names.Store(old.names.Load())
	}
	if same(old.ofImages, n.Images) {
		f.images.Store(old.images.Load())
	}
	return f
}

// watched finds those that matter when a node is lost.
func watched(cs []*Container) (guarded, rescued []*Container) {
	for _, c := range cs {
		if c.Reschedule != RescheduleOff && !c.Relay {
			guarded = append(guarded, c)
		}
		if c.Rescued != nil {
			rescued = append(rescued, c)
		}
	}
	return guarded, rescued
}

// Guarded are the node's containers that have a reschedule policy. The slice must not be changed.
func (f *Facts) Guarded() []*Container { return f.guarded }

// Rescued are those that took the place of containers of lost nodes. The slice must not be changed.
func (f *Facts) Rescued() []*Container { return f.rescued }

func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// slots of a node without the label, or with something else than a number in it, are endless, as in Swarm.
func slots(labels map[string]string) int32 {
	v, ok := labels[LabelSlots]
	if !ok {
		return math.MaxInt32
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return math.MaxInt32
	}
	return int32(n)
}

func labelsOf(m map[string]string) []label {
	list := make([]label, 0, len(m))
	for k, v := range m {
		list = append(list, label{unique.Make(k), unique.Make(v)})
	}
	return list
}

// fnv is FNV-1a.
func fnv(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// Label is the node's label of that key, or else what missing says.
func (f *Facts) Label(key, missing Text) Text {
	for i := range f.labels {
		if f.labels[i].key == key {
			return f.labels[i].value
		}
	}
	return missing
}

func (f *Facts) addPorts(cs []*Container) {
	most := 0
	for _, c := range cs {
		most += len(c.Wanted) + len(c.Published)
	}
	f.hostPorts = make([]uint64, 0, most)
	for i, c := range cs {
		f.addHostPorts(i, c.Wanted)
		f.addHostPorts(i, c.Published)
		if c.NetworkMode == "host" {
			f.exposed = append(f.exposed, c.Exposed...)
		}
	}
	slices.Sort(f.hostPorts)
	f.hostPorts = slices.Compact(f.hostPorts)
}

func (f *Facts) addHostPorts(container int, ports []Port) {
	for _, p := range ports {
		if p.HostPort != 0 {
			f.hostPorts = append(f.hostPorts, uint64(p.HostPort)<<32|uint64(container))
			word, bit := portBit(p.HostPort)
			f.mayTake[word] |= bit
		}
	}
}

func portBit(port uint16) (word int, bit uint64) { return int(port / 64 % 4), 1 << (port % 64) }

// PortTaken tells whether a container of the node, running or not, has or wants the host port.
func (f *Facts) PortTaken(p Port) bool {
	if word, bit := portBit(p.HostPort); f.mayTake[word]&bit == 0 {
		return false
	}
	i, _ := slices.BinarySearch(f.hostPorts, uint64(p.HostPort)<<32)
	for ; i < len(f.hostPorts) && f.hostPorts[i]>>32 == uint64(p.HostPort); i++ {
		c := f.ofContainers[uint32(f.hostPorts[i])]
		if slices.ContainsFunc(c.Wanted, p.Overlaps) || slices.ContainsFunc(c.Published, p.Overlaps) {
			return true
		}
	}
	return false
}

// ExposedOnHost tells whether a container on the host's network exposes the port.
func (f *Facts) ExposedOnHost(p Port) bool { return slices.ContainsFunc(f.exposed, p.SameExposed) }

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

// Aged is a container with what it is ordered by in lists, so that ordering need not look at it.
type Aged struct {
	*Container
	Born  int64  // Created
	Begin uint64 // the beginning of its ID, as a number of the same order
}

// Aged is the container as it is ordered by.
func (c *Container) Aged() Aged { return Aged{c, c.Created, beginning(c.ID)} }

// Before tells whether lists show a in front of b: the younger, or that with the lower ID.
func (a *Aged) Before(b *Aged) bool {
	switch {
	case a.Born != b.Born:
		return a.Born > b.Born
	case a.Begin != b.Begin:
		return a.Begin < b.Begin
	}
	return a.ID < b.ID
}

// ByAge are the node's containers in the order of lists. The slice must not be changed.
func (f *Facts) ByAge() []Aged {
	if known := f.byAge.Load(); known != nil {
		return *known
	}
	as := make([]Aged, len(f.ofContainers))
	for i, c := range f.ofContainers {
		as[i] = c.Aged()
	}
	slices.SortFunc(as, func(a, b Aged) int {
		if a.Before(&b) {
			return -1
		}
		return 1
	})
	f.byAge.Store(&as)
	return as
}

// Names are the names and aliases of all containers in one text, NamesPart(name) of each, so that a node without a name is
// passed over without a look at its containers.
func (f *Facts) Names() string {
	if known := f.names.Load(); known != nil {
		return *known
	}
	var b strings.Builder
	for _, c := range f.ofContainers {
		for _, name := range append([]string{c.Name}, c.Aliases...) {
			b.WriteString(NamesPart(name))
		}
	}
	names := b.String()
	f.names.Store(&names)
	return names
}

// NamesPart is a whole name as it stands in Names.
func NamesPart(name string) string { return "\x00" + name + "\x00" }

// labelColumn is one label of all containers in the order of ByAge, and those of the labels asked for before.
type labelColumn struct {
	key    string
	values []Text
	next   *labelColumn
}

// NoLabel stands in a column for a container without the label. No label has this value.
var NoLabel = unique.Make("\x00no label")

// Column is the value that each container has for a label, in the order of ByAge. The slice must not be changed.
func (f *Facts) Column(key string) []Text {
	known := f.columns.Load()
	kept := 1
	for c := known; c != nil; c = c.next {
		if c.key == key {
			return c.values
		}
		kept++
	}
	as := f.ByAge()
	c := &labelColumn{key: key, values: make([]Text, len(as)), next: known}
	for i, a := range as {
		c.values[i] = NoLabel
		if v, ok := a.Labels.Lookup(key); ok {
			c.values[i] = unique.Make(v)
		}
	}
	if kept > keptLabels {
		c.next = nil // start again, rather than keep account of which were asked for last
	}
	f.columns.Store(c) // what a racing store loses is made again
	return c.values
}

// labelValues is the different values of one container label on a node, and those of the labels asked for before.
type labelValues struct {
	key    Text
	values []Text
	next   *labelValues
}

// keptLabels bounds how many label keys a node remembers the values of: clients choose the keys.
const keptLabels = 8

// LabelValues are the different values that the node's containers have for a label; a container without the label has the
// value "". The slice must not be changed.
func (f *Facts) LabelValues(key Text) []Text {
	known := f.values.Load()
	kept := 1
	for l := known; l != nil; l = l.next {
		if l.key == key {
			return l.values
		}
		kept++
	}
	l := &labelValues{key: key, values: valuesOf(f.ofContainers, key.Value()), next: known}
	if kept > keptLabels {
		l.next = nil // start again, rather than keep account of which were asked for last
	}
	f.values.Store(l) // what a racing store loses is made again
	return l.values
}

func valuesOf(cs []*Container, key string) []Text {
	values := make([]string, len(cs))
	for i, c := range cs {
		values[i] = c.Labels.Get(key)
	}
	slices.Sort(values)
	values = slices.Compact(values)
	texts := make([]Text, len(values))
	for i, v := range values {
		texts[i] = unique.Make(v)
	}
	return texts
}

// ImageNames are all names of the node's images: ID, repo:tag, repo and repo@digest. The slice must not be changed.
func (f *Facts) ImageNames() []Text {
	if known := f.images.Load(); known != nil {
		return *known
	}
	names := namesOf(f.ofImages)
	f.images.Store(&names)
	return names
}

func namesOf(images []*Image) []Text {
	var names []string
	for _, i := range images {
		names = append(names, i.ID)
		for _, refs := range [][]string{i.RepoTags, i.RepoDigests} {
			for _, ref := range refs {
				if !strings.HasPrefix(ref, "<none>") {
					names = append(names, ref, Repository(ref))
				}
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	texts := make([]Text, len(names))
	for i, name := range names {
		texts[i] = unique.Make(name)
	}
	return texts
}

// Repository cuts the tag or digest off an image reference.
func Repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}
