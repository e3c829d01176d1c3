package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/sync/singleflight"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// usageTypes are the values of the parameter type, which came with API 1.42, and the fields that each stands for.
var usageTypes = map[string][]string{
	"container": {"Containers"}, "image": {"Images", "LayersSize"}, "volume": {"Volumes"}, "build-cache": {"BuildCache", "BuilderSize"},
}

// showUsage joins the lists and adds the sums up. Images are not counted once for all nodes: the disk is used on each.
func showUsage(s *Server, w http.ResponseWriter, r *request) error {
	types := r.URL.Query()["type"]
	for _, t := range types {
		if usageTypes[t] == nil {
			return invalidf("unknown object type: %s", t)
		}
	}
	nodes := s.nodes()
	if len(nodes) == 0 {
		return unavailable("no healthy node is available in the fleet")
	}
	answers, errs := each(r.Context(), nodes, workDeadline, func(ctx context.Context, n *fleet.Node) (*rawjson.Object, error) {
		return s.askUsage(ctx, n, r, types)
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

// askUsage asks one node. Engines before API 1.42 know no types and always work everything out; what was not asked for is
// taken out of their answer here.
func (s *Server) askUsage(ctx context.Context, n *fleet.Node, r *request, types []string) (*rawjson.Object, error) {
	version, q := n.Clamp(r.version), r.URL.Query()
	old := fleet.CompareVersions(version, "1.42") < 0
	if old {
		q = nil
	}
	b, err := s.usage.share(ctx, n.ID, version+"?"+q.Encode(), func(ctx context.Context) ([]byte, error) {
		return s.ask(ctx, n, http.MethodGet, version, "/system/df", q, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	o, err := rawjson.ParseTrusted(b)
	if err != nil {
		return nil, fmt.Errorf("node %s: disk usage: %w", n.Name, err)
	}
	if old && len(types) > 0 {
		for t, fields := range usageTypes {
			if !slices.Contains(types, t) {
				blank(o, fields)
			}
		}
	}
	return o, nil
}

// blank makes fields what newer engines send for types that were not asked for.
func blank(o *rawjson.Object, fields []string) {
	for _, f := range fields {
		switch v := o.Get(f); {
		case len(v) == 0:
		case v[0] == '[':
			o.SetRaw(f, []byte("null"))
		case v[0] != 'n':
			o.SetRaw(f, []byte("0"))
		}
	}
}

// usage asks each node one question at a time, and one question once: engines before 23 refuse a second one while they work
// on the first, and the answer takes its time.
type usage struct {
	flights singleflight.Group

	mu   sync.Mutex
	turn map[string]chan struct{} // by node, with room for one
}

// share asks through ask, or waits for the answer that somebody else is asking for. The call does not end with one asker.
func (u *usage) share(ctx context.Context, node, question string, ask func(context.Context) ([]byte, error)) ([]byte, error) {
	result := u.flights.DoChan(node+" "+question, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), workDeadline)
		defer cancel()
		turn := u.turnOf(node)
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-turn }()
		return ask(ctx)
	})
	select {
	case res := <-result:
		b, _ := res.Val.([]byte) // nothing else is put in above, and nothing at all with an error
		return b, res.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (u *usage) turnOf(node string) chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.turn == nil {
		u.turn = map[string]chan struct{}{}
	}
	if u.turn[node] == nil {
		u.turn[node] = make(chan struct{}, 1)
	}
	return u.turn[node]
}

// addUsage adds one node's answer to the sum, field by field, whatever they are: numbers are added, lists joined, objects
// added in turn. So fields of later versions need no code.
func addUsage(sum, a *rawjson.Object) error {
	for _, k := range a.Keys() {
		v, had := a.Get(k), sum.Get(k)
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
			both, err := addObjects(sum, a, k)
			if err != nil {
				return err
			}
			sum.Set(k, both)
		default:
			var x, y int64
			if sum.Decode(k, &x) == nil && a.Decode(k, &y) == nil {
				sum.Set(k, x+y)
			} // else words or truth values, of which the first stands
		}
	}
	return nil
}

func addObjects(sum, a *rawjson.Object, key string) (*rawjson.Object, error) {
	both, err := sum.Object(key)
	if err != nil {
		return nil, err
	}
	more, err := a.Object(key)
	if err != nil {
		return nil, err
	}
	return both, addUsage(both, more)
}

func joinArrays(a, b []byte) ([]byte, error) {
	out := []byte{'['}
	for _, part := range [][]byte{a, b} {
		rows, err := rawjson.Array(part)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, row...)
		}
	}
	return append(out, ']'), nil
}
