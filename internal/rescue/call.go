package rescue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"berth/internal/fleet"
	"berth/internal/move"
)

const answerLimit = 64 << 20

// caller makes calls to engines.
type caller struct {
	fleet Fleet
	api   string // the newest version that we speak
}

// ask makes a call and reads its whole answer. A refusal is a move.EngineError.
func (e caller) ask(ctx context.Context, limit time.Duration, n *fleet.Node, method, path string, q url.Values, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://docker", in)
	if err != nil {
		return nil, err
	}
	r.URL.Path, r.URL.RawQuery = n.Path(e.api, path), q.Encode()
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := e.fleet.Do(ctx, n.ID, r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("node %s: %s %s: %w", n.Name, method, path, err)
	}
	if res.StatusCode/100 == 2 || res.StatusCode == http.StatusNotModified {
		return b, nil
	}
	var m struct{ Message string }
	if json.Unmarshal(b, &m) != nil || m.Message == "" {
		m.Message = res.Status
	}
	return nil, &move.EngineError{Node: n.Name, Call: method + " " + path, Status: res.StatusCode, Message: m.Message}
}

// refused tells whether the engine answered, and did not do what was asked.
func refused(err error) bool { return errors.As(err, new(*move.EngineError)) }

func isStatus(err error, status int) bool {
	var e *move.EngineError
	return errors.As(err, &e) && e.Status == status
}

func (e caller) inspect(ctx context.Context, n *fleet.Node, id string) ([]byte, *inspection, error) {
	b, err := e.ask(ctx, callLimit, n, http.MethodGet, "/containers/"+id+"/json", nil, nil)
	if err != nil {
		return nil, nil, err
	}
	i, err := parse(b)
	if err != nil {
		return nil, nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return b, i, nil
}

func (e caller) rename(ctx context.Context, n *fleet.Node, id, name string) error {
	_, err := e.ask(ctx, callLimit, n, http.MethodPost, "/containers/"+id+"/rename", url.Values{"name": {name}}, nil)
	return err
}

func (e caller) start(ctx context.Context, n *fleet.Node, id string) error {
	return move.Start(ctx, e.fleet, n, id, e.api)
}

func (e caller) stop(ctx context.Context, n *fleet.Node, i *inspection) error {
	limit := startLimit
	if t := i.Config.StopTimeout; t != nil && *t > 0 {
		limit += time.Duration(*t) * time.Second
	}
	_, err := e.ask(ctx, limit, n, http.MethodPost, "/containers/"+i.ID+"/stop", nil, nil)
	return err
}

// neverStart has the engine not start a container by itself any more.
func (e caller) neverStart(ctx context.Context, n *fleet.Node, id string) error {
	body := map[string]any{"RestartPolicy": map[string]any{"Name": "no", "MaximumRetryCount": 0}}
	_, err := e.ask(ctx, callLimit, n, http.MethodPost, "/containers/"+id+"/update", nil, body)
	return err
}

// discard removes a container that we made and that never ran. One that runs after all is left alone by the engine.
func (e caller) discard(ctx context.Context, n *fleet.Node, id string) error {
	_, err := e.ask(ctx, startLimit, n, http.MethodDelete, "/containers/"+id, url.Values{"v": {"1"}}, nil)
	if err != nil && !isStatus(err, http.StatusNotFound) {
		return err
	}
	e.fleet.Forget(n.ID, id)
	return nil
}
