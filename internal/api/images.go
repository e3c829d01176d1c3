package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	lru "github.com/hashicorp/golang-lru/v2"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// imageIndex remembers what the snapshot does not tell of images: which node wrote a reference last, and for whom an image
// is expected where. All of it may be lost: what a reference means is then read from the events and the images' ages.
type imageIndex struct {
	writes  *lru.Cache[string, imageWrite]  // by tag
	copies  *lru.Cache[[2]string, string]   // node ID and tag → image ID: tagged by our own copies, which is no news
	aliases *lru.Cache[[2]string, string]   // node ID and image ID → the ID that a copy of it got there
	wanted  *lru.Cache[[2]string, wantedOn] // identity and reference → where a create that needs it will go

	aliased atomic.Int64 // counts the aliases
	known   known        // what references mean, as long as nothing changes

	twins *twins        // one image under several IDs
	slots chan struct{} // copies under way

	mu    sync.Mutex
	locks map[string]*keyLock // by node ID and image ID: one copy of one image to one node at a time
}

// imageWrite is the last time that a tag got a meaning through this manager.
type imageWrite struct {
	id string
	at time.Time
}

// wantedOn is a create that found no image.
type wantedOn struct {
	nodeID string
	at     time.Time
}

const (
	// wantedFor is how long a pull is expected after a create that found no image.
	wantedFor = 10 * time.Minute
	// copiesAtOnce bounds the copies between nodes, which all go through this process.
	copiesAtOnce = 4
	// remembered bounds each part of the index: clients choose the keys.
	remembered = 1 << 16
)

func newImageIndex() *imageIndex {
	return &imageIndex{
		writes: cache[string, imageWrite](), copies: cache[[2]string, string](),
		aliases: cache[[2]string, string](), wanted: cache[[2]string, wantedOn](),
		twins: newTwins(), slots: make(chan struct{}, copiesAtOnce), locks: map[string]*keyLock{},
	}
}

// alias notes that the copy of an image got another ID on a node.
func (x *imageIndex) alias(nodeID, id, got string) {
	x.aliases.Add([2]string{nodeID, id}, got)
	x.aliased.Add(1)
}

func cache[K comparable, V any]() *lru.Cache[K, V] {
	c, err := lru.New[K, V](remembered)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return c
}

// imageWritten notes that a node made or changed what a reference means. The snapshot shows it already.
func (s *Server) imageWritten(n *fleet.Node, ref string) {
	tag, _ := fleet.FamiliarRef(ref)
	now, ok := s.fleet.Snapshot().Node(n.ID)
	if tag == "" || !ok {
		return
	}
	if i, ok := now.FindImage(tag); ok {
		s.images.writes.Add(tag, imageWrite{i.ID, s.o.Now()})
		s.images.copies.Remove([2]string{n.ID, tag})
	}
}

// image is what a reference means in the fleet: one image, and the healthy nodes that have it.
type image struct {
	ref     string
	tag     string // familiar, if ref is a name with a tag
	digest  string // familiar, if ref is a name with a digest
	id      string
	holders []fleet.ImageRef // in the order of the nodes; those that know it by ref first
	named   int              // how many of the holders know it by ref
	others  []fleet.ImageRef // healthy nodes on which the reference means another image
	at      map[string]int   // node ID → its place among the holders
	ids     []string         // of the holders' nodes, in their order
}

// known are the references that have been looked up since images last changed anywhere.
type known struct {
	mu      sync.Mutex
	version uint64 // of the snapshot's images
	aliases int64  // of the index
	images  map[string]*image
}

// knownAtOnce bounds them; clients choose the references.
const knownAtOnce = 256

func (k *known) get(version uint64, aliases int64, ref string) *image {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.version != version || k.aliases != aliases {
		return nil
	}
	return k.images[ref]
}

func (k *known) put(version uint64, aliases int64, img *image) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.version != version || k.aliases != aliases || len(k.images) >= knownAtOnce || k.images == nil {
		k.version, k.aliases, k.images = version, aliases, map[string]*image{}
	}
	k.images[img.ref] = img
}

// findImage tells what a reference means now. It is always the same for all clients, whichever node is asked next.
func (s *Server) findImage(ctx context.Context, ref string) (*image, error) {
	snap, aliases := s.fleet.Snapshot(), s.images.aliased.Load()
	if img := s.images.known.get(snap.ImagesVersion(), aliases, ref); img != nil {
		return img, nil
	}
	img, clear, err := s.lookUpImage(ctx, snap, ref)
	if clear {
		s.images.known.put(snap.ImagesVersion(), aliases, img)
	}
	return img, err
}

// lookUpImage goes through the fleet. A clear image is the same for all that know the reference, and there is one kind of
// store: nothing but the snapshot and the aliases tells what it is.
func (s *Server) lookUpImage(ctx context.Context, snap *fleet.Snapshot, ref string) (img *image, clear bool, err error) {
	found, err := snap.Images(ref)
	if err != nil {
		return nil, false, err
	}
	healthy := slices.DeleteFunc(slices.Clone(found), func(f fleet.ImageRef) bool { return f.Node.State != fleet.Healthy })
	if len(healthy) == 0 {
		return nil, false, unreachableImage(ref, found[0].Node)
	}
	img = &image{ref: ref}
	img.tag, img.digest = fleet.FamiliarRef(ref)
	same := s.sameness(ctx)
	j := judge{s: s, same: same}
	img.id = j.winner(ctx, img.tag, healthy)
	for _, f := range healthy {
		if s.sameImage(same, f, img.id) {
			img.holders = append(img.holders, f)
		} else {
			img.others = append(img.others, f)
		}
	}
	img.named = len(img.holders)
	slices.SortStableFunc(img.holders, func(a, b fleet.ImageRef) int { // the ID is that of who answers
		return cmp.Compare(strangeness(a, img.id), strangeness(b, img.id))
	})
	img.number()
	s.addUnnamed(img, snap, same)
	img.number()
	return img, len(img.others) == 0 && !same.mixed, nil
}

// addUnnamed adds the nodes that have the image, but not under the reference.
func (s *Server) addUnnamed(img *image, snap *fleet.Snapshot, same *sameness) {
	for _, n := range snap.Nodes() {
		if n.State != fleet.Healthy || img.on(n.ID) {
			continue
		}
		ids := same.all(img.id)
		if alias, ok := s.images.aliases.Get([2]string{n.ID, img.id}); ok {
			ids = []string{alias}
		}
		for _, id := range ids {
			if i, ok := imageByID(n, id); ok {
				img.holders = append(img.holders, fleet.ImageRef{Node: n, Image: i})
				break
			}
		}
	}
}

// number notes where the holders are.
func (i *image) number() {
	i.at, i.ids = make(map[string]int, len(i.holders)), make([]string, len(i.holders))
	for at, h := range i.holders {
		i.ids[at] = h.Node.ID
		if _, twice := i.at[h.Node.ID]; !twice {
			i.at[h.Node.ID] = at
		}
	}
}

// strangeness orders those that have another ID for an image behind those that have this one.
func strangeness(f fleet.ImageRef, id string) int {
	if f.Image.ID == id {
		return 0
	}
	return 1
}

// imageByID finds a node's image in the order that the node keeps.
func imageByID(n *fleet.Node, id string) (*fleet.Image, bool) {
	i, ok := slices.BinarySearchFunc(n.Images, id, func(i *fleet.Image, id string) int { return strings.Compare(i.ID, id) })
	if !ok {
		return nil, false
	}
	return n.Images[i], true
}

// sameImage tells whether a node's image is the one with the ID, or a copy of it that got another: what an ID is the sum of
// depends on how an engine stores images.
func (s *Server) sameImage(same *sameness, f fleet.ImageRef, id string) bool {
	if same.key(f.Image.ID) == same.key(id) {
		return true
	}
	alias, ok := s.images.aliases.Get([2]string{f.Node.ID, id})
	return ok && alias == f.Image.ID
}

// on tells whether a node has the image, under whatever name.
func (i *image) on(nodeID string) bool {
	_, ok := i.at[nodeID]
	return ok
}

// knownOn tells whether a node has the image under the reference.
func (i *image) knownOn(nodeID string) bool {
	at, ok := i.at[nodeID]
	return ok && at < i.named
}

// first is the node that answers for the image: the same for every client and every call, or Compose takes it for changed.
func (i *image) first() *fleet.Node { return i.holders[0].Node }

// nodes are the holders'.
func (i *image) nodes() []*fleet.Node {
	nodes := make([]*fleet.Node, len(i.holders))
	for at, h := range i.holders {
		nodes[at] = h.Node
	}
	return nodes
}

// judge decides which of several images a tag means. It reads the events at most once.
type judge struct {
	s      *Server
	same   *sameness
	events []fleet.Event
	read   bool
}

// winner is the ID to show of the image that a tag means.
func (j *judge) winner(ctx context.Context, tag string, found []fleet.ImageRef) string {
	id := j.last(ctx, tag, found)
	var ids []string
	for _, f := range found {
		if j.same.key(f.Image.ID) == j.same.key(id) && !slices.Contains(ids, f.Image.ID) {
			ids = append(ids, f.Image.ID)
		}
	}
	return j.s.face(j.same, ids)
}

// last is the image that was written last: through this manager, or else as the engines' events tell, or else the one
// that was built last.
func (j *judge) last(ctx context.Context, tag string, found []fleet.ImageRef) string {
	newest := found[0].Image
	differ := false
	for _, f := range found[1:] {
		differ = differ || j.same.key(f.Image.ID) != j.same.key(newest.ID)
		if f.Image.Created > newest.Created || f.Image.Created == newest.Created && f.Image.ID < newest.ID {
			newest = f.Image
		}
	}
	if !differ {
		return newest.ID
	}
	id, at := j.lastEvent(ctx, tag, found)
	if w, ok := j.s.images.writes.Get(tag); ok && w.at.After(at) && slices.ContainsFunc(found, func(f fleet.ImageRef) bool { return f.Image.ID == w.id }) {
		id = w.id
	}
	if id == "" {
		id = newest.ID
	}
	return id
}

// lastEvent finds the node that wrote a tag last, and what the tag means there now.
func (j *judge) lastEvent(ctx context.Context, tag string, found []fleet.ImageRef) (id string, at time.Time) {
	if !j.read {
		ctx, cancel := context.WithCancel(ctx) // what follows is of no interest
		cancel()
		j.events, _ = j.s.fleet.Subscribe(ctx)
		j.read = true
	}
	for _, ev := range slices.Backward(j.events) {
		if ev.Type != "image" {
			continue
		}
		i := slices.IndexFunc(found, func(f fleet.ImageRef) bool { return f.Node.ID == ev.NodeID })
		if i < 0 || !writes(ev, tag, found[i].Image.ID) {
			continue
		}
		if ours, _ := j.s.images.copies.Get([2]string{ev.NodeID, tag}); ours == found[i].Image.ID {
			continue
		}
		when := time.Unix(0, ev.TimeNano).Add(-found[i].Node.Skew)
		if when.After(at) {
			id, at = found[i].Image.ID, when
		}
	}
	return id, at
}

// writes tells whether an event gave a tag its meaning. Loading tells the image only; pulling tells the reference only.
func writes(ev fleet.Event, tag, id string) bool {
	switch ev.Action {
	case "tag":
		name, _ := rawjson.Text(ev.Attributes, "name")
		return name == tag
	case "pull":
		return ev.ActorID == tag
	case "load", "import":
		return ev.ActorID == id
	}
	return false
}

// wantImage remembers that a create on a node waits for an image: the pull that follows goes there.
func (s *Server) wantImage(r *request, n *fleet.Node, ref string) {
	s.images.wanted.Add([2]string{Client(r.Request), canonicalRef(ref)}, wantedOn{n.ID, s.o.Now()})
}

// wantedNode is the node that a create of this client chose for an image that nobody had.
func (s *Server) wantedNode(r *request, ref string) (*fleet.Node, bool) {
	if s.images.wanted.Len() == 0 {
		return nil, false
	}
	w, ok := s.images.wanted.Get([2]string{Client(r.Request), canonicalRef(ref)})
	if !ok || s.o.Now().Sub(w.at) > wantedFor {
		return nil, false
	}
	n, ok := s.fleet.Snapshot().Node(w.nodeID)
	return n, ok && n.State == fleet.Healthy
}

// unwantImage forgets the create: it has its image, or never will.
func (s *Server) unwantImage(r *request, ref string) {
	if s.images.wanted.Len() == 0 {
		return
	}
	s.images.wanted.Remove([2]string{Client(r.Request), canonicalRef(ref)})
}

// canonicalRef is the same for all ways to write a reference.
func canonicalRef(ref string) string {
	if tag, digest := fleet.FamiliarRef(ref); tag != "" || digest != "" {
		return tag + digest
	}
	return ref
}

// joinTag makes a reference of what the API passes apart.
func joinTag(repo, tag string) string {
	switch {
	case repo == "" || tag == "":
		return repo
	case strings.Contains(tag, ":"):
		return repo + "@" + tag
	}
	return repo + ":" + tag
}

// splitTag takes a familiar tag apart again.
func splitTag(tag string) (repo, name string) {
	repo = fleet.Repository(tag)
	return repo, strings.TrimPrefix(tag[len(repo):], ":")
}

// shownRef is a reference as people write it.
func shownRef(ref string) string {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		return reference.FamiliarString(named)
	}
	return ref
}

// longestRef is more than any reference has: 255 characters of name, 128 of tag, and a digest.
const longestRef = 1024

// checkImage refuses what no image can be called, in the engine's words. A 404 would send the client to a registry for it.
func checkImage(ref string) error {
	if len(ref) > longestRef {
		return invalidf("invalid reference format: %d characters are more than a reference can have", len(ref))
	}
	if ref == "" || isPlainReference(ref) {
		return nil
	}
	if _, err := reference.ParseAnyReference(ref); err != nil {
		return invalid(err.Error())
	}
	return nil
}

// isPlainReference finds in most references what the library's expressions would: words of small letters and digits, single
// marks between them, and a tag.
func isPlainReference(ref string) bool {
	name, tag, tagged := strings.Cut(ref, ":")
	if tagged && (tag == "" || len(tag) > 128) || name == "" || len(name) > 128 {
		return false
	}
	word := false
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			word = true
		case word && (c == '/' || c == '.' || c == '-' || c == '_'):
			word = false
		default:
			return false
		}
	}
	for i := range len(tag) {
		if c := tag[i]; !isAlphanumeric(c) && c != '_' && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return word
}

// noSuchImage is the engine's text for a create.
func noSuchImage(ref string) error {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		ref = reference.FamiliarString(reference.TagNameOnly(named))
	}
	return notFound("No such image: " + ref)
}

func unreachableImage(ref string, n *fleet.Node) error {
	return unavailable(fmt.Sprintf("image %s is on node %s, which is unreachable: %s", ref, n.Name, n.Error))
}
