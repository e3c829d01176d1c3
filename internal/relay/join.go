package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"

	"github.com/libp2p/go-yamux/v5"

	"berth/internal/fleet"
)

// join runs a process beside the relay that hands us its connections, and has Accept give them out until the process, its
// engine or Run ends. The link is held.
func (r *Relays) join(ctx context.Context, n *fleet.Node, l *link, id string) error {
	socket, err := r.socket(ctx, n, id)
	if err != nil {
		return err
	}
	stream, err := r.exec(ctx, n, id)
	if err != nil {
		return err
	}
	out := &frames{in: stream}
	session, err := yamux.Server(line{out, stream}, config(), nil)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	if err := greet(ctx, session); err != nil {
		_ = session.Close() // it is of no use, which is the error
		if said := out.said(); said != "" {
			err = errors.New(said)
		}
		return fmt.Errorf("join it: %w", err)
	}
	l.socket, l.session = socket, session
	if err := r.begin(func(ctx context.Context) { r.serve(ctx, n.Name, session) }); err != nil {
		return errors.Join(err, session.Close())
	}
	return nil
}

// greet waits until the other side answers.
func greet(ctx context.Context, s *yamux.Session) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // which ends the wait
	defer stop()
	if _, err := s.Ping(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

// serve gives out the connections of one relay.
func (r *Relays) serve(ctx context.Context, node string, s *yamux.Session) {
	defer s.Close()                                          //nolint:errcheck // it has ended, or is of no use any more
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // which ends Accept
	r.log.Info("containers of a node reach the fleet", "node", node)
	for {
		stream, err := s.AcceptStream()
		if err != nil {
			if ctx.Err() == nil {
				r.log.Info("the relay of a node has ended, or is not reached", "node", node, "error", err)
			}
			return
		}
		c := &conn{stream, node}
		select {
		case r.conns <- c:
		case <-r.closed:
			_ = c.Close() // the manager is stopping; its client finds out
		case <-ctx.Done():
			_ = c.Close() // likewise
		}
	}
}

// socket finds out where the node keeps the relay's socket.
func (r *Relays) socket(ctx context.Context, n *fleet.Node, id string) (string, error) {
	var seen struct {
		Mounts []struct{ Destination, Source string }
	}
	if err := r.ask(ctx, n, http.MethodGet, "/containers/"+id+"/json", nil, nil, &seen); err != nil {
		return "", fmt.Errorf("look at it: %w", err)
	}
	for _, m := range seen.Mounts {
		if m.Destination == folder && path.IsAbs(m.Source) {
			return path.Join(m.Source, socketFile), nil
		}
	}
	return "", fmt.Errorf("container %s has no volume at %s: remove it, and it is made anew", id, folder)
}

// exec starts the process and returns its standard streams, as engines mix them.
func (r *Relays) exec(ctx context.Context, n *fleet.Node, id string) (io.ReadWriteCloser, error) {
	var made struct {
		ID string `json:"Id"`
	}
	want := map[string]any{"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Cmd": []string{program, Command, "--join"}}
	if err := r.ask(ctx, n, http.MethodPost, "/containers/"+id+"/exec", nil, want, &made); err != nil {
		return nil, fmt.Errorf("join it: %w", err)
	}
	req, err := request(ctx, n, http.MethodPost, "/exec/"+made.ID+"/start", nil, map[string]any{"Detach": false, "Tty": false})
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	// The stream lasts longer than the wait for it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(req.Context(), cancel)
	res, err := r.fleet.Do(ctx, n.ID, req.WithContext(ctx))
	if !stop() && err == nil {
		err = errors.Join(context.Cause(req.Context()), res.Body.Close())
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("join it: %w", err)
	}
	stream, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		defer cancel()
		defer res.Body.Close()
		return nil, fmt.Errorf("join it: %w", refusal(res))
	}
	return &owned{stream, cancel}, nil
}

// owned is a stream that ends its context with it.
type owned struct {
	io.ReadWriteCloser
	cancel context.CancelFunc
}

func (o *owned) Close() error {
	err := o.ReadWriteCloser.Close()
	o.cancel()
	return err
}
