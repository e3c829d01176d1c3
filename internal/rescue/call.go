package rescue

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
	"berth/internal/move"
)

// caller makes calls to engines.
type caller struct {
	enginecall.Caller
	fleet Fleet
}

func newCaller(f Fleet, api string) caller { return caller{enginecall.Caller{Engines: f, API: api}, f} }

func (e caller) inspect(ctx context.Context, n *fleet.Node, id string) ([]byte, *inspection, error) {
	b, err := e.Ask(ctx, callLimit, n, http.MethodGet, "/containers/"+id+"/json", nil, nil)
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
	_, err := e.Ask(ctx, callLimit, n, http.MethodPost, "/containers/"+id+"/rename", url.Values{"name": {name}}, nil)
	return err
}

func (e caller) start(ctx context.Context, n *fleet.Node, id string) error {
	return move.Start(ctx, e.fleet, n, id, e.API)
}

func (e caller) stop(ctx context.Context, n *fleet.Node, i *inspection) error {
	limit := startLimit
	if t := i.Config.StopTimeout; t != nil && *t > 0 {
		limit += time.Duration(*t) * time.Second
	}
	_, err := e.Ask(ctx, limit, n, http.MethodPost, "/containers/"+i.ID+"/stop", nil, nil)
	return err
}

// neverStart has the engine not start a container by itself any more.
func (e caller) neverStart(ctx context.Context, n *fleet.Node, id string) error {
	body := map[string]any{"RestartPolicy": map[string]any{"Name": "no", "MaximumRetryCount": 0}}
	return e.Exchange(ctx, callLimit, n, http.MethodPost, "/containers/"+id+"/update", nil, body, nil)
}

// discard removes a container that we made and that never ran. One that runs after all is left alone by the engine.
func (e caller) discard(ctx context.Context, n *fleet.Node, id string) error {
	_, err := e.Ask(ctx, startLimit, n, http.MethodDelete, "/containers/"+id, url.Values{"v": {"1"}}, nil)
	if err != nil && !enginecall.IsStatus(err, http.StatusNotFound) {
		return err
	}
	e.fleet.Forget(n.ID, id)
	return nil
}
