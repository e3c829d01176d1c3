// Package enginecall makes berth's own requests to engines of a fleet, those that no client asked for: bounded in time, and with errors that
// say which node refused what.
package enginecall

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
)

// answerLimit bounds an answer that is read whole.
const answerLimit = 64 << 20

// Engines brings a request to a node's engine.
type Engines interface {
	Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error)
}

// Error is an engine's refusal.
type Error struct {
	Node, Call string
	Status     int
	Message    string
}

func (e *Error) Error() string { return fmt.Sprintf("node %s: %s: %s", e.Node, e.Call, e.Message) }

// Refused tells whether the engine answered, and did not do what was asked.
func Refused(err error) bool { return errors.As(err, new(*Error)) }

// IsStatus tells whether the engine refused with that status.
func IsStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// Caller makes calls. What it sends may hold secrets and is in none of its errors.
type Caller struct {
	Engines Engines
	API     string // the version that we speak, where the engine does
}

// Open makes a request and leaves the body of its answer, whose status is 2xx or 304, to its caller. ctx bounds it. kind is the body's
// Content-Type.
func (c Caller) Open(ctx context.Context, n *fleet.Node, method, path string, q url.Values, body io.Reader, kind string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://docker", body)
	if err != nil {
		return nil, err
	}
	r.URL.Path, r.URL.RawQuery = n.Path(c.API, path), q.Encode()
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	res, err := c.Engines.Do(ctx, n.ID, r)
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
	return nil, &Error{n.Name, method + " " + path, res.StatusCode, m.Message}
}

// Ask makes a call with a body of JSON, or nil, and reads its whole answer.
func (c Caller) Ask(ctx context.Context, limit time.Duration, n *fleet.Node, method, path string, q url.Values, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	kind := ""
	if body != nil {
		kind = "application/json"
	}
	res, err := c.Open(ctx, n, method, path, q, bytes.NewReader(body), kind)
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

// Exchange is Ask that encodes the body, unless it is nil, and decodes the answer, unless into is nil.
func (c Caller) Exchange(ctx context.Context, limit time.Duration, n *fleet.Node, method, path string, q url.Values, body, into any) error {
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return err
		}
	}
	b, err := c.Ask(ctx, limit, n, method, path, q, sent)
	if err != nil || into == nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("node %s: %s %s: %w", n.Name, method, path, err)
	}
	return nil
}
