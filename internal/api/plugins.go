package api

import (
	"context"
	"fmt"
	"net/http"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// listPlugins joins the nodes' plugins by name. One is enabled if it is on every node that has it.
func listPlugins(s *Server, w http.ResponseWriter, r *request) error {
	nodes := s.nodes()
	lists, errs := each(r.Context(), nodes, listDeadline, func(ctx context.Context, n *fleet.Node) ([]*rawjson.Object, error) {
		return s.pluginsOf(ctx, n, r)
	})
	if err := partial(w, nodes, errs); err != nil {
		return err
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

func (s *Server) pluginsOf(ctx context.Context, n *fleet.Node, r *request) ([]*rawjson.Object, error) {
	b, err := s.ask(ctx, n, http.MethodGet, r.version, "/plugins", r.URL.Query(), nil)
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
