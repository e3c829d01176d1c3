package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// execs remembers which node an exec is on. What it has forgotten, and what another manager or a client of an engine made,
// is found in the containers' own lists or by asking.
type execs struct {
	mu    sync.Mutex
	nodes map[string]string // exec ID → node ID
	order []string          // oldest first
}

const maxExecs = 100_000

func newExecs() *execs { return &execs{nodes: map[string]string{}} }

func (e *execs) put(id, nodeID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.nodes[id]; !known {
		e.order = append(e.order, id)
	}
	e.nodes[id] = nodeID
	if len(e.order) > maxExecs {
		delete(e.nodes, e.order[0])
		e.order = e.order[1:]
	}
}

func (e *execs) get(id string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.nodes[id]
}

// createExec notes the new exec's node before the client learns its ID.
func createExec(s *Server, w http.ResponseWriter, r *request) error {
	c, err := s.locate(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return s.forward(w, r, c.Node, forwarding{path: r.ownPath(c.Container.ID), before: editBody(func(b []byte) ([]byte, error) { //nolint:bodyclose // proxy closes it
		var made struct {
			ID string `json:"Id"`
		}
		if err := decode(c.Node, "create exec", b, &made); err != nil {
			return nil, err
		}
		s.execs.put(made.ID, c.Node.ID)
		return b, nil
	})})
}

var execID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// execNode finds the node of an exec.
func (s *Server) execNode(ctx context.Context, id string) (*fleet.Node, error) {
	unknown := notFound("No such exec instance: " + id)
	if !execID.MatchString(id) {
		return nil, unknown
	}
	snap := s.fleet.Snapshot()
	if n, ok := snap.Node(s.execs.get(id)); ok {
		return n, nil
	}
	for _, n := range snap.Nodes() {
		for _, c := range n.Containers {
			for _, e := range c.ExecIDs {
				if e == id {
					s.execs.put(id, n.ID)
					return n, nil
				}
			}
		}
	}
	nodes := s.nodes()
	has, _ := each(ctx, nodes, 2*time.Second, func(ctx context.Context, n *fleet.Node) (bool, error) {
		code, _, err := s.call(ctx, n, http.MethodGet, n.API, "/exec/"+id+"/json", url.Values{}, nil, nil)
		return code == http.StatusOK, err // a node that does not answer cannot run it now either
	})
	for i, ok := range has {
		if ok {
			s.execs.put(id, nodes[i].ID)
			return nodes[i], nil
		}
	}
	return nil, unknown
}

// onExec hands an exec's request to its node.
func onExec(s *Server, w http.ResponseWriter, r *request) error {
	n, err := s.execNode(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return s.forward(w, r, n, forwarding{})
}

// startExec becomes a raw stream unless the body says Detach.
func startExec(s *Server, w http.ResponseWriter, r *request) error {
	n, err := s.execNode(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return s.forward(w, r, n, forwarding{hijack: true})
}

// inspectExec is passed through; it has no name that could be rewritten.
func inspectExec(s *Server, w http.ResponseWriter, r *request) error { return onExec(s, w, r) }

// decodeBody reads a client's JSON body into a struct of the few fields that a handler needs.
func decodeBody(o *rawjson.Object, v any) error {
	if err := json.Unmarshal(o.Source(), v); err != nil {
		return invalidf("request body: %v", err)
	}
	return nil
}
