package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// spanning finds the network that a reference means if it reaches over hosts.
func (s *Server) spanning(ref string) (*fleet.Network, bool) {
	return spanning(s.fleet.Snapshot(), ref)
}

func spanning(snap *fleet.Snapshot, ref string) (*fleet.Network, bool) {
	if ref == "" || ref == "default" || fleet.IsPredefinedNetwork(ref) || strings.HasPrefix(ref, "container:") {
		return nil, false
	}
	found, err := snap.Networks(ref)
	if err != nil || !found[0].Network.Spans() {
		return nil, false
	}
	return found[0].Network, true
}

// entersOverlay tells whether a start has to bring the container into a network that reaches over hosts. Until it has been started
// for the first time engines know its networks by name alone.
func (s *Server) entersOverlay(c *fleet.Container) bool {
	return slices.ContainsFunc(c.Networks, func(a fleet.Attachment) bool {
		if a.NetworkID != "" {
			return fleet.IsSwarmNetworkID(a.NetworkID)
		}
		_, is := s.spanning(a.Name)
		return is
	})
}

// insist makes a call that brings a container into an overlay network, again as long as it fails for a passing reason.
func (s *Server) insist(ctx context.Context, n *fleet.Node, r *request, path string, body []byte) (int, []byte, error) {
	began := s.o.Now()
	for {
		header := http.Header{}
		if kind := r.Header.Get("Content-Type"); kind != "" {
			header.Set("Content-Type", kind)
		}
		code, b, err := s.call(ctx, n, http.MethodPost, r.version, path, r.URL.Query(), body, header)
		if err != nil || !fleet.PassingNetworkFailure(code, engineMessage(b)) || s.o.Now().Sub(began) > overlayPatience {
			return code, b, err
		}
		s.o.Log.Debug("brought into an overlay network again", "node", n.Name, "path", path, "error", engineMessage(b))
		if !sleep(ctx, overlayRetry) {
			return code, b, nil
		}
	}
}

// heldAddress refuses to bring a container into a network under an address that another one has: Swarm mode would let it wait for
// twenty seconds, and say nothing of why.
func (s *Server) heldAddress(ctx context.Context, c fleet.Ref, r *request) error {
	b, err := s.ask(ctx, c.Node, http.MethodGet, r.version, "/containers/"+c.Container.ID+"/json", nil, nil)
	if err != nil {
		return err
	}
	var is struct {
		HostConfig      struct{ AutoRemove bool }
		NetworkSettings struct {
			Networks map[string]struct {
				IPAMConfig *struct{ IPv4Address, IPv6Address string }
				NetworkID  string
			}
		}
	}
	if err := decode(c.Node, "inspect", b, &is); err != nil {
		return err
	}
	for name, at := range is.NetworkSettings.Networks {
		network, spans := s.spanning(name)
		if !spans || at.IPAMConfig == nil {
			continue
		}
		for _, addr := range []string{at.IPAMConfig.IPv4Address, at.IPAMConfig.IPv6Address} {
			if err := s.freeAddress(network, addr, c.Container.ID); err != nil {
				if is.HostConfig.AutoRemove {
					s.undo(ctx, c.Node, c.Container.ID) // as an engine does, and clients wait for
				}
				return err
			}
		}
	}
	return nil
}

// freeAddress refuses an address that another running container has in a network.
func (s *Server) freeAddress(network *fleet.Network, addr, except string) error {
	if addr == "" {
		return nil
	}
	for _, n := range s.fleet.Snapshot().Nodes() {
		for _, o := range n.Containers {
			if o.ID == except || !o.Running() || !slices.ContainsFunc(o.Networks, func(a fleet.Attachment) bool { return a.NetworkID == network.ID && a.IP == addr }) {
				continue
			}
			text := fmt.Sprintf("Address already in use: %s in network %s is that of %s on node %s", addr, network.Name, o.Name, n.Name)
			if n.State != fleet.Healthy {
				text += ", which does not answer"
			}
			return forbidden(text)
		}
	}
	return nil
}

// startOverlaid starts or restarts a container that uses an overlay network. claimed ends what was claimed for it.
func (s *Server) startOverlaid(w http.ResponseWriter, r *request, c fleet.Ref, claimed func(status int)) error {
	if !c.Container.Running() {
		s.fleet.Settle(r.Context(), fleet.KindContainer)
		if err := s.heldAddress(r.Context(), c, r); err != nil {
			return err
		}
	}
	b, err := body(r)
	if err != nil {
		return err
	}
	var sent []byte
	if b.Len() > 0 {
		sent = b.Bytes()
	}
	code, answer, err := s.insist(r.Context(), c.Node, r, r.ownPath(c.Container.ID), sent)
	if err != nil {
		return err
	}
	if code >= 400 && fleet.PassingNetworkFailure(code, engineMessage(answer)) {
		return s.whyNot(code, engineMessage(answer))
	}
	claimed(code)
	w.Header().Set("X-Berth-Node", c.Node.Name)
	if len(answer) == 0 {
		w.WriteHeader(code)
		return nil
	}
	writeRaw(w, code, answer)
	return nil
}

// whyNot adds what is wrong with the swarm to an engine's failure.
func (s *Server) whyNot(code int, message string) error {
	if s.o.Overlay != nil {
		if st := s.o.Overlay.Status(); len(st.Problems) > 0 {
			message += " (" + st.Problems[0] + ")"
		}
	}
	return &statusError{status: code, message: message}
}

// markedAddress is markAddress for a place that is not parsed.
func markedAddress(endpoint []byte) ([]byte, error) {
	if string(endpoint) == "null" {
		return endpoint, nil
	}
	o, err := rawjson.ParseTrusted(endpoint)
	if err != nil {
		return nil, invalidf("request body: %v", err)
	}
	if err := markAddress(o); err != nil {
		return nil, err
	}
	return o.Bytes(), nil
}

// markAddress marks the addresses that a client asks for in overlay networks, so that they are told from those that Swarm mode
// chose when the container is to be made anew elsewhere.
func markAddress(endpoint *rawjson.Object) error {
	var asked struct{ IPv4Address, IPv6Address string }
	if err := json.Unmarshal(orNull(endpoint.Get("IPAMConfig")), &asked); err != nil {
		return invalidf("request body: %v", err)
	}
	if asked.IPv4Address == "" && asked.IPv6Address == "" {
		return nil
	}
	options, err := endpoint.Object("DriverOpts")
	if err != nil {
		return invalidf("request body: %v", err)
	}
	options.Set(fleet.OptionAddress, "fixed")
	endpoint.Set("DriverOpts", options)
	return nil
}

// requireOverlay keeps a container to the nodes that can have the networks which it uses. There links are names, that can be anywhere.
func (s *Server) requireOverlay(req *schedule.Request, mode string, bonds []bond) {
	if _, is := s.spanning(mode); is {
		req.Links = nil
	}
	for _, b := range bonds {
		if b.spans {
			req.Overlays = append(req.Overlays, b.name)
			if b.swarm != "" {
				req.Swarm = b.swarm
			}
		}
	}
}

// lostNetworks says why a network may not be found: managers that have lost their quorum know none.
func (s *Server) lostNetworks(err error) error {
	if s.o.Overlay == nil || !errors.As(err, new(*fleet.NotFoundError)) {
		return err
	}
	if st := s.o.Overlay.Status(); st.State == "no quorum" && len(st.Problems) > 0 {
		return fmt.Errorf("%w (%s)", err, st.Problems[0])
	}
	return err
}
