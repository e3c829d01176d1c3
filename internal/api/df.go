package api

import (
	"context"
	"fmt"
	"net/http"

	"golang.org/x/sync/singleflight"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// usage asks each node once at a time: engines before 23 refuse a second question while they work on the first.
type usage struct{ flights singleflight.Group }

// showUsage joins the lists and adds the sums up. Images are not counted once for all nodes: the disk is used on each.
func showUsage(s *Server, w http.ResponseWriter, r *request) error {
	nodes := s.nodes()
	if len(nodes) == 0 {
		return unavailable("no healthy node is available in the fleet")
	}
	answers, errs := each(r.Context(), nodes, workDeadline, func(ctx context.Context, n *fleet.Node) (*rawjson.Object, error) {
		return s.askUsage(ctx, n, r)
	})
	if err := partial(w, nodes, errs); err != nil {
		return err
	}
	sum := new(rawjson.Object)
	for i, a := range answers {
		if a == nil {
			continue
		}
		if err := addUsage(sum, a); err != nil {
			return fmt.Errorf("node %s: disk usage: %w", nodes[i].Name, err)
		}
	}
	writeRaw(w, http.StatusOK, append(sum.Bytes(), '\n'))
	return nil
}

func (s *Server) askUsage(ctx context.Context, n *fleet.Node, r *request) (*rawjson.Object, error) {
	// The answer is shared, so it must not end with one asker.
	b, err, _ := s.usage.flights.Do(n.ID+" "+r.version+" "+r.URL.RawQuery, func() (any, error) {
		return s.ask(context.WithoutCancel(ctx), n, http.MethodGet, r.version, "/system/df", r.URL.Query(), nil)
	})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	body, ok := b.([]byte)
	if !ok {
		return nil, fmt.Errorf("node %s: disk usage: unexpected %T", n.Name, b)
	}
	o, err := rawjson.ParseTrusted(body)
	if err != nil {
		return nil, fmt.Errorf("node %s: disk usage: %w", n.Name, err)
	}
	return o, nil
}

// addUsage adds one node's answer to the sum, field by field, whatever they are: numbers are added, lists joined, objects
// added in turn. So fields of later versions need no code.
func addUsage(sum, a *rawjson.Object) error {
	for _, k := range a.Keys() {
		v := a.Get(k)
		had := sum.Get(k)
		switch {
		case had == nil || string(had) == "null":
			sum.SetRaw(k, v)
		case string(v) == "null":
		case v[0] == '[':
			joined, err := joinArrays(had, v)
			if err != nil {
				return err
			}
			sum.SetRaw(k, joined)
		case v[0] == '{':
			both, err := sum.Object(k)
			if err != nil {
				return err
			}
			more, err := a.Object(k)
			if err != nil {
				return err
			}
			if err := addUsage(both, more); err != nil {
				return err
			}
			sum.Set(k, both)
		default:
			var x, y int64
			if sum.Decode(k, &x) == nil && a.Decode(k, &y) == nil {
				sum.Set(k, x+y)
			}
		}
	}
	return nil
}

func joinArrays(a, b []byte) ([]byte, error) {
	var out []byte
	for _, part := range [][]byte{a, b} {
		rows, err := rawjson.Array(part)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if len(out) > 0 {
				out = append(out, ',')
			}
			out = append(out, row...)
		}
	}
	return append(append([]byte{'['}, out...), ']'), nil
}
