package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// dryRunHeader on a create asks where the container would go. Nothing is made, pulled or reserved.
const dryRunHeader = "X-Berth-Dry-Run"

// maxPlaced bounds the requests of one dry run.
const maxPlaced = 10_000

// What is to be done with the image of a container that has a node.
const (
	ImagePresent = "present" // the node has it, or its engine is the one to know
	ImageCopy    = "copy"    // other nodes have it: it is brought from one of them
	ImagePull    = "pull"    // it comes from its registry, to that node
)

// Placement is the answer to a dry run of one create.
type Placement struct {
	Status  int    // of a create that is meant
	Message string `json:"message,omitempty"` // the error that the create would answer
	Name    string `json:",omitempty"`
	// Node would be taken. It is there, too, if only the image is missing (404), which the client then pulls to it.
	Node    string   `json:",omitempty"`
	Decided string   `json:",omitempty"` // why this node and not the next one
	Image   string   `json:",omitempty"` // present, copy or pull
	Moves   []string `json:",omitempty"` // networks and volumes that would move, since nobody used them yet
	// Nodes is every node of the fleet: those that fit, best first, then the others by name.
	Nodes []Verdict `json:",omitempty"`
}

// Verdict is what becomes of a create on one node.
type Verdict struct {
	Name, ID string
	Fits     bool
	Filter   string `json:",omitempty"` // what refuses the node, and why
	Reason   string `json:",omitempty"`
	// What the strategy looks at, in this order, where the node fits: how many of the soft expressions it grants, its weight, and
	// its containers.
	Wishes, Granted, Weight, Containers int
}

// Rehearsal asks in one go where several containers would go, each with those before it in place.
type Rehearsal struct {
	// Bodies of the networks and volumes that are made first. Those that exist are used as they are.
	Networks, Volumes []json.RawMessage `json:",omitempty"`
	Requests          []RehearsedCreate
	Explain           bool `json:",omitempty"` // list the nodes in each answer
}

// RehearsedCreate is the body of a create, and what stands in its query.
type RehearsedCreate struct {
	Name     string `json:",omitempty"`
	Platform string `json:",omitempty"`
	Body     json.RawMessage
}

func placeRoutes() []route {
	return []route{
		{"POST", "/berth/place", local, placeContainers, "berth's own: where containers would go, for `berth place`; as is the header `X-Berth-Dry-Run: 1` on a create"},
	}
}

// placeContainer answers a create as a dry run, with the status that it would have but for 201, which is 200.
func placeContainer(s *Server, w http.ResponseWriter, r *request) error {
	dry, err := strconv.ParseBool(r.Header.Get(dryRunHeader))
	if err != nil {
		return invalidf("header %s: %q is neither 1 nor 0", dryRunHeader, r.Header.Get(dryRunHeader))
	}
	if !dry {
		r.Header.Del(dryRunHeader)
		return createContainer(s, w, r)
	}
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, 16<<20))
	if err != nil {
		return invalidf("request body: %v", err)
	}
	s.settleBuilds(r.Context())
	pretend, p, err := s.rehearse(r.Context())
	if err != nil {
		return err
	}
	a := pretend.attempt(r.with(r.URL.Query(), b), p)
	writeJSON(w, a.Status, a)
	return nil
}

// placeContainers is a dry run of all that a Compose project makes, or of a single container.
func placeContainers(s *Server, w http.ResponseWriter, r *request) error {
	o, err := body(r)
	if err != nil {
		return err
	}
	var ask Rehearsal
	if err := decodeBody(o, &ask); err != nil {
		return err
	}
	if len(ask.Requests) == 0 {
		return invalid("Requests: nothing to place")
	}
	if len(ask.Requests) > maxPlaced {
		return invalidf("Requests: %d are more than %d", len(ask.Requests), maxPlaced)
	}
	s.awaitReady(r.Context())
	s.settleBuilds(r.Context())
	pretend, p, err := s.rehearse(r.Context())
	if err != nil {
		return err
	}
	if err := pretend.prepare(r, ask); err != nil {
		return err
	}
	answers := make([]Placement, 0, len(ask.Requests))
	for _, c := range ask.Requests {
		if err := r.Context().Err(); err != nil {
			return err
		}
		a := pretend.attempt(r.with(c.query(), c.Body), p)
		if !ask.Explain {
			a.Nodes = nil
		}
		answers = append(answers, a)
	}
	writeJSON(w, http.StatusOK, map[string]any{"Placements": answers})
	return nil
}

func (c RehearsedCreate) query() url.Values {
	q := url.Values{}
	if c.Name != "" {
		q.Set("name", c.Name)
	}
	if c.Platform != "" {
		q.Set("platform", c.Platform)
	}
	return q
}

// with is the request as if it were one for another query and body, and no dry run.
func (r *request) with(q url.Values, body []byte) *request {
	out := r.Clone(r.Context())
	out.Header.Del(dryRunHeader)
	out.URL.RawQuery = q.Encode()
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return &request{Request: out, version: r.version, path: r.path, vars: r.vars, route: r.route}
}

// prepare makes the networks and volumes. One that exists already is what Compose, too, then goes on with.
func (s *Server) prepare(r *request, ask Rehearsal) error {
	for _, kind := range []struct {
		what   string
		bodies []json.RawMessage
		create handler
	}{
		{"networks", ask.Networks, createNetwork}, {"volumes", ask.Volumes, createVolume},
	} {
		for _, b := range kind.bodies {
			one := r.with(url.Values{}, b)
			one.path = "/" + kind.what + "/create"
			err := kind.create(s, &unread{header: http.Header{}}, one)
			if err != nil && status(err) != http.StatusConflict {
				return fmt.Errorf("%s: %w", kind.what, err)
			}
		}
	}
	return nil
}

// attempt has the handler create one container in the rehearsal, and says what came of it.
func (s *Server) attempt(r *request, p *rehearsal) Placement {
	p.asked, p.chosen, p.moves = nil, nil, nil
	a := Placement{Status: http.StatusOK, Name: r.URL.Query().Get("name")}
	err := createContainer(s, &unread{header: http.Header{}}, r)
	if err != nil {
		a.Status, a.Message = status(err), err.Error()
	}
	if p.asked == nil {
		return a
	}
	verdicts, explained := schedule.Explain(p.seen, p.asked, p.policy)
	if explained != nil {
		return a // a contradiction, which err says, is no single node's
	}
	for _, v := range verdicts {
		a.Nodes = append(a.Nodes, Verdict{
			Name: v.Node.Name, ID: v.Node.ID, Fits: v.Fits, Filter: v.Filter, Reason: v.Reason,
			Wishes: v.Wishes, Granted: v.Granted, Weight: v.Weight, Containers: v.Containers,
		})
	}
	if p.chosen == nil || err != nil {
		return a
	}
	a.Node, a.Moves, a.Decided = p.chosen.Name, p.moves, decided(verdicts, p.asked, p.policy)
	s.needsImage(r.Context(), p.chosen, p.asked.Image, &a)
	return a
}

// needsImage tells how the node comes by the image. That nobody has it is the error of a create, upon which clients pull.
func (s *Server) needsImage(ctx context.Context, n *fleet.Node, ref string, a *Placement) {
	a.Image = ImagePresent
	if ref == "" {
		return
	}
	img, err := s.findImage(ctx, ref)
	switch {
	case errors.As(err, new(*fleet.AmbiguousError)):
	case err != nil:
		missing := noSuchImage(ref)
		a.Image, a.Status, a.Message = ImagePull, status(missing), missing.Error()
	case img.knownOn(n.ID):
	case img.digest != "":
		a.Image = ImagePull
	case !img.on(n.ID):
		a.Image = ImageCopy
	}
}

// decided says what the first of the nodes that fit has over the second.
func decided(verdicts []schedule.Verdict, r *schedule.Request, policy schedule.Policy) string {
	if len(verdicts) < 2 || !verdicts[1].Fits {
		return "no other node fits"
	}
	first, second := verdicts[0], verdicts[1]
	less, fewer := "lowest weight", "fewest containers"
	switch policy.Strategy {
	case schedule.Binpack, "binpacking":
		less, fewer = "highest weight", "most containers"
	}
	preferred := func(v schedule.Verdict) bool { return slices.Contains(r.Prefer, v.Node.ID) }
	switch {
	case first.Granted != second.Granted:
		return "grants most of the soft expressions"
	case policy.Strategy == schedule.Random:
		return "random"
	case first.Weight != second.Weight:
		return less
	case first.Containers != second.Containers:
		return fewer
	case preferred(first) && !preferred(second):
		return "as good as others, and has the image or was asked to pull it"
	}
	return "as good as others"
}

// unread is a ResponseWriter for answers that nobody reads: errors are returned, and the rest is in the rehearsal.
type unread struct{ header http.Header }

func (u *unread) Header() http.Header         { return u.header }
func (u *unread) Write(b []byte) (int, error) { return len(b), nil }
func (u *unread) WriteHeader(int)             {}
