package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"berth/internal/fleet"
)

// loadImages sends the archive to all healthy nodes while it comes in.
func loadImages(s *Server, w http.ResponseWriter, r *request) error {
	nodes, err := ableNodes(s.nodes(), r) // the others get copies when containers need them
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return errNoNode
	}
	l := &loading{p: newProgress(w), quiet: flag(r.URL.Query(), "quiet")}
	errs, err := spread(w, r, nodes, func(_ int, n *fleet.Node, body io.ReadCloser) error {
		return l.on(s, r, n, body)
	})
	if err != nil {
		return l.p.fail(err)
	}
	if !slices.Contains(errs, nil) {
		return l.p.fail(worst(errs))
	}
	for i, err := range errs {
		if err != nil {
			s.o.Log.Warn("load failed", "node", nodes[i].Name, "error", err)
		}
	}
	if l.quiet {
		l.p.warnQuietly(nodes, errs)
	} else {
		l.p.warn("Loading Image", nodes, errs)
	}
	for _, line := range l.loaded {
		l.p.raw(line)
	}
	return nil
}

// loading is one load on several nodes.
type loading struct {
	p     *progress
	quiet bool

	mu     sync.Mutex
	loaded [][]byte // the lines that tell what was loaded, each once
}

func (l *loading) on(s *Server, r *request, n *fleet.Node, body io.ReadCloser) error {
	res, err := s.open(r.Context(), n, http.MethodPost, r.version, "/images/load", r.URL.Query(), body, bodyHeader(r))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var refs []string
	err = readLines(res, func(raw json.RawMessage, m message) {
		if m.Stream != "" {
			l.keep(raw)
			if ref, ok := strings.CutPrefix(m.Stream, "Loaded image: "); ok {
				refs = append(refs, strings.TrimSpace(ref))
			}
			return
		}
		if !l.quiet {
			l.p.node(n, "Loading Image", m)
		}
	})
	if err != nil {
		return err
	}
	s.imagesChanged(r, n, refs...)
	return nil
}

func (l *loading) keep(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.ContainsFunc(l.loaded, func(known []byte) bool { return bytes.Equal(known, line) }) {
		l.loaded = append(l.loaded, line)
	}
}

func bodyHeader(r *request) http.Header {
	h := registryHeaders(r.Header)
	h["Content-Type"] = r.Header["Content-Type"]
	if len(h["Content-Type"]) == 0 {
		h.Set("Content-Type", "application/x-tar")
	}
	return h
}

// importImage imports on one node, since each import makes another image of the same archive, and gives the others copies.
func (s *Server) importImage(w http.ResponseWriter, r *request, q url.Values) error {
	n, err := s.builder(r)
	if err != nil {
		return err
	}
	ref := joinTag(q.Get("repo"), q.Get("tag"))
	p := newProgress(w)
	var last []byte
	errs, err := spread(w, r, []*fleet.Node{n}, func(_ int, n *fleet.Node, body io.ReadCloser) error {
		res, err := s.open(r.Context(), n, http.MethodPost, r.version, "/images/create", q, body, bodyHeader(r))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		return readLines(res, func(raw json.RawMessage, _ message) {
			if last != nil {
				p.raw(last)
			}
			last = raw
		})
	})
	if err == nil {
		err = errs[0]
	}
	if err != nil {
		return p.fail(err)
	}
	s.imagesChanged(r, n, ref)
	s.share(r, p, n, ref)
	if last != nil {
		p.raw(last) // it tells the new image's ID, and clients read it from the last line
	}
	return nil
}

// share gives all other nodes what a reference means now. Nodes that cannot have it yet get it with the first container
// that needs it there.
func (s *Server) share(r *request, p *progress, from *fleet.Node, ref string) {
	img, err := s.findImage(r.Context(), ref)
	if err != nil {
		return // it has no name
	}
	others := slices.DeleteFunc(s.nodes(), func(n *fleet.Node) bool { return n.ID == from.ID })
	errs := onNodes(others, pullsAtOnce, func(_ int, n *fleet.Node) error {
		return s.bring(r.Context(), img, n)
	})
	p.warn("Importing "+ref, others, errs)
}

// warn tells of nodes on which something failed that worked on others.
func (p *progress) warn(what string, nodes []*fleet.Node, errs []error) {
	for i, err := range errs {
		if err != nil {
			p.line(message{Status: what + "... : warning: " + err.Error(), ProgressDetail: json.RawMessage("{}"), ID: nodes[i].Name})
		}
	}
}

// warnQuietly is warn for clients that want no progress.
func (p *progress) warnQuietly(nodes []*fleet.Node, errs []error) {
	for i, err := range errs {
		if err != nil {
			p.line(message{Stream: "Warning: " + naming(nodes[i], err) + "\n"})
		}
	}
}

// naming tells an error with its node; one that nobody answered names it already.
func naming(n *fleet.Node, err error) string {
	if errors.As(err, new(interface{ Unavailable() })) {
		return err.Error()
	}
	return "node " + n.Name + ": " + err.Error()
}

const (
	feedPiece = 64 << 10
	feedQueue = 8 // pieces that a node may be behind; with the piece's size this bounds the memory
)

// feed is one node's part of a body that goes to several.
type feed struct {
	pieces chan []byte
	gone   chan struct{} // closed when the node takes no more
	once   sync.Once
	rest   []byte
	err    error // how the body ended, once pieces is closed; nil for its proper end
}

// Read gives what has come in.
func (f *feed) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		var ok bool
		if f.rest, ok = <-f.pieces; !ok {
			if f.err != nil {
				return 0, f.err
			}
			return 0, io.EOF
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// Close is the sender's.
func (f *feed) Close() error {
	f.leave()
	return nil
}

// leave says that the node takes no more.
func (f *feed) leave() { f.once.Do(func() { close(f.gone) }) }

// spread sends the request's body to several nodes as it comes in. The slowest sets the pace; one that fails is left
// behind. The error is the client's fault; errs are the nodes'.
func spread(w http.ResponseWriter, r *request, nodes []*fleet.Node, send func(int, *fleet.Node, io.ReadCloser) error) (errs []error, err error) {
	// Progress is written while the body is read.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	feeds := make([]*feed, len(nodes))
	for i := range feeds {
		feeds[i] = &feed{pieces: make(chan []byte, feedQueue), gone: make(chan struct{})}
	}
	errs = make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			defer feeds[i].leave()
			errs[i] = send(i, n, feeds[i])
		})
	}
	err = pump(r.Body, feeds)
	for _, f := range feeds {
		f.err = err
		close(f.pieces)
	}
	wg.Wait()
	if err != nil {
		return errs, invalidf("read the request's body: %v", err)
	}
	return errs, nil
}

// pump reads until the end, or until nobody takes any more.
func pump(body io.Reader, feeds []*feed) error {
	for {
		piece := make([]byte, feedPiece)
		n, err := body.Read(piece)
		taken := n == 0
		for _, f := range feeds {
			if n == 0 {
				break
			}
			select {
			case <-f.gone:
				continue
			default:
			}
			select {
			case f.pieces <- piece[:n]:
				taken = true
			case <-f.gone:
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // readers return it bare
			return nil
		case err != nil:
			return err
		case !taken:
			return nil
		}
	}
}
