package api

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// claim gives out host ports that are unique over the fleet; nil if engines choose them.
type claim = func([]fleet.Port) ([]fleet.Port, error)

// opening is a published port for which the client left the choice of the host port.
type opening struct {
	spec string // "80/tcp"
	at   int    // which of the bindings it is; that behind the last is a new one
	port fleet.Port
}

// openPorts claims a host port for each opening of a create on a node. The node has the image.
func (s *Server) openPorts(ctx context.Context, n *fleet.Node, c *creation, claim claim) error {
	c.openings = nil
	if mode := c.config.HostConfig.NetworkMode; claim == nil || mode == "host" || mode == "none" || strings.HasPrefix(mode, "container:") {
		return nil
	}
	exposed := slices.Collect(maps.Keys(c.config.ExposedPorts))
	if c.config.HostConfig.PublishAllPorts {
		more, err := s.imagePorts(ctx, n, c)
		if err != nil {
			return err
		}
		exposed = append(exposed, more...)
	}
	openings, err := c.findOpenings(exposed)
	if err != nil {
		return err
	}
	ports := make([]fleet.Port, len(openings))
	for i, o := range openings {
		ports[i] = o.port
	}
	if ports, err = claim(ports); err != nil {
		return err
	}
	for i := range ports {
		openings[i].port = ports[i]
	}
	c.openings = openings
	return nil
}

// imagePorts are those that an image exposes. What the node does not tell is left to the engine, which has words for it.
func (s *Server) imagePorts(ctx context.Context, n *fleet.Node, c *creation) ([]string, error) {
	code, b, err := s.call(ctx, n, http.MethodGet, n.API, "/images/"+c.config.Image+"/json", nil, nil, nil)
	if err != nil || code != http.StatusOK {
		return nil, err
	}
	var image struct {
		Config struct{ ExposedPorts map[string]any }
	}
	err = decode(n, "inspect image", b, &image)
	return slices.Collect(maps.Keys(image.Config.ExposedPorts)), err
}

// findOpenings lists the bindings without a host port, in an order that depends on nothing else.
func (c *creation) findOpenings(exposed []string) ([]opening, error) {
	h := c.config.HostConfig
	var all []opening
	add := func(spec string, at int, hostIP string) error {
		port, proto, err := readPort(spec)
		all = append(all, opening{spec, at, fleet.Port{Proto: proto, HostIP: hostIP, Port: port}})
		return err
	}
	for _, spec := range slices.Sorted(maps.Keys(h.PortBindings)) {
		for at, b := range h.PortBindings[spec] {
			if b.HostPort == "" || b.HostPort == "0" {
				if err := add(spec, at, b.HostIP); err != nil {
					return nil, err
				}
			}
		}
	}
	if !h.PublishAllPorts {
		return all, nil
	}
	slices.Sort(exposed)
	for _, spec := range slices.Compact(exposed) {
		if len(h.PortBindings[spec]) > 0 || strings.Contains(spec, "-") {
			continue
		}
		if err := add(spec, 0, ""); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// fillOpenings writes the claimed ports into the body.
func (c *creation) fillOpenings(o *rawjson.Object) error {
	if len(c.openings) == 0 {
		return nil
	}
	host, err := o.Object("HostConfig")
	if err != nil {
		return err
	}
	bindings, err := host.Object("PortBindings")
	if err != nil {
		return err
	}
	for _, open := range c.openings {
		if err := fillOpening(bindings, open); err != nil {
			return err
		}
	}
	host.Set("PortBindings", bindings)
	o.Set("HostConfig", host)
	return nil
}

func fillOpening(bindings *rawjson.Object, open opening) error {
	list, err := rawjson.Array(orNull(bindings.Get(open.spec)))
	if err != nil {
		return err
	}
	binding := new(rawjson.Object)
	if open.at < len(list) {
		if binding, err = rawjson.ParseTrusted(list[open.at]); err != nil {
			return err
		}
	} else {
		list = append(list, json.RawMessage(nil))
	}
	binding.Set("HostPort", count(int(open.port.HostPort)))
	list[open.at] = binding.Bytes()
	bindings.Set(open.spec, list)
	return nil
}
