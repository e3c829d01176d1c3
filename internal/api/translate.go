package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// translation is what becomes of a create on a node of another API version, besides the changed body.
type translation struct {
	later    []laterNetwork
	warnings []string
}

// laterNetwork is one that the container is connected to once it is created.
type laterNetwork struct {
	name     string
	endpoint json.RawMessage
}

// translate brings the body of a create into the form that the node understands.
func (c *creation) translate(o *rawjson.Object, n *fleet.Node) (translation, error) {
	var t translation
	is := n.Clamp(c.r.version)
	if is == c.r.version {
		return t, nil
	}
	since := func(api string) bool { // the client may use it, and the node would not know it
		return fleet.CompareVersions(c.r.version, api) >= 0 && fleet.CompareVersions(is, api) < 0
	}
	if since(apiEndpoints) {
		if err := t.spread(o); err != nil {
			return t, invalidf("request body: %v", err)
		}
	}
	if fleet.CompareVersions(c.r.version, apiNoConfigMAC) < 0 && fleet.CompareVersions(is, apiNoConfigMAC) >= 0 {
		if err := addressToEndpoint(o); err != nil {
			return t, invalidf("request body: %v", err)
		}
	}
	lost, err := readCreate(o)
	if err != nil {
		return t, err
	}
	// ConsoleSize, too, is lost before 1.42, but clients set the size again once the container runs.
	if since(apiAnnotations) && len(lost.HostConfig.Annotations) > 0 {
		t.warn("Annotations", apiAnnotations, n)
	}
	if since(apiEndpoints) && lost.Healthcheck != nil && lost.Healthcheck.StartInterval != 0 {
		t.warn("The start interval of the health check", apiEndpoints, n)
	}
	return t, nil
}

func (t *translation) warn(what, api string, n *fleet.Node) {
	t.warnings = append(t.warnings, fmt.Sprintf("%s came with API v%s and had no effect: node %s speaks v%s", what, api, n.Name, n.API))
}

// spread leaves one network in the body, with its MAC address where old engines look for it, and keeps the others for later.
func (t *translation) spread(o *rawjson.Object) error {
	config, endpoints, err := endpointsOf(o)
	if err != nil || endpoints.Len() == 0 {
		return err
	}
	var mode struct{ HostConfig struct{ NetworkMode string } }
	if err := json.Unmarshal(o.Bytes(), &mode); err != nil {
		return err
	}
	main := mainNetwork(mode.HostConfig.NetworkMode, o)
	only := new(rawjson.Object)
	for _, name := range endpoints.Keys() {
		if name == main {
			only.SetRaw(name, endpoints.Get(name))
			continue
		}
		t.later = append(t.later, laterNetwork{name, endpoints.Get(name)})
	}
	first, err := only.Object(main)
	if err != nil {
		return err
	}
	if isText(first, "MacAddress") && !isText(o, "MacAddress") {
		o.SetRaw("MacAddress", first.Get("MacAddress"))
	}
	if len(t.later) > 0 {
		config.Set("EndpointsConfig", only)
		o.Set("NetworkingConfig", config)
	}
	return nil
}

// addressToEndpoint moves the container's MAC address to its main network, the only place where new engines take it.
func addressToEndpoint(o *rawjson.Object) error {
	if !isText(o, "MacAddress") {
		return nil
	}
	var mode struct{ HostConfig struct{ NetworkMode string } }
	if err := json.Unmarshal(o.Bytes(), &mode); err != nil {
		return err
	}
	config, endpoints, err := endpointsOf(o)
	if err != nil {
		return err
	}
	main := mainNetwork(mode.HostConfig.NetworkMode, o)
	first, err := endpoints.Object(main)
	if err != nil {
		return err
	}
	if !isText(first, "MacAddress") {
		first.SetRaw("MacAddress", o.Get("MacAddress"))
	}
	o.Delete("MacAddress")
	endpoints.Set(main, first)
	config.Set("EndpointsConfig", endpoints)
	o.Set("NetworkingConfig", config)
	return nil
}

// isText tells whether a field holds a string that is not empty.
func isText(o *rawjson.Object, key string) bool { return o.Has(key) && string(o.Get(key)) != `""` }

func endpointsOf(o *rawjson.Object) (config, endpoints *rawjson.Object, err error) {
	if config, err = o.Object("NetworkingConfig"); err != nil {
		return nil, nil, err
	}
	endpoints, err = config.Object("EndpointsConfig")
	return config, endpoints, err
}

// mainNetwork is the key of the network that a create means by its network mode; of several that it does not mean, the first.
func mainNetwork(mode string, o *rawjson.Object) string {
	if mode == "" {
		mode = "default"
	}
	_, endpoints, err := endpointsOf(o)
	if err != nil || endpoints.Len() == 0 {
		return mode
	}
	keys := endpoints.Keys()
	switch {
	case slices.Contains(keys, mode):
		return mode
	case mode == "default" && slices.Contains(keys, "bridge"):
		return "bridge"
	}
	return slices.Min(keys)
}

// finish completes a create on an old engine: the other networks are connected before the client learns of the container,
// which is removed if that fails. It returns the answer with the warnings added.
func (s *Server) finish(ctx context.Context, n *fleet.Node, c *creation, answer []byte) ([]byte, error) {
	t := c.translated
	t.warnings = append(t.warnings[:len(t.warnings):len(t.warnings)], c.notes...)
	if len(t.later) == 0 && len(t.warnings) == 0 {
		return answer, nil
	}
	o, err := rawjson.ParseTrusted(answer)
	if err != nil {
		return nil, fmt.Errorf("node %s: create: %w", n.Name, err)
	}
	var id string
	var warnings []string
	if err := o.Decode("Id", &id); err != nil {
		return nil, fmt.Errorf("node %s: create: %w", n.Name, err)
	}
	if err := o.Decode("Warnings", &warnings); err != nil {
		return nil, fmt.Errorf("node %s: create: %w", n.Name, err)
	}
	if err := s.connectLater(ctx, n, c, id); err != nil {
		return nil, err
	}
	if len(t.warnings) > 0 {
		o.Set("Warnings", append(warnings, t.warnings...))
	}
	return append(o.Bytes(), '\n'), nil
}

func (s *Server) connectLater(ctx context.Context, n *fleet.Node, c *creation, id string) error {
	if len(c.translated.later) == 0 {
		return nil
	}
	// What was begun is finished or undone even if the client leaves.
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), workDeadline)
	defer cancel()
	err := ctx.Err()
	for _, l := range c.translated.later {
		if err != nil {
			break
		}
		o := new(rawjson.Object)
		o.Set("Container", id)
		o.SetRaw("EndpointConfig", l.endpoint) // marked with the rest of the body
		if _, failed := s.ask(work, n, http.MethodPost, c.r.version, "/networks/"+l.name+"/connect", nil, o.Bytes()); failed != nil {
			err = fmt.Errorf("connect to network %s: %w", l.name, failed)
			if status(failed) == http.StatusNotFound {
				err = invalid(err.Error()) // or the client would pull the image
			}
		} else if err = ctx.Err(); err == nil {
			continue
		}
	}
	if err != nil {
		s.undo(work, n, id)
		return err
	}
	s.refresh(work, n, fleet.KindContainer, id)
	return nil
}

// undo removes a container that its client was not told of.
func (s *Server) undo(ctx context.Context, n *fleet.Node, id string) {
	code, b, err := s.call(ctx, n, http.MethodDelete, n.API, "/containers/"+id, map[string][]string{"force": {"1"}, "v": {"1"}}, nil, nil)
	if err == nil && code >= 300 && code != http.StatusNotFound {
		err = &statusError{status: code, message: engineMessage(b)}
	}
	if err != nil {
		s.o.Log.Warn("a container that could not be completed could not be removed", "node", n.Name, "container", id, "error", err)
		return
	}
	s.fleet.Forget(n.ID, id)
}
