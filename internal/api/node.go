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
	"strconv"
	"sync"
	"time"

	"berth/internal/fleet"
	"berth/internal/proxy"
	"berth/internal/rawjson"
)

const (
	listDeadline = 3 * time.Second // one node's part of a merged answer
	workDeadline = 5 * time.Minute // one node's part of a change over all nodes: prunes and removals take long
	fanOut       = 64              // nodes asked at a time
	answerLimit  = 64 << 20
)

// forwarding says what a handler wants done on the way to a node and back.
type forwarding struct {
	path  string     // unversioned, on the node; the client's own by default
	query url.Values // nil leaves the client's
	body  []byte     // nil leaves the client's
	// hijack is for attach and exec start, which may turn into a raw stream without an Upgrade.
	hijack bool
	// before is called when the engine's head is in and before the client gets anything.
	before func(*http.Response) error
}

// forward hands the request to a node.
func (s *Server) forward(w http.ResponseWriter, r *request, n *fleet.Node, f forwarding) error {
	out := new(http.Request)
	*out = *r.Request // proxy changes nothing of what they share
	path := f.path
	if path == "" {
		path = r.path
	}
	out.URL = &url.URL{Path: n.Path(r.version, path), RawQuery: r.URL.RawQuery}
	if f.query != nil {
		out.URL.RawQuery = f.query.Encode()
	}
	if f.body != nil {
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.body)), nil }
		out.Body, _ = out.GetBody() // never fails
		out.ContentLength, out.TransferEncoding = int64(len(f.body)), nil
	}
	return s.fleet.Forward(w, out, n.ID, proxy.Options{
		Hijack: f.hijack,
		Detach: f.hijack, // nothing is left to do for attach and exec when they end
		Modify: f.before,
		Header: func(h http.Header) {
			s.headers(h)
			h["X-Berth-Node"] = []string{n.Name}
		},
	})
}

// call makes one request of our own to a node. The context carries the deadline. The body is the answer's whole.
func (s *Server) call(ctx context.Context, n *fleet.Node, method, version, path string, query url.Values, body []byte, header http.Header) (int, []byte, error) {
	res, err := s.open(ctx, n, method, version, path, query, bytes.NewReader(body), header)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return 0, nil, fmt.Errorf("node %s: %s %s: %w", n.Name, method, path, err)
	}
	return res.StatusCode, b, nil
}

// open makes one request of our own to a node and leaves the body to the caller.
func (s *Server) open(ctx context.Context, n *fleet.Node, method, version, path string, query url.Values, body io.Reader, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://docker", body)
	if err != nil {
		return nil, err
	}
	r.URL.Path = n.Path(version, path)
	r.URL.RawQuery = query.Encode()
	for k, v := range header {
		r.Header[k] = v
	}
	if body != nil && r.Header.Get("Content-Type") == "" && method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	return s.fleet.Do(ctx, n.ID, r)
}

// ask is call for a JSON answer; a status other than 2xx is an error with the engine's text and status.
func (s *Server) ask(ctx context.Context, n *fleet.Node, method, version, path string, query url.Values, body []byte) ([]byte, error) {
	code, b, err := s.call(ctx, n, method, version, path, query, body, nil)
	if err != nil {
		return nil, err
	}
	if code/100 != 2 {
		return nil, &statusError{status: code, message: engineMessage(b)}
	}
	return b, nil
}

// nodes lists those that are asked for merged answers and changes everywhere.
func (s *Server) nodes() []*fleet.Node {
	var up []*fleet.Node
	for _, n := range s.fleet.Snapshot().Nodes() {
		if n.State == fleet.Healthy {
			up = append(up, n)
		}
	}
	return up
}

// each asks several nodes at once and returns the answers and errors in the order of the nodes.
func each[T any](ctx context.Context, nodes []*fleet.Node, d time.Duration, ask func(context.Context, *fleet.Node) (T, error)) ([]T, []error) {
	out, errs := make([]T, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	slots := make(chan struct{}, fanOut)
	for i, n := range nodes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, d)
			defer cancel()
			out[i], errs[i] = ask(ctx, n)
		})
	}
	wg.Wait()
	return out, errs
}

// partial notes in a header which nodes are missing from a merged answer. If none answered it is an error.
func partial(w http.ResponseWriter, nodes []*fleet.Node, errs []error) error {
	var missing []error
	for i, err := range errs {
		if err != nil {
			w.Header().Add("X-Berth-Partial", nodes[i].Name)
			missing = append(missing, err)
		}
	}
	if len(missing) > 0 && len(missing) == len(errs) {
		return errors.Join(missing...)
	}
	return nil
}

// anyHealthy hands the request to the first healthy node that can be reached.
func (s *Server) anyHealthy(w http.ResponseWriter, r *request) error {
	last := unavailable("no healthy node is available in the fleet")
	for _, n := range s.nodes() {
		err := s.forward(w, r, n, forwarding{})
		if err == nil || r.Context().Err() != nil || !errors.As(err, new(interface{ Unavailable() })) {
			return err
		}
		last = err
		if r.Body != nil && r.ContentLength != 0 {
			break // the body may be used up
		}
	}
	return last
}

// body reads a client's JSON body, which must be an object. An empty one counts as {}.
func body(r *request) (*rawjson.Object, error) {
	const most, usual = 16 << 20, 1 << 20
	whole := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), usual)+bytes.MinRead))
	if _, err := whole.ReadFrom(http.MaxBytesReader(nil, r.Body, most)); err != nil {
		return nil, invalidf("request body: %v", err)
	}
	b := whole.Bytes()
	if len(bytes.TrimSpace(b)) == 0 {
		return new(rawjson.Object), nil
	}
	o, err := rawjson.Parse(b)
	if err != nil {
		return nil, invalidf("request body: %v", err)
	}
	return o, nil
}

// usualBody is room for most answers of engines, which do not always say how long they are.
const usualBody = 8 << 10

func readWhole(res *http.Response) ([]byte, error) {
	room := usualBody
	if res.ContentLength > 0 && res.ContentLength < answerLimit {
		room = int(res.ContentLength) + bytes.MinRead // which is what it asks for once more, to see the end
	}
	b := bytes.NewBuffer(make([]byte, 0, room))
	_, err := b.ReadFrom(res.Body)
	return b.Bytes(), err
}

// editBody replaces the JSON body of a successful answer.
func editBody(edit func([]byte) ([]byte, error)) func(*http.Response) error {
	return func(res *http.Response) error {
		if res.StatusCode/100 != 2 {
			return nil
		}
		b, err := readWhole(res)
		if err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		if b, err = edit(b); err != nil {
			return err
		}
		replaceBody(res, b)
		return nil
	}
}

// lent is memory for the body of an answer, which goes back when the answer is out.
type lent struct {
	bytes.Reader
	in  bytes.Buffer // as it came
	out []byte       // as it goes
}

var lents = sync.Pool{New: func() any { return new(lent) }}

// lentLimit is up to how much is kept for the next one.
const lentLimit = 256 << 10

func (l *lent) giveBack() {
	if l.in.Cap() > lentLimit || cap(l.out) > lentLimit {
		return
	}
	l.in.Reset()
	l.Reset(nil)
	lents.Put(l)
}

// lentBody gives its memory back when it is closed.
type lentBody struct{ *lent }

func (b *lentBody) Close() error {
	if b.lent != nil {
		b.giveBack()
		b.lent = nil
	}
	return nil
}

// editLent is editBody for an edit that appends its result to out and keeps nothing of either.
func editLent(edit func(out, b []byte) ([]byte, error)) func(*http.Response) error {
	return func(res *http.Response) error {
		if res.StatusCode/100 != 2 {
			return nil
		}
		l := lents.Get().(*lent) //nolint:errcheck,forcetypeassert // nothing else is in there
		if _, err := l.in.ReadFrom(res.Body); err != nil {
			l.giveBack()
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		out, err := edit(l.out[:0], l.in.Bytes())
		if err != nil {
			l.giveBack()
			return err
		}
		l.out = out
		l.Reset(out)
		_ = res.Body.Close() // it was read to its end
		res.Body, res.ContentLength, res.TransferEncoding = &lentBody{l}, int64(len(out)), nil
		res.Header["Content-Length"] = []string{strconv.Itoa(len(out))}
		return nil
	}
}

func replaceBody(res *http.Response, b []byte) {
	_ = res.Body.Close() // it was read to its end
	res.Body = io.NopCloser(bytes.NewReader(b))
	res.ContentLength = int64(len(b))
	res.TransferEncoding = nil
	res.Header.Set("Content-Length", fmt.Sprint(len(b)))
}

// decode reads JSON of an engine.
func decode(n *fleet.Node, what string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("node %s: %s: %w", n.Name, what, err)
	}
	return nil
}
