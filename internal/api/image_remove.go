package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// removeImage removes on every node that has the image: first one by one where something may speak against it, so that a
// conflict leaves all as it was.
func removeImage(s *Server, w http.ResponseWriter, r *request) error {
	ref := r.vars["name"]
	s.settleBuilds(r.Context())
	s.fleet.Settle(r.Context(), fleet.KindContainer) // whose images are in use
	found, err := s.fleet.Snapshot().Images(ref)
	if isUnknown(err) {
		return s.anyHealthy(w, r)
	}
	if err != nil {
		return err
	}
	d := &imageRemoval{s: s, r: r, own: map[string]string{}}
	found = append(found, d.twins(found)...)
	var risky, rest []*fleet.Node
	for _, f := range found {
		switch {
		case f.Node.State != fleet.Healthy:
			w.Header().Add("X-Berth-Partial", f.Node.Name)
		case bound(f):
			risky = append(risky, f.Node)
		default:
			rest = append(rest, f.Node)
		}
	}
	if len(risky)+len(rest) == 0 {
		return unreachableImage(ref, found[0].Node)
	}
	if tag, _ := fleet.FamiliarRef(ref); tag != "" {
		defer s.images.writes.Remove(tag)
	}
	for _, n := range risky {
		if err := d.on(n); err != nil {
			return err
		}
	}
	return d.answer(w, rest, onNodes(rest, fanOut, func(_ int, n *fleet.Node) error { return d.on(n) }))
}

// bound tells whether an engine may refuse to remove the image.
func bound(f fleet.ImageRef) bool {
	return len(f.Image.RepoTags) > 1 ||
		slices.ContainsFunc(f.Node.Containers, func(c *fleet.Container) bool { return c.ImageID == f.Image.ID }) ||
		slices.ContainsFunc(f.Node.Images, func(i *fleet.Image) bool { return i.ParentID == f.Image.ID })
}

// imageRemoval is the removal of one reference on several nodes.
type imageRemoval struct {
	s *Server
	r *request

	own map[string]string // node ID → the ID that the image has there, where the client's reference means nothing

	mu    sync.Mutex
	lines lineSet
}

// twins are the nodes on which an image that the client calls by its ID has another.
func (d *imageRemoval) twins(found []fleet.ImageRef) (more []fleet.ImageRef) {
	tag, digest := fleet.FamiliarRef(d.r.vars["name"])
	has := map[string]bool{}
	for _, f := range found {
		if slices.Contains(f.Image.RepoTags, tag) || slices.Contains(f.Image.RepoDigests, digest) {
			return nil
		}
		has[f.Node.ID] = true
	}
	ids := d.s.sameness(d.r.Context()).all(found[0].Image.ID)
	for _, n := range d.s.nodes() {
		for _, id := range ids {
			if i, ok := imageByID(n, id); ok && !has[n.ID] {
				has[n.ID], d.own[n.ID] = true, id
				more = append(more, fleet.ImageRef{Node: n, Image: i})
			}
		}
	}
	return more
}

// on removes on one node. That it is gone there already is no fault.
func (d *imageRemoval) on(n *fleet.Node) error {
	ctx, cancel := context.WithTimeout(d.r.Context(), workDeadline)
	defer cancel()
	path := d.r.path
	if id, ok := d.own[n.ID]; ok {
		path = "/images/" + id
	}
	b, err := d.s.ask(ctx, n, http.MethodDelete, d.r.version, path, d.r.URL.Query(), nil)
	d.s.refresh(d.r.Context(), n, fleet.KindImage, "")
	var answer *statusError
	if errors.As(err, &answer) && answer.status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	raws, err := rawjson.Array(b)
	if err != nil {
		return fmt.Errorf("node %s: remove image: %w", n.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, raw := range raws {
		d.lines.add(raw)
	}
	return nil
}

// answer tells what was removed. An engine's refusal goes before it; a node that did not answer is named in the header.
func (d *imageRemoval) answer(w http.ResponseWriter, nodes []*fleet.Node, errs []error) error {
	for i, err := range errs {
		var refused *statusError
		if errors.As(err, &refused) {
			return &statusError{status: refused.status, message: refused.message + " (node " + nodes[i].Name + ")"}
		}
	}
	if err := partial(w, nodes, errs); err != nil && len(d.lines.list) == 0 {
		return err
	}
	if len(d.lines.list) == 0 {
		return noSuchImage(d.r.vars["name"]) // all were quicker than us
	}
	writeRaw(w, http.StatusOK, append(rawjson.Encode(d.lines.list), '\n'))
	return nil
}

// lineSet is a list of JSON values, each once.
type lineSet struct{ list []json.RawMessage }

func (l *lineSet) add(raw json.RawMessage) {
	if !slices.ContainsFunc(l.list, func(known json.RawMessage) bool { return string(known) == string(raw) }) {
		l.list = append(l.list, raw)
	}
}

// pruneImages prunes on every node. An image that went from several is told once, but the space is theirs together.
func pruneImages(s *Server, w http.ResponseWriter, r *request) error {
	s.settleBuilds(r.Context())
	nodes := s.nodes()
	if len(nodes) == 0 {
		return errNoNode
	}
	answers, errs := each(r.Context(), nodes, workDeadline, func(ctx context.Context, n *fleet.Node) (*pruned, error) {
		return s.pruneOn(ctx, n, r, r.URL.Query(), "ImagesDeleted", fleet.KindImage)
	})
	if err := partial(w, nodes, errs); err != nil {
		return err
	}
	var lines lineSet
	var space uint64
	for _, a := range answers {
		if a == nil {
			continue
		}
		space += a.space
		for _, item := range a.items {
			lines.add(rawjson.Encode(item))
		}
	}
	o := new(rawjson.Object)
	o.Set("ImagesDeleted", lines.list)
	o.Set("SpaceReclaimed", space)
	writeRaw(w, http.StatusOK, append(o.Bytes(), '\n'))
	return nil
}
