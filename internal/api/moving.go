package api

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// Requirements is what a container that moves asks of its next node, from the body of the create that it would be made with.
// The volumes named in along go with it and tie it to no node.
func (s *Server) Requirements(ctx context.Context, name string, body []byte, along []string) (*schedule.Request, error) {
	c, err := parseCreation(s.ownRequest(ctx, "/containers/create", url.Values{"name": {name}}, body))
	if err != nil {
		return nil, err
	}
	s.fleet.Settle(ctx, fleet.KindImage)
	req, err := s.placement(ctx, c)
	if err != nil {
		return nil, err
	}
	req.Ties = slices.DeleteFunc(req.Ties, func(t schedule.Tie) bool {
		return slices.ContainsFunc(along, func(v string) bool { return t.What == "volume "+v })
	})
	return req, nil
}

// ownRequest is one that no client made.
func (s *Server) ownRequest(ctx context.Context, path string, q url.Values, body []byte) *request {
	r := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: path, RawQuery: q.Encode()}, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	return &request{Request: r, version: s.gate.advertised(s.fleet.Snapshot()), path: path}
}

// Carry makes sure that a node has the image that a container on another one runs, and returns the reference by which it is
// known there: the container's own, if that still means the same, else the image's ID.
func (s *Server) Carry(ctx context.Context, from, to *fleet.Node, ref, id string) (string, error) {
	img, err := s.locateImage(ctx, ref)
	if err == nil && img.digest+img.tag != "" && img.idOn(from.ID) == id {
		switch {
		case img.knownOn(to.ID):
			return ref, nil
		case img.digest == "":
			return ref, s.bring(ctx, img, to)
		case s.pullDigest(ctx, img, to, "", s.ownRequest(ctx, "/images/create", nil, nil)) == nil:
			return ref, nil
		}
		// What cannot be pulled by its digest is brought by its ID.
	}
	if img, err = s.locateImage(ctx, id); err != nil {
		return "", fmt.Errorf("image %s (%s): %w", ref, id, err)
	}
	if !img.on(to.ID) {
		if err := s.bring(ctx, img, to); err != nil {
			return "", err
		}
		if img, err = s.findImage(ctx, id); err != nil {
			return "", fmt.Errorf("image %s (%s): %w", ref, id, err)
		}
	}
	if there := img.idOn(to.ID); there != "" {
		return there, nil
	}
	return "", fmt.Errorf("image %s (%s) was brought to node %s and is not there", ref, id, to.Name)
}

// Provide makes sure that a node has the image of a container whose own node is lost, and returns the reference by which it is
// known there: the container's own if that still means the same, else the image's ID. What no node has any more is pulled by the
// reference, without anybody's credentials.
func (s *Server) Provide(ctx context.Context, to *fleet.Node, ref, id string) (string, error) {
	named, err := s.locateImage(ctx, ref)
	old, missing := s.locateImage(ctx, id)
	if err == nil && named.digest+named.tag != "" && (missing != nil || s.sameImage(s.sameness(ctx), old.holders[0], named.id)) {
		switch {
		case named.knownOn(to.ID):
			return ref, nil
		case named.digest == "":
			return ref, s.bring(ctx, named, to)
		case s.pullDigest(ctx, named, to, "", s.ownRequest(ctx, "/images/create", nil, nil)) == nil:
			return ref, nil
		}
	}
	if missing == nil {
		return s.Carry(ctx, to, to, id, id)
	}
	return ref, s.pullFor(ctx, to, ref)
}

// pullFor pulls an image to one node for nobody in particular.
func (s *Server) pullFor(ctx context.Context, n *fleet.Node, ref string) error {
	name, tag := splitTag(ref)
	if at := strings.LastIndex(ref, "@"); at >= 0 {
		name, tag = ref[:at], ref[at+1:]
	}
	r := s.ownRequest(ctx, "/images/create", nil, nil)
	res, err := s.open(ctx, n, http.MethodPost, r.version, "/images/create", url.Values{"fromImage": {name}, "tag": {cmp.Or(tag, "latest")}}, nil, nil)
	if err == nil {
		err = readMessages(res, nil)
		res.Body.Close() //nolint:errcheck // all of it was read
	}
	if err != nil {
		return fmt.Errorf("no node has image %s, and it cannot be pulled: %w", ref, err)
	}
	s.imagesChanged(r, n, ref)
	return nil
}

// idOn is the ID that the image has on a node; "" if it is not there.
func (i *image) idOn(nodeID string) string {
	at, ok := i.at[nodeID]
	if !ok {
		return ""
	}
	return i.holders[at].Image.ID
}
