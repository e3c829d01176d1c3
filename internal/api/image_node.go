package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// locateImage is findImage with an image found, too, that nobody told us of.
func (s *Server) locateImage(ctx context.Context, ref string) (*image, error) {
	s.settleBuilds(ctx)
	s.fleet.Settle(ctx, fleet.KindImage)
	img, err := s.findImage(ctx, ref)
	if errors.As(err, new(*fleet.NotFoundError)) && s.seekImage(ctx, ref) {
		return s.findImage(ctx, ref)
	}
	return img, err
}

// seekLimit is how long nodes have to say whether they have an image.
const seekLimit = time.Second

// seekImage asks all nodes for an image that the picture does not show. Engines before 23 tell nobody what BuildKit has built
// on them, so a build on an engine itself, or through another manager, shows nowhere else.
func (s *Server) seekImage(ctx context.Context, ref string) (found bool) {
	if ref == "" || checkImage(ref) != nil {
		return false
	}
	nodes := s.nodes()
	has, _ := each(ctx, nodes, seekLimit, func(ctx context.Context, n *fleet.Node) (bool, error) {
		code, _, err := s.call(ctx, n, http.MethodGet, n.API, "/images/"+ref+"/json", nil, nil, nil)
		return code == http.StatusOK, err // a node that does not answer in time is as one that has none
	})
	for i, n := range nodes {
		if has[i] {
			s.refresh(ctx, n, fleet.KindImage, "")
			s.noteTags(n)
			found = true
		}
	}
	return found
}

// onImage hands the request to the node that answers for the image. One that nobody has is for an engine to say: its words
// differ between routes and versions.
func (s *Server) onImage(w http.ResponseWriter, r *request, ref string, before func(*image) func(*http.Response) error) error {
	img, err := s.locateImage(r.Context(), ref)
	if isUnknown(err) {
		return s.anyHealthy(w, r)
	}
	if err != nil {
		return err
	}
	var edit func(*http.Response) error
	if before != nil {
		edit = before(img) //nolint:bodyclose // the proxy closes it
	}
	n, err := ableNodes(img.nodes(), r)
	if err != nil {
		return err
	}
	return s.forward(w, r, n[0], forwarding{before: edit})
}

// isUnknown tells whether an image's reference means nothing, or nothing certain.
func isUnknown(err error) bool {
	return errors.As(err, new(*fleet.NotFoundError)) || errors.As(err, new(*fleet.AmbiguousError))
}

// inspectImage shows the names that the image has on any node.
func inspectImage(s *Server, w http.ResponseWriter, r *request) error {
	return s.onImage(w, r, r.vars["name"], func(img *image) func(*http.Response) error {
		return editBody(func(b []byte) ([]byte, error) { //nolint:bodyclose // editBody closes it
			if err := onPlatform(r, img.first(), r.vars["name"], b); err != nil {
				return nil, err
			}
			return s.withNames(r.Context(), b, img)
		})
	})
}

func (s *Server) withNames(ctx context.Context, b []byte, img *image) ([]byte, error) {
	if len(img.holders) == 1 && len(img.others) == 0 {
		return b, nil
	}
	o, err := rawjson.ParseTrusted(b)
	if err != nil {
		return nil, fmt.Errorf("inspect image %s: %w", img.ref, err)
	}
	for key, names := range map[string]func(*fleet.Image) []string{
		"RepoTags":    func(i *fleet.Image) []string { return i.RepoTags },
		"RepoDigests": func(i *fleet.Image) []string { return i.RepoDigests },
	} {
		var known []string
		if err := o.Decode(key, &known); err != nil {
			return nil, fmt.Errorf("inspect image %s: %w", img.ref, err)
		}
		before := len(known)
		for _, h := range img.holders {
			for _, name := range names(h.Image) {
				if !slices.Contains(known, name) && s.means(ctx, name, img.id) {
					known = append(known, name)
				}
			}
		}
		if len(known) > before {
			o.Set(key, known)
		}
	}
	return o.Bytes(), nil
}

// means tells whether a name stands for an image in the fleet.
func (s *Server) means(ctx context.Context, name, id string) bool {
	img, err := s.findImage(ctx, name)
	same := s.sameness(ctx)
	return err == nil && same.key(img.id) == same.key(id)
}

// historyImage and saveImage need nothing but the node.
func historyImage(s *Server, w http.ResponseWriter, r *request) error {
	return s.onImage(w, r, r.vars["name"], nil)
}

func saveImage(s *Server, w http.ResponseWriter, r *request) error {
	return s.onImage(w, r, r.vars["name"], nil)
}

// saveImages needs a node that has all of them. If there is none, the one that has most is given the others first.
func saveImages(s *Server, w http.ResponseWriter, r *request) error {
	s.settleBuilds(r.Context())
	var images []*image
	for _, ref := range r.URL.Query()["names"] {
		img, err := s.findImage(r.Context(), ref)
		if isUnknown(err) {
			return s.anyHealthy(w, r)
		}
		if err != nil {
			return err
		}
		images = append(images, img)
	}
	if len(images) == 0 {
		return s.anyHealthy(w, r)
	}
	nodes, err := ableNodes(append([]*fleet.Node{holderOfMost(images)}, s.nodes()...), r)
	if err != nil {
		return err
	}
	n := nodes[0]
	for _, img := range images {
		if img.knownOn(n.ID) {
			continue
		}
		if err := s.bring(r.Context(), img, n); err != nil {
			return err
		}
	}
	return s.forward(w, r, n, forwarding{})
}

func holderOfMost(images []*image) *fleet.Node {
	count := map[string]int{}
	best := images[0].first()
	for _, img := range images {
		for _, h := range img.holders[:img.named] {
			if count[h.Node.ID]++; count[h.Node.ID] > count[best.ID] {
				best = h.Node
			}
		}
	}
	return best
}

// tagImage tags on every node that has the image.
func tagImage(s *Server, w http.ResponseWriter, r *request) error {
	img, err := s.locateImage(r.Context(), r.vars["name"])
	if isUnknown(err) {
		return s.anyHealthy(w, r)
	}
	if err != nil {
		return err
	}
	q := r.URL.Query()
	nodes := make([]*fleet.Node, len(img.holders))
	for i, h := range img.holders {
		nodes[i] = h.Node
	}
	errs := onNodes(nodes, fanOut, func(i int, n *fleet.Node) error {
		ctx, cancel := context.WithTimeout(r.Context(), workDeadline)
		defer cancel()
		_, err := s.ask(ctx, n, http.MethodPost, r.version, "/images/"+img.holders[i].Image.ID+"/tag", q, nil)
		if err == nil {
			s.refresh(r.Context(), n, fleet.KindImage, "")
		}
		return err
	})
	if !slices.Contains(errs, nil) {
		return worst(errs)
	}
	for i, err := range errs {
		if err == nil {
			s.imageWritten(nodes[i], joinTag(q.Get("repo"), q.Get("tag")))
		}
	}
	if err := partial(w, nodes, errs); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// pushImage pushes from the node that answers for the image; of a repository without a tag, from the one with most of it.
func pushImage(s *Server, w http.ResponseWriter, r *request) error {
	ref := joinTag(r.vars["name"], r.URL.Query().Get("tag"))
	if r.URL.Query().Get("tag") != "" || strings.Contains(ref, "@") {
		return s.onImage(w, r, ref, nil)
	}
	s.settleBuilds(r.Context())
	best, most := (*fleet.Node)(nil), 0
	for _, n := range s.nodes() {
		if count := tagsOf(n, ref); count > most {
			best, most = n, count
		}
	}
	if best == nil {
		return s.anyHealthy(w, r)
	}
	if err := able(best, r.version, platformed(r)); err != nil {
		return err
	}
	return s.forward(w, r, best, forwarding{})
}

// tagsOf counts a node's tags of a repository.
func tagsOf(n *fleet.Node, repo string) (count int) {
	familiar, _ := fleet.FamiliarRef(repo)
	repo = fleet.Repository(familiar)
	for _, i := range n.Images {
		for _, t := range i.RepoTags {
			if fleet.Repository(t) == repo {
				count++
			}
		}
	}
	return count
}
