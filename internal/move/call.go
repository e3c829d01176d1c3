package move

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"berth/internal/fleet"
)

const (
	callLimit   = 30 * time.Second // one call that an engine answers at once
	answerLimit = 64 << 20
)

// EngineError is an engine's refusal.
type EngineError struct {
	Node, Call string
	Status     int
	Message    string
}

func (e *EngineError) Error() string {
	return fmt.Sprintf("node %s: %s: %s", e.Node, e.Call, e.Message)
}

// refused tells whether the engine answered, and did not do what was asked.
func refused(err error) bool { return errors.As(err, new(*EngineError)) }

func isStatus(err error, status int) bool {
	var e *EngineError
	return errors.As(err, &e) && e.Status == status
}

// caller makes calls to engines.
type caller struct {
	engines Engines
	api     string // the version that we speak, where the engine does
}

// open makes a request and leaves the body of its answer to the caller. ctx bounds it.
func (e caller) open(ctx context.Context, n *fleet.Node, method, path string, q url.Values, body io.Reader, kind string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://docker", body)
	if err != nil {
		return nil, err
	}
	r.URL.Path, r.URL.RawQuery = n.Path(e.api, path), q.Encode()
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	res, err := e.engines.Do(ctx, n.ID, r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 == 2 || res.StatusCode == http.StatusNotModified {
		return res, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("node %s: %s %s: %w", n.Name, method, path, err)
	}
	var m struct{ Message string }
	if json.Unmarshal(b, &m) != nil || m.Message == "" {
		m.Message = res.Status
	}
	return nil, &EngineError{n.Name, method + " " + path, res.StatusCode, m.Message}
}

// ask makes a call and reads its whole answer.
func (e caller) ask(ctx context.Context, limit time.Duration, n *fleet.Node, method, path string, q url.Values, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	kind := ""
	if body != nil {
		kind = "application/json"
	}
	res, err := e.open(ctx, n, method, path, q, bytes.NewReader(body), kind)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("node %s: %s %s: %w", n.Name, method, path, err)
	}
	return b, nil
}

// inspect asks for a container.
func (e caller) inspect(ctx context.Context, n *fleet.Node, ref string) (*container, error) {
	b, err := e.ask(ctx, callLimit, n, http.MethodGet, "/containers/"+ref+"/json", nil, nil)
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
	b, err := e.ask(ctx, callLimit, n, http.MethodGet, "/containers/json", url.Values{"all": {"1"}, "filters": {string(filter)}}, nil)
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
		_, err := e.ask(ctx, startLimit, n, http.MethodPost, "/containers/"+id+"/start", nil, nil)
		var refused *EngineError
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
func Start(ctx context.Context, engines Engines, n *fleet.Node, id, api string) error {
	return caller{engines, api}.startIt(ctx, n, id)
}

// stopIt returns when the container has stopped, also if it was told to before.
func (e caller) stopIt(ctx context.Context, n *fleet.Node, c *container) error {
	_, err := e.ask(ctx, c.stopLimit(), n, http.MethodPost, "/containers/"+c.ID+"/stop", nil, nil)
	return err
}

func (e caller) rename(ctx context.Context, n *fleet.Node, id, name string) error {
	_, err := e.ask(ctx, callLimit, n, http.MethodPost, "/containers/"+id+"/rename", url.Values{"name": {name}}, nil)
	return err
}

// setPolicy changes when the engine starts a container by itself.
func (e caller) setPolicy(ctx context.Context, n *fleet.Node, id string, p restartPolicy) error {
	b, err := json.Marshal(map[string]restartPolicy{"RestartPolicy": p})
	if err != nil {
		return err
	}
	_, err = e.ask(ctx, callLimit, n, http.MethodPost, "/containers/"+id+"/update", nil, b)
	return err
}

// removeContainer takes a container away with its nameless volumes; one that is gone counts as removed.
func (e caller) removeContainer(ctx context.Context, n *fleet.Node, id string, force bool) error {
	q := url.Values{"v": {"1"}}
	if force {
		q.Set("force", "1")
	}
	_, err := e.ask(ctx, startLimit, n, http.MethodDelete, "/containers/"+id, q, nil)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}
