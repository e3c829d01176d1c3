package api

import (
	"cmp"
	"context"
	"encoding/json"
	"hash/fnv"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// builders remembers which node builds for whom. One build is several requests, some of which name the build only inside of
// an encrypted or binary stream, so all that a client does goes to one node; its cache is there too.
type builders struct {
	mu    sync.Mutex
	byWho map[string]*builder
	// dirty are the nodes on which images may have appeared that nobody told us of, with their open streams: BuildKit's
	// results are known to its client and its engine alone.
	dirty map[string]int
}

type builder struct {
	nodeID string
	used   time.Time
	open   int // streams
}

// stickyFor is how long a client keeps its builder after the last use.
const stickyFor = 30 * time.Minute

func newBuilders() *builders {
	return &builders{byWho: map[string]*builder{}, dirty: map[string]int{}}
}

// labelBuilder is the engine label of nodes that builds should go to; without any, they may go to all.
const labelBuilder = "berth.builder"

// maxBuilders is when clients that have not built for long are forgotten.
const maxBuilders = 1024

// builder is the node on which the client's builds run.
func (s *Server) builder(r *request) (*fleet.Node, error) {
	return s.builderOf(Client(r.Request), func(idle []string) (*fleet.Node, error) {
		return s.chooseBuilder(r, schedule.Rules{}, "", idle, isBuilder)
	})
}

// builderOf is the node that builds for whom, chosen if there is none yet.
func (s *Server) builderOf(who string, choose func(idle []string) (*fleet.Node, error)) (*fleet.Node, error) {
	b, now := s.builders, s.o.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if is := b.byWho[who]; is != nil && (is.open > 0 || now.Sub(is.used) <= stickyFor) {
		if n, ok := s.fleet.Snapshot().Node(is.nodeID); ok && n.State == fleet.Healthy {
			is.used = now
			return n, nil
		}
	}
	n, err := choose(b.idle(s.nodes(), now))
	if err != nil {
		return nil, err
	}
	if len(b.byWho) >= maxBuilders {
		maps.DeleteFunc(b.byWho, func(_ string, b *builder) bool { return b.open == 0 && now.Sub(b.used) > stickyFor })
	}
	b.byWho[who] = &builder{nodeID: n.ID, used: now}
	return n, nil
}

// idle are the IDs of the nodes that fewer clients build on than on others; none if all are alike. b.mu is held.
func (b *builders) idle(nodes []*fleet.Node, now time.Time) []string {
	clients := map[string]int{}
	for _, is := range b.byWho {
		if is.open > 0 || now.Sub(is.used) <= stickyFor {
			clients[is.nodeID]++
		}
	}
	slices.SortStableFunc(nodes, func(x, y *fleet.Node) int { return cmp.Compare(clients[x.ID], clients[y.ID]) })
	var ids []string
	for _, n := range nodes {
		if clients[n.ID] > clients[nodes[0].ID] {
			return ids
		}
		ids = append(ids, n.ID)
	}
	return nil
}

// chooseBuilder asks the scheduler, as for a container that asks for nothing but what is given. The idle are taken where the
// strategy sees no difference. Nodes of which a preference is true are chosen from as long as there are any.
func (s *Server) chooseBuilder(r *request, rules schedule.Rules, platform string, idle []string, prefer ...func(*fleet.Node) bool) (*fleet.Node, error) {
	nodes := s.nodes()
	if len(nodes) == 0 {
		return nil, errNoNode
	}
	want := &schedule.Request{Name: "build", Rules: rules, Prefer: idle, Exclude: map[string]string{}, Seed: seedOf(Client(r.Request))}
	if want.OS, want.Arch, _ = strings.Cut(platform, "/"); want.Arch != "" {
		want.Arch, _, _ = strings.Cut(want.Arch, "/")
	}
	for _, good := range prefer {
		if !slices.ContainsFunc(nodes, good) {
			continue
		}
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *fleet.Node) bool {
			if !good(n) {
				want.Exclude[n.ID] = "is no builder (label " + labelBuilder + ")"
			}
			return !good(n)
		})
	}
	n, err := s.fleet.Place(want)
	if err != nil && len(rules.Constraints)+len(rules.Affinities) == 0 {
		// A build is no container: that all slots are taken does not keep it out, nor does a foreign platform.
		return nodes[0], nil
	}
	return n, err
}

func isBuilder(n *fleet.Node) bool {
	return n.Labels[labelBuilder] != "" && n.Labels[labelBuilder] != "false"
}

func seedOf(who string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(who)) // a hash takes everything
	return h.Sum64()
}

// stream notes a stream to a builder until done is called.
func (b *builders) stream(who, nodeID string, now func() time.Time) (done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	is := b.byWho[who]
	if is == nil || is.nodeID != nodeID {
		is = new(builder) // a build of its own, by rules
	}
	is.open++
	b.dirty[nodeID]++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		is.open--
		is.used = now()
		b.dirty[nodeID]--
	}
}

// onBuilder hands one of a build's requests to the client's builder.
func onBuilder(s *Server, w http.ResponseWriter, r *request) error {
	n, err := s.builder(r)
	if err != nil {
		return err
	}
	defer s.builders.stream(Client(r.Request), n.ID, s.o.Now)()
	return s.forward(w, r, n, forwarding{})
}

// buildImage runs on the client's builder, or where constraints and affinities among the build arguments want it.
func buildImage(s *Server, w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	rules, ruled, err := takeRules(q)
	if err != nil {
		return err
	}
	var n *fleet.Node
	if ruled {
		n, err = s.chooseBuilder(r, rules, q.Get("platform"), nil, isBuilder)
	} else {
		n, err = s.builder(r)
	}
	if err != nil {
		return err
	}
	defer s.builders.stream(Client(r.Request), n.ID, s.o.Now)()
	f := forwarding{before: atEnd(func() { s.imagesChanged(r, n, q["t"]...) })} //nolint:bodyclose // the proxy closes it
	if ruled {
		f.query = q
	}
	return s.forward(w, r, n, f)
}

// takeRules takes the scheduler's rules out of the build arguments, where classic Swarm had them.
func takeRules(q url.Values) (rules schedule.Rules, found bool, err error) {
	raw := q.Get("buildargs")
	if raw == "" {
		return rules, false, nil
	}
	args, err := rawjson.Parse([]byte(raw))
	if err != nil {
		return rules, false, invalidf("error in buildargs: %v", err)
	}
	kept := new(rawjson.Object)
	var env []string
	for _, k := range args.Keys() {
		var v *string
		if err := json.Unmarshal(args.Get(k), &v); err != nil {
			return rules, false, invalidf("error in buildargs: %s: %v", k, err)
		}
		isRule := strings.HasPrefix(k, "constraint:") || strings.HasPrefix(k, "affinity:")
		if !isRule || v == nil {
			kept.SetRaw(k, args.Get(k))
			continue
		}
		env = append(env, k+"="+*v)
	}
	if len(env) == 0 {
		return rules, false, nil
	}
	q.Set("buildargs", string(kept.Bytes()))
	rules, _, _, err = schedule.ParseRules(env, nil)
	return rules, true, err
}

// pruneBuilds prunes every node's build cache.
func pruneBuilds(s *Server, w http.ResponseWriter, r *request) error {
	return s.prune(w, r, "CachesDeleted", fleet.KindImage)
}

// cancelBuild is told to every node: none minds a build that it does not know.
func cancelBuild(s *Server, w http.ResponseWriter, r *request) error {
	nodes := s.nodes()
	if len(nodes) == 0 {
		return errNoNode
	}
	codes, errs := each(r.Context(), nodes, listDeadline, func(ctx context.Context, n *fleet.Node) (int, error) {
		code, b, err := s.call(ctx, n, http.MethodPost, r.version, r.path, r.URL.Query(), nil, nil)
		if err == nil && code/100 != 2 {
			err = &statusError{status: code, message: engineMessage(b)}
		}
		return code, err
	})
	if err := partial(w, nodes, errs); err != nil {
		return worst(errs)
	}
	w.WriteHeader(codes[slices.Index(errs, nil)])
	return nil
}

// settleBuilds brings the picture of nodes up to date that BuildKit streams were open to, so that an image that was just
// built is found.
func (s *Server) settleBuilds(ctx context.Context) {
	var ids []string
	b := s.builders
	b.mu.Lock()
	for id, open := range b.dirty {
		ids = append(ids, id)
		if open == 0 {
			delete(b.dirty, id)
		}
	}
	b.mu.Unlock()
	for _, id := range ids {
		n, ok := s.fleet.Snapshot().Node(id)
		if !ok || n.State != fleet.Healthy {
			continue
		}
		s.refresh(ctx, n, fleet.KindImage, "")
		s.noteTags(n)
	}
}

// noteTags takes the tags that are new since an older picture of a node for written now.
func (s *Server) noteTags(old *fleet.Node) {
	now, ok := s.fleet.Snapshot().Node(old.ID)
	if !ok {
		return
	}
	before := map[string]string{}
	for _, i := range old.Images {
		for _, t := range i.RepoTags {
			before[t] = i.ID
		}
	}
	for _, i := range now.Images {
		for _, t := range i.RepoTags {
			ours, _ := s.images.copies.Get([2]string{now.ID, t})
			if before[t] != i.ID && ours != i.ID {
				s.imageWritten(now, t)
			}
		}
	}
}
