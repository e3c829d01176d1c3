package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// connection is a parsed request to connect or disconnect a container.
type connection struct {
	Container      string
	Force          bool
	EndpointConfig newerEndpoint
}

func parseConnection(r *request) (*rawjson.Object, connection, error) {
	var c connection
	o, err := body(r)
	if err == nil {
		err = decodeBody(o, &c)
	}
	return o, c, err
}

// connectNetwork goes to the container's node. A network that nobody used yet follows the container there.
func connectNetwork(s *Server, w http.ResponseWriter, r *request) error {
	if r.ContentLength == 0 {
		return s.anyHealthy(w, r)
	}
	o, b, err := parseConnection(r)
	if err != nil {
		return err
	}
	c, err := s.locate(r.Context(), b.Container)
	if err != nil {
		return err
	}
	if err := able(c.Node, r.version, b.EndpointConfig.needs()); err != nil {
		return err
	}
	release, err := s.draw(r.Context(), r.vars["id"], c.Node)
	if err != nil {
		return err
	}
	defer release()
	return s.changeConnection(w, r, o, c)
}

// disconnectNetwork goes to the container's node. An endpoint whose container is gone can be forced off the network's.
func disconnectNetwork(s *Server, w http.ResponseWriter, r *request) error {
	if r.ContentLength == 0 {
		return s.anyHealthy(w, r)
	}
	o, b, err := parseConnection(r)
	if err != nil {
		return err
	}
	c, err := s.locate(r.Context(), b.Container)
	var none *fleet.NotFoundError
	if b.Force && errors.As(err, &none) {
		found, missing := s.findNetworks(r.Context(), r.vars["id"])
		if missing != nil {
			return missing
		}
		return s.forward(w, r, holders(found)[0].Node, forwarding{path: r.ownPath(found[0].Network.ID), body: o.Bytes()})
	}
	if err != nil {
		return err
	}
	return s.changeConnection(w, r, o, c)
}

// draw moves a network that nobody used yet to a node, if it is elsewhere. It cannot move any more until release is called.
func (s *Server) draw(ctx context.Context, ref string, to *fleet.Node) (release func(), err error) {
	for {
		if _, err := s.findNetworks(ctx, ref); err != nil {
			return nil, err
		}
		b, err := s.networkBond(ctx, ref)
		if err != nil {
			return nil, err
		}
		if b.key == "" {
			return func() {}, nil
		}
		release, err := s.groups.locks.take(ctx, []string{b.key})
		if err != nil {
			return nil, err
		}
		key := b.key
		b, err = s.networkBond(ctx, ref)
		if err == nil && b.key != key {
			release()
			continue
		}
		if err == nil && len(b.movable) > 0 && !slices.Contains(b.tie.NodeIDs, to.ID) && !s.touched(ctx, b.movable) {
			err = s.moveAll(ctx, b.movable, to)
		}
		if err != nil {
			release()
			return nil, err
		}
		return release, nil
	}
}

// changeConnection has the container's node connect or disconnect it, if the network is there too.
func (s *Server) changeConnection(w http.ResponseWriter, r *request, o *rawjson.Object, c fleet.Ref) error {
	found, err := s.findNetworks(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	network := found[0].Network
	ref := network.ID
	switch {
	case network.Spans():
		return s.changeOverlay(w, r, o, c, network)
	case network.Predefined():
		ref = network.Name // each node has its own
	case network.Scope == "local" && !slices.ContainsFunc(found, func(f fleet.NetworkRef) bool { return f.Node.ID == c.Node.ID }):
		return invalidf("container %s is on node %s, network %s is on node %s: a %s network has the containers of its own node only",
			c.Container.Name, c.Node.Name, network.Name, found[0].Node.Name, network.Driver)
	}
	o.Set("Container", c.Container.ID)
	return s.forward(w, r, c.Node, forwarding{path: r.ownPath(ref), body: o.Bytes(), before: func(res *http.Response) error {
		if res.StatusCode < 400 {
			s.groups.used(object{fleet.KindNetwork, network.Name})
			s.refresh(r.Context(), c.Node, fleet.KindContainer, c.Container.ID)
		}
		return nil
	}})
}

// runsNow looks whether a container runs, after all that was done before.
func (s *Server) runsNow(ctx context.Context, c fleet.Ref) bool {
	s.fleet.Settle(ctx, fleet.KindContainer)
	now, err := s.fleet.Snapshot().Container(c.Container.ID)
	return err == nil && now.Container.Running()
}

// changeOverlay has the container's node bring it into an overlay network, or take it out. A node that does not know the network has
// to be told its name: it would show its ID in the name's place.
func (s *Server) changeOverlay(w http.ResponseWriter, r *request, o *rawjson.Object, c fleet.Ref, network *fleet.Network) error {
	o.Set("Container", c.Container.ID)
	path := r.ownPath(network.Name)
	if r.route.pattern == "/networks/{id}/connect" {
		if c.Node.NoOverlay != "" || !c.Node.Swarm.Active() {
			return invalidf("container %s is on node %s, which takes no part in overlay networks (%s)", c.Container.Name, c.Node.Name, cmp.Or(c.Node.NoOverlay, "it has not joined their swarm"))
		}
		endpoint, err := o.Object("EndpointConfig")
		if err != nil {
			return invalidf("request body: %v", err)
		}
		var asked struct {
			IPAMConfig *struct{ IPv4Address, IPv6Address string }
		}
		if err := decodeBody(endpoint, &asked); err != nil {
			return err
		}
		if asked.IPAMConfig != nil && s.runsNow(r.Context(), c) {
			for _, addr := range []string{asked.IPAMConfig.IPv4Address, asked.IPAMConfig.IPv6Address} {
				if err := s.freeAddress(network, addr, c.Container.ID); err != nil {
					return err
				}
			}
		}
		if err := markAddress(endpoint); err != nil {
			return err
		}
		if endpoint.Len() > 0 {
			o.Set("EndpointConfig", endpoint)
		}
	}
	code, answer, err := s.insist(r.Context(), c.Node, r, path, o.Bytes())
	if err != nil {
		return err
	}
	if code < 400 {
		s.refresh(r.Context(), c.Node, fleet.KindContainer, c.Container.ID)
	} else if fleet.PassingNetworkFailure(code, engineMessage(answer)) {
		return s.whyNot(code, engineMessage(answer))
	}
	w.Header().Set("X-Berth-Node", c.Node.Name)
	if len(answer) == 0 {
		w.WriteHeader(code)
		return nil
	}
	writeRaw(w, code, answer)
	return nil
}
