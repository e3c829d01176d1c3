package api

import (
	"context"
	"net/http"

	"berth/internal/fleet"
)

// Overlay is what keeps the networks across hosts.
type Overlay interface {
	// Defaults are the driver options of new overlay networks, and whether networks without a driver are to be such.
	Defaults() (options map[string]string, on bool)
	Status() fleet.OverlayStatus
	// Up has them kept from now on, Down ends that, ForceNewCluster makes what is left of a swarm without a quorum work again.
	Up(ctx context.Context, wish OverlayWish) error
	Down(ctx context.Context, force bool) error
	ForceNewCluster(ctx context.Context) error
}

// OverlayWish is the body of POST /berth/overlay/up.
type OverlayWish struct {
	Settings        bool // those below are meant; else they stay as they are
	Encrypted       bool
	MTU             int
	DataInterface   string
	Pool            string
	ForceNewCluster bool
}

// overlayRoutes are berth's own, for `berth overlay`.
func overlayRoutes() []route {
	return []route{
		{"GET", "/berth/overlay", local, showOverlay, "berth's own: how the networks across hosts are, for `berth overlay status`"},
		{"POST", "/berth/overlay/up", local, overlayUp, "berth's own: have them, for `berth overlay up`"},
		{"POST", "/berth/overlay/down", local, overlayDown, "berth's own: have them no more; 409 while they are in use, unless forced"},
	}
}

func (s *Server) overlay() (Overlay, error) {
	if s.o.Overlay == nil {
		return nil, unavailable("this endpoint keeps no overlay networks")
	}
	return s.o.Overlay, nil
}

func showOverlay(s *Server, w http.ResponseWriter, _ *request) error {
	o, err := s.overlay()
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, o.Status())
	return nil
}

func overlayUp(s *Server, w http.ResponseWriter, r *request) error {
	o, err := s.overlay()
	if err != nil {
		return err
	}
	var wish OverlayWish
	b, err := body(r)
	if err == nil {
		err = decodeBody(b, &wish)
	}
	switch {
	case err != nil:
		return err
	case wish.ForceNewCluster:
		err = o.ForceNewCluster(r.Context())
	default:
		err = o.Up(r.Context(), wish)
	}
	if err != nil {
		return err
	}
	return showOverlay(s, w, r)
}

func overlayDown(s *Server, w http.ResponseWriter, r *request) error {
	o, err := s.overlay()
	if err == nil {
		err = o.Down(r.Context(), flag(r.URL.Query(), "force"))
	}
	if err != nil {
		return err
	}
	return showOverlay(s, w, r)
}
