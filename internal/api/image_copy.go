package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"berth/internal/fleet"
)

// copyLimit bounds one copy of an image from node to node.
const copyLimit = 30 * time.Minute

// ensureImage makes sure that a node has what a reference means in the fleet: from a peer if only others have it. If nobody
// has it, the error is the engine's, upon which clients pull; that pull then goes to this node.
func (s *Server) ensureImage(ctx context.Context, n *fleet.Node, ref, platform string, r *request) error {
	if ref == "" {
		return nil // the engine refuses it with its own words
	}
	img, err := s.locateImage(ctx, ref)
	if errors.As(err, new(*fleet.AmbiguousError)) {
		return nil // it may be clear on the node, whose engine decides
	}
	if err != nil {
		s.wantImage(r, n, ref)
		return noSuchImage(ref)
	}
	if img.knownOn(n.ID) {
		s.unwantImage(r, ref)
		return nil
	}
	if img.digest != "" {
		return s.pullDigest(ctx, img, n, platform, r)
	}
	return s.bring(ctx, img, n)
}

// pullDigest has a node pull what others have by its digest: digests come from registries and do not survive a copy. If it
// cannot, the client is told to pull, since it has the credentials.
func (s *Server) pullDigest(ctx context.Context, img *image, n *fleet.Node, platform string, r *request) error {
	name, digest, _ := strings.Cut(img.digest, "@")
	q := url.Values{"fromImage": {name}, "tag": {digest}}
	if platform != "" {
		q.Set("platform", platform)
	}
	res, err := s.open(ctx, n, http.MethodPost, r.version, "/images/create", q, nil, registryHeaders(r.Header))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := readMessages(res, nil); err != nil {
		s.o.Log.Warn("an image that others have could not be pulled", "image", img.digest, "node", n.Name, "error", err)
		s.wantImage(r, n, img.ref)
		return noSuchImage(img.ref)
	}
	s.refresh(ctx, n, fleet.KindImage, "")
	return nil
}

// bring gives a node an image and its tag. Of several callers one copies and the others wait for it. If the tag is moved
// meanwhile, the node gets what it then means.
func (s *Server) bring(ctx context.Context, img *image, n *fleet.Node) error {
	for range 3 {
		unlock, err := s.images.lock(ctx, n.ID+" "+img.id)
		if err != nil {
			return err
		}
		done, err := s.bringOnce(ctx, img.ref, n)
		unlock()
		if err != nil || done {
			return err
		}
		if img, err = s.findImage(ctx, img.ref); err != nil {
			return err
		}
	}
	return fmt.Errorf("image %s keeps changing", img.ref)
}

// bringOnce is not done if the reference means something else by now. It asks what it means after a wait for the lock.
func (s *Server) bringOnce(ctx context.Context, ref string, n *fleet.Node) (done bool, err error) {
	img, err := s.findImage(ctx, ref)
	if err != nil || img.knownOn(n.ID) {
		return err == nil, err
	}
	id := img.id
	if !img.on(n.ID) {
		if id, err = s.copyImage(ctx, img, n); err != nil {
			return false, err
		}
	}
	if img.tag == "" {
		s.refresh(ctx, n, fleet.KindImage, "")
		return true, nil
	}
	if now, err := s.findImage(ctx, ref); err != nil || now.id != img.id {
		return false, err
	}
	s.images.copies.Add([2]string{n.ID, img.tag}, id)
	repo, tag := splitTag(img.tag)
	_, err = s.ask(ctx, n, http.MethodPost, n.API, "/images/"+id+"/tag", url.Values{"repo": {repo}, "tag": {tag}}, nil)
	if err != nil {
		return false, fmt.Errorf("tag %s on node %s: %w", img.tag, n.Name, err)
	}
	s.refresh(ctx, n, fleet.KindImage, "")
	return true, nil
}

// copyImage streams an image from one of its holders to a node, and returns its ID there. It goes without its names: they
// may mean something else by the time that it arrives.
func (s *Server) copyImage(ctx context.Context, img *image, to *fleet.Node) (string, error) {
	select {
	case s.images.slots <- struct{}{}:
		defer func() { <-s.images.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, copyLimit, fmt.Errorf("not done within %s", copyLimit))
	defer cancel()
	var last error
	for _, h := range img.holders {
		began := time.Now()
		id, err := s.copyBetween(ctx, h, to)
		var source *sourceError
		switch {
		case err == nil:
			s.o.Log.Info("image copied", "image", img.ref, "id", img.id, "from", h.Node.Name, "to", to.Name, "took", time.Since(began))
			if id != img.id {
				s.images.alias(to.ID, img.id, id)
				s.images.twins.copies.Add(id, true)
			}
			return id, nil
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case !errors.As(err, &source):
			return "", fmt.Errorf("copy image %s from node %s: %w", img.ref, h.Node.Name, err)
		}
		s.o.Log.Warn("image could not be copied", "image", img.ref, "from", h.Node.Name, "to", to.Name, "error", err)
		last = unavailable(fmt.Sprintf("copy image %s from node %s to node %s: %v", img.ref, h.Node.Name, to.Name, source.err))
	}
	return "", last
}

// sourceError is a fault of the node that a copy is read from: another one may do.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

func (s *Server) copyBetween(ctx context.Context, from fleet.ImageRef, to *fleet.Node) (id string, err error) {
	res, err := s.open(ctx, from.Node, http.MethodGet, from.Node.API, "/images/"+from.Image.ID+"/get", nil, nil, nil)
	if err != nil {
		return "", &sourceError{err}
	}
	defer res.Body.Close()
	if err := checkStatus(res); err != nil {
		return "", &sourceError{err}
	}
	body := &watchedBody{r: res.Body}
	id, err = s.load(ctx, to, from.Image.ID, body)
	if failed := body.failed.Load(); err != nil && failed != nil {
		err = &sourceError{*failed}
	}
	return id, err
}

// load gives a node the archive of one image without names, and returns the ID that it has there.
func (s *Server) load(ctx context.Context, n *fleet.Node, id string, archive io.Reader) (string, error) {
	res, err := s.open(ctx, n, http.MethodPost, n.API, "/images/load", url.Values{"quiet": {"1"}}, archive, tarHeader())
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	err = readMessages(res, func(m message) {
		if loaded, ok := strings.CutPrefix(m.Stream, "Loaded image ID: "); ok {
			id = strings.TrimSpace(loaded)
		}
	})
	if err != nil {
		return "", fmt.Errorf("load on node %s: %w", n.Name, err)
	}
	return id, nil
}

func tarHeader() http.Header { return http.Header{"Content-Type": {"application/x-tar"}} }

// watchedBody remembers that reading failed, which a sender reports as its own failure. The sender may go on reading beside
// the one who asks.
type watchedBody struct {
	r      io.Reader
	failed atomic.Pointer[error]
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed.Store(&err)
	}
	return n, err
}

// keyLock is a lock that a caller can stop waiting for.
type keyLock struct {
	held  chan struct{}
	users int // guarded by imageIndex.mu
}

func (x *imageIndex) lock(ctx context.Context, key string) (unlock func(), err error) {
	x.mu.Lock()
	l := x.locks[key]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		x.locks[key] = l
	}
	l.users++
	x.mu.Unlock()
	leave := func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(x.locks, key)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
