package overlay

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

const (
	callLimit   = 15 * time.Second // one call that an engine answers at once
	joinLimit   = 45 * time.Second // engines themselves give up after 20 seconds
	answerLimit = 64 << 20
)

// engineError is an engine's refusal.
type engineError struct {
	node, call string
	status     int
	message    string
}

func (e *engineError) Error() string {
	return fmt.Sprintf("node %s: %s: %s", e.node, e.call, e.message)
}

// refused tells whether the engine answered, and did not do what was asked.
func refused(err error) bool { return errors.As(err, new(*engineError)) }

func isStatus(err error, status int) bool {
	var e *engineError
	return errors.As(err, &e) && e.status == status
}

// caller makes calls to engines. What it sends may hold secrets and is in none of its errors.
type caller struct {
	fleet Fleet
	api   string // the version that we speak, where the engine does
}

// ask makes a call and decodes its answer, unless into is nil.
func (e caller) ask(ctx context.Context, limit time.Duration, n *fleet.Node, method, path string, q url.Values, body, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://docker", bytes.NewReader(sent))
	if err != nil {
		return err
	}
	r.URL.Path, r.URL.RawQuery = n.Path(e.api, path), q.Encode()
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := e.fleet.Do(ctx, n.ID, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("node %s: %s %s: %w", n.Name, method, path, err)
	}
	if res.StatusCode/100 != 2 {
		var m struct{ Message string }
		if json.Unmarshal(b, &m) != nil || m.Message == "" {
			m.Message = res.Status
		}
		return &engineError{n.Name, method + " " + path, res.StatusCode, m.Message}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("node %s: %s %s: %w", n.Name, method, path, err)
	}
	return nil
}
