package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/membership"
)

// defaultService is where the token service listens, and where tokens are asked for.
const defaultService = "127.0.0.1:2380"

// tokenFlags say where tokens are served, and how.
type tokenFlags struct {
	host     string
	data     string // "" is in the machine store
	tls      tlsFlags
	insecure bool
}

// tokenServer is the token service with its file and its listener: a program of its own, or a part of a manager.
type tokenServer struct {
	service  *membership.Service
	listener net.Listener
	data     string
}

// openTokens opens file and listener, so that clients wait from now on. flag is what the user has written before the address, and advice
// what to do about one that all could read.
func (p *program) openTokens(ctx context.Context, o *tokenFlags, flag, advice string) (*tokenServer, error) {
	l, err := openTCP(ctx, flag, o.host, &o.tls, o.tls.enable || o.insecure, "beyond this computer the tokens would be for all to read: "+advice)
	if err != nil {
		return nil, err
	}
	s := &tokenServer{listener: l, data: o.data}
	if err := s.open(p); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

func (s *tokenServer) open(p *program) (err error) {
	if s.data == "" {
		store, err := p.store()
		if err != nil {
			return err
		}
		s.data = filepath.Join(store.Dir(), "discovery.db")
	}
	if err := ensureDir(filepath.Dir(s.data)); err != nil {
		return err
	}
	s.service, err = membership.Open(s.data)
	return err
}

// tell says where the service is.
func (s *tokenServer) tell(log *slog.Logger) {
	log.Info("serving tokens", "addr", s.listener.Addr().String(), "data", s.data)
}

// run serves until ctx ends.
func (s *tokenServer) run(ctx context.Context) error {
	server := &http.Server{Handler: s.service.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveHTTP(server, s.listener) })
	g.Go(func() error {
		<-ctx.Done()
		return server.Close() // readers that wait ask again
	})
	return g.Wait()
}

// Close closes the listener, if nothing was served yet, and the file.
func (s *tokenServer) Close() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, s.service.Close())
}
