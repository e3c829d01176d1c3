package api

import (
	"io"
	"net/http"
	"net/url"
	"strings"

	"berth/internal/fleet"
)

// pullsAtOnce is how many nodes pull one image at a time, as in classic Swarm: registries count.
const pullsAtOnce = 16

// createImage pulls or imports, as the query says.
func createImage(s *Server, w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	switch {
	case q.Get("fromImage") != "":
		return s.pullImage(w, r, q)
	case q.Get("fromSrc") != "":
		return s.importImage(w, r, q)
	}
	return s.anyHealthy(w, r) // an engine says what is wrong with it
}

// pullImage pulls on all healthy nodes, but only on the chosen one if it is the pull that follows a create's 404.
//
// Pulls of one image on one node at the same time are made one by the engine, which shares downloads and checks each
// client's credentials.
func (s *Server) pullImage(w http.ResponseWriter, r *request, q url.Values) error {
	ref := joinTag(q.Get("fromImage"), q.Get("tag"))
	if n, ok := s.wantedNode(r, ref); ok {
		return s.pullWanted(w, r, n, ref)
	}
	nodes := s.nodes()
	switch len(nodes) {
	case 0:
		return errNoNode
	case 1:
		return s.pullOn(w, r, nodes[0], ref)
	}
	return s.pullEverywhere(w, r, q, ref, nodes)
}

var errNoNode = unavailable("no healthy node is available in the fleet")

// pullOn hands the pull to one node, whose progress is the client's.
func (s *Server) pullOn(w http.ResponseWriter, r *request, n *fleet.Node, ref string) error {
	return s.forward(w, r, n, forwarding{before: atEnd(func() { s.imagesChanged(r, n, ref) })}) //nolint:bodyclose // proxy closes it
}

// pullWanted is pullOn for a create that waits. One that cannot have its image waits no longer.
func (s *Server) pullWanted(w http.ResponseWriter, r *request, n *fleet.Node, ref string) error {
	end := atEnd(func() { s.imagesChanged(r, n, ref) }) //nolint:bodyclose // proxy closes it
	return s.forward(w, r, n, forwarding{before: func(res *http.Response) error {
		if res.StatusCode >= 400 {
			s.unwantImage(r, ref)
		}
		return end(res)
	}})
}

// imagesChanged brings the picture up to date after a node wrote references. What they are is read from what changed, too:
// a pull may be of all tags.
func (s *Server) imagesChanged(r *request, n *fleet.Node, refs ...string) {
	old, ok := s.fleet.Snapshot().Node(n.ID)
	s.refresh(r.Context(), n, fleet.KindImage, "")
	if ok {
		s.noteTags(old)
	}
	for _, ref := range refs {
		s.imageWritten(n, ref)
	}
}

// atEnd has done called when a successful answer has come in whole and before the client sees its end.
func atEnd(done func()) func(*http.Response) error {
	return func(res *http.Response) error {
		if res.StatusCode/100 == 2 {
			res.Body = &endBody{res.Body, done}
		}
		return nil
	}
}

type endBody struct {
	io.ReadCloser
	done func()
}

func (b *endBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && b.done != nil { //nolint:errorlint // readers return it bare
		b.done()
		b.done = nil
	}
	return n, err
}

// pulled is how a pull ended on one node.
type pulled struct{ digest, status string }

func (s *Server) pullEverywhere(w http.ResponseWriter, r *request, q url.Values, ref string, nodes []*fleet.Node) error {
	p := newProgress(w)
	what := "Pulling " + shownRef(ref)
	ends := make([]pulled, len(nodes))
	errs := onNodes(nodes, pullsAtOnce, func(i int, n *fleet.Node) error {
		res, err := s.open(r.Context(), n, http.MethodPost, r.version, "/images/create", q, nil, registryHeaders(r.Header))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		err = readMessages(res, func(m message) {
			ends[i].take(m)
			p.node(n, what, m)
		})
		if err == nil {
			s.imagesChanged(r, n, ref)
		}
		return err
	})
	end := pulled{}
	good := 0
	for i, err := range errs {
		switch {
		case err == nil:
			good++
			end.merge(ends[i])
		case r.Context().Err() == nil:
			s.o.Log.Warn("pull failed", "image", ref, "node", nodes[i].Name, "error", err)
		}
	}
	if good == 0 {
		return p.fail(worst(errs))
	}
	p.warn(what, nodes, errs)
	// Clients look into the last line for how it went.
	if end.digest != "" {
		p.line(message{Status: end.digest})
	}
	if end.status == "" {
		end.status = "Status: Image is up to date for " + ref
	}
	p.line(message{Status: end.status})
	return nil
}

func (p *pulled) take(m message) {
	switch {
	case strings.HasPrefix(m.Status, "Digest: "):
		p.digest = m.Status
	case strings.HasPrefix(m.Status, "Status: "):
		p.status = m.Status
	}
}

// merge prefers what tells of a change.
func (p *pulled) merge(other pulled) {
	if p.digest == "" {
		p.digest = other.digest
	}
	if p.status == "" || strings.Contains(other.status, "Downloaded") {
		p.status = other.status
	}
}
