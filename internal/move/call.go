package move

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// callLimit is for one call that an engine answers at once.
const callLimit = 30 * time.Second

// caller makes calls to engines.
type caller struct{ enginecall.Caller }

func newCaller(engines enginecall.Engines, api string) caller {
	return caller{enginecall.Caller{Engines: engines, API: api}}
}

// inspect asks for a container.
func (e caller) inspect(ctx context.Context, n *fleet.Node, ref string) (*container, error) {
	b, err := e.Ask(ctx, callLimit, n, http.MethodGet, "/containers/"+ref+"/json", nil, nil)
	if err != nil {
		return nil, err
	}
	c, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return c, nil
}

// links asks which containers are linked to one: only its names in the engine's list tell, and no event does.
func (e caller) links(ctx context.Context, n *fleet.Node, c *container) error {
	filter, err := json.Marshal(map[string][]string{"id": {c.ID}})
	if err != nil {
		return err
	}
	b, err := e.Ask(ctx, callLimit, n, http.MethodGet, "/containers/json", url.Values{"all": {"1"}, "filters": {string(filter)}}, nil)
	if err != nil {
		return err
	}
	var rows []struct{ Names []string }
	if err := json.Unmarshal(b, &rows); err != nil {
		return fmt.Errorf("node %s: list: %w", n.Name, err)
	}
	for _, r := range rows {
		for _, name := range r.Names {
			if other, alias, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/"); alias != "" {
				c.linkedBy = append(c.linkedBy, other)
			}
		}
	}
	return nil
}

func (e caller) startIt(ctx context.Context, n *fleet.Node, id string) error {
	began := time.Now()
	for {
		_, err := e.Ask(ctx, startLimit, n, http.MethodPost, "/containers/"+id+"/start", nil, nil)
		var refused *enginecall.Error
		if !errors.As(err, &refused) || !fleet.PassingNetworkFailure(refused.Status, refused.Message) || time.Since(began) > networkPatience {
			return err
		}
		select {
		case <-time.After(networkRetry):
		case <-ctx.Done():
			return err
		}
	}
}

// How long a node is given to get to know an overlay network that a container is the first there to be in.
const networkPatience, networkRetry = 10 * time.Second, 250 * time.Millisecond

// Start starts a container that Recreate made.
func Start(ctx context.Context, engines enginecall.Engines, n *fleet.Node, id, api string) error {
	return newCaller(engines, api).startIt(ctx, n, id)
}

// stopIt returns when the container has stopped, also if it was told to before.
func (e caller) stopIt(ctx context.Context, n *fleet.Node, c *container) error {
	_, err := e.Ask(ctx, c.stopLimit(), n, http.MethodPost, "/containers/"+c.ID+"/stop", nil, nil)
	return err
}

func (e caller) rename(ctx context.Context, n *fleet.Node, id, name string) error {
	_, err := e.Ask(ctx, callLimit, n, http.MethodPost, "/containers/"+id+"/rename", url.Values{"name": {name}}, nil)
	return err
}

// setPolicy changes when the engine starts a container by itself.
func (e caller) setPolicy(ctx context.Context, n *fleet.Node, id string, p restartPolicy) error {
	b, err := json.Marshal(map[string]restartPolicy{"RestartPolicy": p})
	if err != nil {
		return err
	}
	_, err = e.Ask(ctx, callLimit, n, http.MethodPost, "/containers/"+id+"/update", nil, b)
	return err
}

// removeContainer takes a container away with its nameless volumes; one that is gone counts as removed.
func (e caller) removeContainer(ctx context.Context, n *fleet.Node, id string, force bool) error {
	q := url.Values{"v": {"1"}}
	if force {
		q.Set("force", "1")
	}
	_, err := e.Ask(ctx, startLimit, n, http.MethodDelete, "/containers/"+id, q, nil)
	if enginecall.IsStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}
