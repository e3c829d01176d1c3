package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// refreshLimit bounds how long an answer waits for the snapshot to show what was done.
const refreshLimit = 10 * time.Second

// locate finds a container and the node it is on, which must answer.
func (s *Server) locate(ctx context.Context, ref string) (fleet.Ref, error) {
	c, err := s.fleet.Snapshot().Container(ref)
	if errors.As(err, new(*fleet.NotFoundError)) {
		s.fleet.Settle(ctx, fleet.KindContainer) // it may have been made beside us, this very moment
		c, err = s.fleet.Snapshot().Container(ref)
	}
	if err != nil {
		return fleet.Ref{}, err
	}
	if c.Node.State != fleet.Healthy {
		return fleet.Ref{}, unavailable(fmt.Sprintf("Container %s running on unhealthy node %s: %s", ref, c.Node.Name, c.Node.Error))
	}
	return c, nil
}

// onContainer is what most container routes are: find the owner, put the full ID into the path, hand over.
func (s *Server) onContainer(w http.ResponseWriter, r *request, f forwarding) error {
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	if f.path == "" {
		f.path = r.ownPath(c.Container.ID)
	}
	return s.forward(w, r, c.Node, f)
}

// ownPath is the route's path with the object's full ID in the place of what the client wrote.
func (r *request) ownPath(id string) string {
	out := strings.Replace(r.route.pattern, "{id}", id, 1)
	for name, value := range r.vars {
		out = strings.Replace(out, "{"+name+"}", value, 1)
	}
	return out
}

// passContainer hands over and changes nothing.
func passContainer(s *Server, w http.ResponseWriter, r *request) error {
	return s.onContainer(w, r, forwarding{})
}

// changeContainer notes the change before the answer goes out, so that a client reads its own write: lists wait for what is
// noted.
func changeContainer(s *Server, w http.ResponseWriter, r *request) error {
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	if err := signalled(c.Node, r); err != nil {
		return err
	}
	claimed, err := s.claimPorts(r, c)
	if err != nil {
		return err
	}
	defer claimed(0)
	if begins(r) && s.entersOverlay(c.Container) {
		defer s.fleet.Changing(c.Node.ID, fleet.KindContainer, c.Container.ID)()
		return s.startOverlaid(w, r, c, claimed)
	}
	changed := s.fleet.Changing(c.Node.ID, fleet.KindContainer, c.Container.ID)
	defer changed()
	return s.forward(w, r, c.Node, forwarding{path: r.ownPath(c.Container.ID), before: func(res *http.Response) error {
		changed()
		claimed(res.StatusCode)
		if res.StatusCode < 400 {
			s.awaitDeath(r, c)
		}
		return nil
	}})
}

// begins tells whether the request has a container run.
func begins(r *request) bool {
	return r.route.pattern == "/containers/{id}/start" || r.route.pattern == "/containers/{id}/restart"
}

// A container that was killed is looked at again for this long, at most this often.
const (
	deathPatience = 100 * time.Millisecond
	deathLook     = 2 * time.Millisecond
)

// awaitDeath waits a moment for a container that was killed to be seen dead: new engines answer before it is, and here it
// would be seen later than there. One that is started again at once may never be seen dead.
func (s *Server) awaitDeath(r *request, c fleet.Ref) {
	if signal := r.URL.Query().Get("signal"); r.route.pattern != "/containers/{id}/kill" || signal != "" && signal != "KILL" && signal != "SIGKILL" && signal != "9" {
		return
	}
	for began := s.o.Now(); s.o.Now().Sub(began) < deathPatience; {
		s.refresh(r.Context(), c.Node, fleet.KindContainer, c.Container.ID)
		if now, err := s.locate(r.Context(), c.Container.ID); err != nil || !now.Container.Running() {
			return
		}
		select {
		case <-time.After(deathLook):
		case <-r.Context().Done():
			return
		}
	}
}

// refresh waits for the snapshot. That it could not be waited for is no fault of the request, which was carried out.
func (s *Server) refresh(ctx context.Context, n *fleet.Node, kind fleet.Kind, id string) {
	ctx, cancel := context.WithTimeout(ctx, refreshLimit)
	defer cancel()
	if err := s.fleet.Refresh(ctx, n.ID, kind, id); err != nil && !errors.Is(err, context.Canceled) {
		s.o.Log.Warn("changed, but not seen yet", "node", n.Name, "kind", kind, "id", id, "error", err)
	}
}

func updateContainer(s *Server, w http.ResponseWriter, r *request) error {
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return s.forward(w, r, c.Node, forwarding{path: r.ownPath(c.Container.ID), before: func(res *http.Response) error {
		if res.StatusCode >= 400 {
			return nil
		}
		ctx, cancel := context.WithTimeout(r.Context(), refreshLimit)
		defer cancel()
		if err := s.fleet.RefreshDetails(ctx, c.Node.ID, c.Container.ID); err != nil {
			s.o.Log.Warn("updated, but not seen yet", "node", c.Node.Name, "container", c.Container.ID, "error", err)
		}
		return nil
	}})
}

// waitContainer passes the head on when the engine's comes, since clients start the container then, and notes the change
// before it lets the end through, since they list containers then.
func waitContainer(s *Server, w http.ResponseWriter, r *request) error {
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return s.forward(w, r, c.Node, forwarding{path: r.ownPath(c.Container.ID), before: func(res *http.Response) error {
		if res.StatusCode == http.StatusOK {
			res.Body = &firstByte{ReadCloser: res.Body, came: func() {
				s.fleet.Changed(c.Node.ID, fleet.KindContainer, c.Container.ID)
			}}
		}
		return nil
	}})
}

// firstByte calls came once, before the first bytes of a body are handed on.
type firstByte struct {
	io.ReadCloser
	came func()
}

func (f *firstByte) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if n > 0 && f.came != nil {
		f.came()
		f.came = nil
	}
	return n, err
}

// attachContainer may become a raw stream without an Upgrade header.
//
// A body means nothing here, but dockerode sends one. An engine drops it if it arrives together with the head, and takes it
// for input otherwise; so it ends here.
func attachContainer(s *Server, w http.ResponseWriter, r *request) error {
	f := forwarding{hijack: true}
	if r.ContentLength > 0 {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return invalidf("request body: %v", err)
		}
		f.body = []byte{}
	}
	return s.onContainer(w, r, f)
}

// inspectContainer adds the object Node, as classic Swarm did, and the label of the node.
func inspectContainer(s *Server, w http.ResponseWriter, r *request) error {
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return s.forward(w, r, c.Node, forwarding{path: r.ownPath(c.Container.ID), before: editLent(func(out, b []byte) ([]byte, error) { //nolint:bodyclose // proxy closes it
		if hindered := s.hindered(c.Container.ID); len(hindered) > 0 {
			if b, err = inspectPorts(b, hindered); err != nil {
				return nil, fmt.Errorf("node %s: inspect: %w", c.Node.Name, err)
			}
		}
		return appendWithNode(out, b, c.Node)
	})})
}

// labelNode leads to the label in an inspection.
var labelNode = []string{"Config", "Labels", fleet.LabelNode}

// appendWithNode appends an inspection, edited.
func appendWithNode(out, b []byte, n *fleet.Node) ([]byte, error) {
	out, err := rawjson.AppendPut(out, b,
		rawjson.Put{Path: []string{"Node"}, Value: appendNode(make([]byte, 0, usualNode), n)},
		rawjson.Put{Path: labelNode, Value: rawjson.Encode(n.Name)})
	if err != nil {
		return nil, fmt.Errorf("node %s: inspect: %w", n.Name, err)
	}
	return append(out, '\n'), nil
}

const usualNode = 512

// appendNode appends a node as classic Swarm showed it in inspections.
func appendNode(out []byte, n *fleet.Node) []byte {
	for _, f := range [...]struct{ key, value string }{{`{"ID":`, n.ID}, {`,"IP":`, n.IP}, {`,"Addr":`, n.Addr}, {`,"Name":`, n.Name}} {
		out = rawjson.AppendString(append(out, f.key...), f.value)
	}
	out = strconv.AppendInt(append(out, `,"Cpus":`...), n.CPUs, 10)
	out = strconv.AppendInt(append(out, `,"Memory":`...), n.Memory, 10)
	out = append(out, `,"Labels":{`...)
	var room [16]string
	keys := slices.AppendSeq(room[:0], maps.Keys(n.Labels))
	slices.Sort(keys)
	for i, k := range keys {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(rawjson.AppendString(out, k), ':')
		out = rawjson.AppendString(out, n.Labels[k])
	}
	out = append(out, '}')
	if !n.Takes() {
		out = rawjson.AppendString(append(out, `,"Availability":`...), string(n.Availability))
	}
	return append(out, '}')
}

// renameContainer holds the new name over the fleet while the engine renames.
func renameContainer(s *Server, w http.ResponseWriter, r *request) error {
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	q := r.URL.Query()
	name := strings.TrimPrefix(q.Get("name"), "/")
	if rest, ok := strings.CutPrefix(name, c.Node.Name+"/"); ok {
		name = rest
	}
	if err := checkName(name); err != nil {
		return err
	}
	release, err := s.fleet.Reserve(name, c.Container.ID)
	if err != nil {
		return err
	}
	defer release()
	q.Set("name", name)
	return s.forward(w, r, c.Node, forwarding{path: r.ownPath(c.Container.ID), query: q, before: func(res *http.Response) error {
		if res.StatusCode < 400 {
			s.refresh(r.Context(), c.Node, fleet.KindContainer, c.Container.ID)
		}
		return nil
	}})
}

// checkName refuses what no engine takes, before it is used as a key anywhere. The text is the engine's.
func checkName(name string) error {
	if len(name) <= 253 && isContainerName(name) {
		return nil
	}
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	return invalidf("Invalid container name (%s), only %s are allowed", name, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
}

// isContainerName is ^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$.
func isContainerName(name string) bool {
	name = strings.TrimPrefix(name, "/")
	for i := range len(name) {
		if c := name[i]; !isAlphanumeric(c) && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return len(name) > 1
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// removeContainer takes the container out of the picture with the answer.
func removeContainer(s *Server, w http.ResponseWriter, r *request) error {
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	if flag(r.URL.Query(), "link") {
		return s.forward(w, r, c.Node, forwarding{path: "/containers/" + r.vars["id"]})
	}
	return s.forward(w, r, c.Node, forwarding{path: r.ownPath(c.Container.ID), before: func(res *http.Response) error {
		switch {
		case res.StatusCode < 300 || res.StatusCode == http.StatusNotFound:
			s.fleet.Forget(c.Node.ID, c.Container.ID)
			if flag(r.URL.Query(), "v") && (len(c.Container.Mounts) > 0 || c.Container.Promised) {
				s.refresh(r.Context(), c.Node, fleet.KindVolume, "")
			}
		case res.StatusCode < 500:
			s.refresh(r.Context(), c.Node, fleet.KindContainer, c.Container.ID)
		}
		return nil
	}})
}

// pruneContainers runs on every node and adds the answers up.
func pruneContainers(s *Server, w http.ResponseWriter, r *request) error {
	if err := s.nothingMoves(); err != nil {
		return err
	}
	return s.prune(w, r, "ContainersDeleted", fleet.KindContainer)
}

// nothingMoves refuses what would remove containers because they are stopped: one that moves is stopped on both of its nodes.
func (s *Server) nothingMoves() error {
	if s.o.Moves == nil {
		return nil
	}
	if names := s.o.Moves.Moving(); len(names) > 0 {
		return unavailable("containers are moving from node to node (" + strings.Join(names, ", ") + "); try again when they have arrived")
	}
	return nil
}

// prune asks every node to prune and joins the lists under key; the sums of SpaceReclaimed are added.
func (s *Server) prune(w http.ResponseWriter, r *request, key string, kind fleet.Kind) error {
	return s.pruneWith(w, r, key, kind, func(ctx context.Context, n *fleet.Node) (*pruned, error) {
		return s.pruneOn(ctx, n, r, r.URL.Query(), key, kind)
	})
}

// pruneWith is prune where what is asked differs between the nodes.
func (s *Server) pruneWith(w http.ResponseWriter, r *request, key string, kind fleet.Kind, on func(context.Context, *fleet.Node) (*pruned, error)) error {
	nodes := s.nodes()
	if len(nodes) == 0 {
		return unavailable("no healthy node is available in the fleet")
	}
	answers, errs := each(r.Context(), nodes, workDeadline, on)
	if err := partial(w, nodes, errs); err != nil {
		return err
	}
	var sum pruned
	if kind == fleet.KindVolume {
		sum.items = []any{} // of all kinds only volumes have an empty list where nothing was pruned
	}
	for _, a := range answers {
		if a != nil {
			sum.items = append(sum.items, a.items...)
			sum.space += a.space
		}
	}
	if kind == fleet.KindNetwork {
		sum.once()
	}
	o := new(rawjson.Object)
	o.Set(key, sum.items)
	if kind != fleet.KindNetwork {
		o.Set("SpaceReclaimed", sum.space)
	}
	writeRaw(w, http.StatusOK, append(o.Bytes(), '\n'))
	return nil
}

// pruned is one node's answer to a prune.
type pruned struct {
	items []any
	space uint64
}

// once drops what several nodes say that they have pruned.
func (p *pruned) once() {
	seen := map[string]bool{}
	p.items = slices.DeleteFunc(p.items, func(i any) bool {
		text := fmt.Sprintf("%s", i)
		twice := seen[text]
		seen[text] = true
		return twice
	})
}

func (s *Server) pruneOn(ctx context.Context, n *fleet.Node, r *request, q url.Values, key string, kind fleet.Kind) (*pruned, error) {
	b, err := s.ask(ctx, n, http.MethodPost, r.version, r.path, q, nil)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	o, err := rawjson.ParseTrusted(b)
	if err != nil {
		return nil, fmt.Errorf("node %s: prune: %w", n.Name, err)
	}
	p := new(pruned)
	raws, err := rawjson.Array(orNull(o.Get(key)))
	if err != nil {
		return nil, fmt.Errorf("node %s: prune: %w", n.Name, err)
	}
	for _, raw := range raws {
		p.items = append(p.items, raw)
	}
	if err := o.Decode("SpaceReclaimed", &p.space); err != nil {
		return nil, fmt.Errorf("node %s: prune: %w", n.Name, err)
	}
	if kind == fleet.KindContainer {
		for _, raw := range raws {
			s.fleet.Forget(n.ID, strings.Trim(string(raw), `"`))
		}
		return p, nil
	}
	s.refresh(ctx, n, kind, "")
	return p, nil
}

func orNull(b []byte) []byte {
	if b == nil {
		return []byte("null")
	}
	return b
}

// commitContainer makes an image on the container's node; the query names the container.
func commitContainer(s *Server, w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	c, err := s.locate(r.Context(), q.Get("container"))
	if err != nil {
		return err
	}
	q.Set("container", c.Container.ID)
	return s.forward(w, r, c.Node, forwarding{query: q, before: func(res *http.Response) error {
		if res.StatusCode < 300 {
			s.refresh(r.Context(), c.Node, fleet.KindImage, "")
			s.imageWritten(c.Node, joinTag(q.Get("repo"), q.Get("tag")))
		}
		return nil
	}})
}
