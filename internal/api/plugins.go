package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// listPlugins joins the nodes' plugins by name. One is enabled if it is on every node that has it.
func listPlugins(s *Server, w http.ResponseWriter, r *request) error {
	order, err := s.plugins(w, r, r.URL.Query())
	if err != nil {
		return err
	}
	out := []byte{'['}
	for i, p := range order {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p.Bytes()...)
	}
	writeRaw(w, http.StatusOK, append(out, ']', '\n'))
	return nil
}

// inspectPlugin shows one of the list. To deny that there are plugins would not do: `docker inspect` asks for a plugin
// last, and only after a 404 says that there is no such object.
func inspectPlugin(s *Server, w http.ResponseWriter, r *request) error {
	name := r.vars["name"]
	list, err := s.plugins(w, r, nil)
	if err != nil {
		return err
	}
	for _, p := range list {
		var id, known string
		if err := errors.Join(p.Decode("Id", &id), p.Decode("Name", &known)); err != nil {
			return fmt.Errorf("plugin list: %w", err)
		}
		if known == name || known == name+":latest" || id == name {
			writeRaw(w, http.StatusOK, append(p.Bytes(), '\n'))
			return nil
		}
	}
	return notFound(fmt.Sprintf("plugin %q not found", name))
}

// plugins are the nodes' plugins, each once.
func (s *Server) plugins(w http.ResponseWriter, r *request, query url.Values) ([]*rawjson.Object, error) {
	nodes := s.nodes()
	lists, errs := each(r.Context(), nodes, listDeadline, func(ctx context.Context, n *fleet.Node) ([]*rawjson.Object, error) {
		return s.pluginsOf(ctx, n, r, query)
	})
	if err := partial(w, nodes, errs); err != nil {
		return nil, err
	}
	seen := map[string]*rawjson.Object{}
	var order []*rawjson.Object
	for _, list := range lists {
		for _, p := range list {
			name := string(p.Get("Name"))
			first, known := seen[name]
			if !known {
				seen[name] = p
				order = append(order, p)
			} else if string(p.Get("Enabled")) == "false" {
				first.Set("Enabled", false)
			}
		}
	}
	return order, nil
}

func (s *Server) pluginsOf(ctx context.Context, n *fleet.Node, r *request, query url.Values) ([]*rawjson.Object, error) {
	b, err := s.ask(ctx, n, http.MethodGet, r.version, "/plugins", query, nil)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	raws, err := rawjson.Array(b)
	if err != nil {
		return nil, fmt.Errorf("node %s: plugin list: %w", n.Name, err)
	}
	var list []*rawjson.Object
	for _, raw := range raws {
		o, err := rawjson.ParseTrusted(raw)
		if err != nil {
			return nil, fmt.Errorf("node %s: plugin list: %w", n.Name, err)
		}
		list = append(list, o)
	}
	return list, nil
}
