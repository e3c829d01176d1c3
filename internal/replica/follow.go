package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// followHead is how long a primary may take to begin its answer, and followPause how long it is left alone after it ended.
	followHead  = 10 * time.Second
	followPause = 500 * time.Millisecond
	// followTries fail before that is worth a word: a primary that died is replaced before, as a rule.
	followTries = 60
)

// Follow reads a stream of JSON objects from whoever is the primary, while that is another manager, and hands each to take, until ctx ends.
// path is asked for anew at each beginning. warn is told of a stream that does not begin, and nil once one does again.
func (h *Handler) Follow(ctx context.Context, path func() string, take func(line []byte), warn func(error)) error {
	failed := 0
	for ctx.Err() == nil {
		addr, token, changed := h.o.Standing.where()
		if addr != "" && !h.o.Standing.self() {
			err := h.follow(ctx, addr, token, path(), changed, take, func() {
				if failed >= followTries {
					warn(nil)
				}
				failed = 0
			})
			if failed++; failed == followTries && ctx.Err() == nil {
				warn(err)
			}
		}
		select {
		case <-changed:
		case <-time.After(followPause):
		case <-ctx.Done():
		}
	}
	return nil
}

// errAnother ends a stream whose sender is not the primary any more.
var errAnother = errors.New("another manager is the primary")

// follow reads one stream, which ends when changed is closed. A primary that hangs, or is cut off, loses its office before long.
func (h *Handler) follow(ctx context.Context, addr, token, path string, changed <-chan struct{}, take func([]byte), began func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(followHead, func() { cancel(fmt.Errorf("no answer within %s", followHead)) })
	defer late.Stop()
	ended := make(chan struct{})
	defer close(ended)
	go func() { // until follow returns
		select {
		case <-changed:
			cancel(errAnother)
		case <-ended:
		}
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set(headerToken, token)
	r.Header.Set(headerClient, h.o.Standing.addr)
	res, err := h.to(addr).Transport.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("events of the primary (%s): %w", addr, causeOf(ctx, err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 4096)) // so that the connection can be used again
		return fmt.Errorf("events of the primary (%s): %s", addr, res.Status)
	}
	late.Stop()
	began()
	for lines := json.NewDecoder(res.Body); ; {
		var line json.RawMessage
		if err := lines.Decode(&line); err != nil {
			return causeOf(ctx, err)
		}
		take(line)
	}
}

// causeOf is why a call was ended, if it was ended by us.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
