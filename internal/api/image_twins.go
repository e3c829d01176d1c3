package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// twins knows which images are the same although their IDs differ. An ID is the sum of an image's configuration where an
// engine keeps images in its own store, and of a manifest where containerd keeps them. What an image is made of is asked
// of an engine once for each ID, and only where two kinds of store have images of one age.
type twins struct {
	contents *lru.Cache[string, content] // by image ID
	shown    *lru.Cache[string, string]  // sum of a content → the ID that clients are told
	copies   *lru.Cache[string, bool]    // IDs that copies of ours got
	told     *lru.Cache[string, bool]    // IDs that clients were told when the image had no other

	mu   sync.Mutex
	of   []storeState // what same was made from
	same *sameness
}

// content is what an image is made of.
type content struct {
	sum    string
	tagged time.Time // when its engine tagged it last
}

// storeState tells whether a node's images have changed.
type storeState struct {
	node, driver string
	images       int
	first        *fleet.Image
}

// sameness groups IDs that are one image's. It is not changed once it is made.
type sameness struct {
	mixed bool                // there are several kinds of store
	sums  map[string]string   // ID → sum, of images that have several IDs
	ids   map[string][]string // sum → those IDs, in order
}

func newTwins() *twins {
	return &twins{contents: cache[string, content](), shown: cache[string, string](), copies: cache[string, bool](), told: cache[string, bool](), same: &sameness{}}
}

// seekTwinsLimit is how long engines have to tell what images are made of. An image that is not told of is its own.
const seekTwinsLimit = 2 * time.Second

// sameness returns how the IDs of the fleet's images belong together.
func (s *Server) sameness(ctx context.Context) *sameness {
	t, nodes := s.images.twins, s.nodes()
	if len(nodes) == 0 || !slices.ContainsFunc(nodes, func(n *fleet.Node) bool { return n.StorageDriver != nodes[0].StorageDriver }) {
		return &sameness{}
	}
	state := make([]storeState, len(nodes))
	for i, n := range nodes {
		state[i] = storeState{node: n.ID, driver: n.StorageDriver, images: len(n.Images)}
		if len(n.Images) > 0 {
			state[i].first = n.Images[0]
		}
	}
	t.mu.Lock()
	same, known := t.same, slices.Equal(t.of, state)
	t.mu.Unlock()
	if known {
		return same
	}
	same, complete := s.compareImages(ctx, nodes)
	if complete {
		t.mu.Lock()
		t.of, t.same = state, same
		t.mu.Unlock()
	}
	return same
}

// compareImages looks for one image in two kinds of store: its age is the same in both.
func (s *Server) compareImages(ctx context.Context, nodes []*fleet.Node) (same *sameness, complete bool) {
	ages := map[int64]map[string]fleet.ImageRef{} // by ID: one of those that have it
	stores := map[int64]string{}                  // the only kind of store with images of that age; "" for several
	for _, n := range nodes {
		for _, i := range n.Images {
			if ages[i.Created] == nil {
				ages[i.Created], stores[i.Created] = map[string]fleet.ImageRef{}, n.StorageDriver
			}
			ages[i.Created][i.ID] = fleet.ImageRef{Node: n, Image: i}
			if stores[i.Created] != n.StorageDriver {
				stores[i.Created] = ""
			}
		}
	}
	var asked []fleet.ImageRef
	for age, byID := range ages {
		if len(byID) < 2 || stores[age] != "" {
			continue
		}
		for _, ref := range byID {
			asked = append(asked, ref)
		}
	}
	contents, complete := s.contents(ctx, asked)
	return groupBySum(contents), complete
}

// contents asks for what images are made of, as far as that is not known.
func (s *Server) contents(ctx context.Context, refs []fleet.ImageRef) (known map[string]content, complete bool) {
	known, complete = map[string]content{}, true
	var nodes []*fleet.Node
	var ids []string
	for _, f := range refs {
		if c, ok := s.images.twins.contents.Get(f.Image.ID); ok {
			known[f.Image.ID] = c
			continue
		}
		nodes, ids = append(nodes, f.Node), append(ids, f.Image.ID)
	}
	answers := make([]content, len(nodes))
	errs := onNodes(nodes, fanOut, func(i int, n *fleet.Node) (err error) {
		ctx, cancel := context.WithTimeout(ctx, seekTwinsLimit)
		defer cancel()
		answers[i], err = s.content(ctx, n, ids[i])
		return err
	})
	for i, err := range errs {
		if err != nil {
			complete = false // it is asked again next time
			continue
		}
		s.images.twins.contents.Add(ids[i], answers[i])
		known[ids[i]] = answers[i]
	}
	return known, complete
}

// content asks a node what an image is made of.
func (s *Server) content(ctx context.Context, n *fleet.Node, id string) (content, error) {
	b, err := s.ask(ctx, n, http.MethodGet, n.API, "/images/"+id+"/json", nil, nil)
	if err != nil {
		return content{}, err
	}
	// Empty values are left out, since engines write them in different ways.
	var is struct {
		Created      time.Time `json:",omitzero"`
		Architecture string    `json:",omitempty"`
		OS           string    `json:"Os,omitempty"`
		RootFS       struct {
			Layers []string `json:",omitempty"`
		}
		Config struct {
			User, WorkingDir, StopSignal string            `json:",omitempty"`
			Env, Cmd, Entrypoint         []string          `json:",omitempty"`
			Labels                       map[string]string `json:",omitempty"`
			ExposedPorts, Volumes        map[string]any    `json:",omitempty"`
		}
	}
	var meta struct {
		Metadata struct{ LastTagTime time.Time }
	}
	if err := decode(n, "inspect image", b, &is); err != nil {
		return content{}, err
	}
	if err := decode(n, "inspect image", b, &meta); err != nil {
		return content{}, err
	}
	sum := sha256.Sum256(rawjson.Encode(is))
	c := content{sum: hex.EncodeToString(sum[:]), tagged: meta.Metadata.LastTagTime.Add(-n.Skew)}
	if len(is.RootFS.Layers) == 0 {
		c.sum = id // nothing to compare by
	}
	return c, nil
}

func groupBySum(contents map[string]content) *sameness {
	same := &sameness{mixed: true, sums: map[string]string{}, ids: map[string][]string{}}
	for id, c := range contents {
		same.ids[c.sum] = append(same.ids[c.sum], id)
	}
	for sum, ids := range same.ids {
		if len(ids) < 2 {
			delete(same.ids, sum)
			continue
		}
		slices.Sort(ids)
		for _, id := range ids {
			same.sums[id] = sum
		}
	}
	return same
}

// key is the same for all IDs of one image.
func (s *sameness) key(id string) string {
	if sum, ok := s.sums[id]; ok {
		return s.ids[sum][0]
	}
	return id
}

// all are the IDs of the image.
func (s *sameness) all(id string) []string {
	if sum, ok := s.sums[id]; ok {
		return s.ids[sum]
	}
	return []string{id}
}

// face is the ID that clients are told of an image that has several, out of those that are present: always the same one, or
// Compose takes the image for changed. It is the one that was told before there were others, or else the one that was tagged
// first, since the others are copies.
func (s *Server) face(same *sameness, ids []string) string {
	t := s.images.twins
	sum, several := same.sums[ids[0]]
	if !several {
		if same.mixed {
			t.told.Add(ids[0], true)
		}
		return ids[0]
	}
	shown, known := t.shown.Get(sum)
	if known && slices.Contains(ids, shown) {
		return shown
	}
	first := slices.MinFunc(ids, func(a, b string) int {
		x, _ := t.contents.Get(a)
		y, _ := t.contents.Get(b)
		return cmp.Or(cmp.Compare(t.rank(a), t.rank(b)), x.tagged.Compare(y.tagged), strings.Compare(a, b))
	})
	if !known { // else what was shown is out of reach for a while
		t.shown.Add(sum, first)
	}
	return first
}

// rank puts what clients know in front and what is known to be a copy behind.
func (t *twins) rank(id string) int {
	switch {
	case t.told.Contains(id):
		return 0
	case t.copies.Contains(id):
		return 2
	}
	return 1
}
