package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Lifetime says how long a machine is to be there. The zero value is for good.
type Lifetime struct {
	Expires   time.Time     // when it is to be removed
	IdleStop  time.Duration // after how long without a running container it is to be stopped
	IdleSince time.Time     // since when it is known to have had none; zero while it has, and while nobody has looked
}

// lifeNote is a Lifetime in the record, such that a person can read it.
type lifeNote struct {
	Expires   time.Time `json:",omitzero"`
	IdleStop  string    `json:",omitempty"`
	IdleSince time.Time `json:",omitzero"`
}

func newLifetime(ttl, idleStop time.Duration) Lifetime {
	l := Lifetime{IdleStop: idleStop}
	if ttl > 0 {
		l.Expires = time.Now().UTC().Add(ttl).Truncate(time.Second)
	}
	return l
}

func (l Lifetime) note() lifeNote {
	n := lifeNote{Expires: l.Expires, IdleSince: l.IdleSince}
	if l.IdleStop > 0 {
		n.IdleStop = l.IdleStop.String()
	}
	return n
}

func (n lifeNote) read() (Lifetime, error) {
	l := Lifetime{Expires: n.Expires, IdleSince: n.IdleSince}
	if n.IdleStop == "" {
		return l, nil
	}
	var err error
	if l.IdleStop, err = time.ParseDuration(n.IdleStop); err != nil {
		return l, fmt.Errorf("IdleStop: %w", err)
	}
	return l, nil
}

// Due is what a machine's lifetime asks for now.
type Due struct {
	Remove, Stop bool // at most one of them
	Why          string

	life Lifetime // as it is to be noted
}

// FindDue finds out what the lifetime of a machine asks for now, and changes nothing. A machine is idle since it was first seen without
// a running container, or since the last thing that its engine tells of after that: what came and went between two looks counts.
func FindDue(ctx context.Context, s *Store, drv Driver, m *Machine) (Due, error) {
	due := Due{life: m.Life}
	if over := time.Since(m.Life.Expires); !m.Life.Expires.IsZero() && over >= 0 {
		due.Remove, due.Why = true, fmt.Sprintf("its time was over %s ago", over.Round(time.Second))
		return due, nil
	}
	if m.Life.IdleStop <= 0 || m.Unfinished != "" {
		return due, nil
	}
	state, err := locate(ctx, s, drv, m)
	if err != nil {
		return due, fmt.Errorf("machine %q: %w", m.Name, err)
	}
	if state != StateRunning {
		due.life.IdleSince = time.Time{}
		return due, nil
	}
	due.life.IdleSince, err = s.idleSince(ctx, m)
	if err != nil {
		return due, fmt.Errorf("machine %q: is it idle? %w", m.Name, err)
	}
	if idle := time.Since(due.life.IdleSince); !due.life.IdleSince.IsZero() && idle >= m.Life.IdleStop {
		due.Stop, due.Why = true, fmt.Sprintf("it ran no container for %s", idle.Round(time.Second))
	}
	return due, nil
}

// Settle does what is due, and notes since when the machine is idle.
func (d Due) Settle(ctx context.Context, s *Store, drv Driver, m *Machine) error {
	switch {
	case d.Remove:
		return Remove(ctx, s, drv, m, false)
	case d.Stop:
		if err := Stop(ctx, s, drv, m); err != nil {
			return err
		}
		d.life.IdleSince = time.Time{}
	}
	if d.life.IdleSince.Equal(m.Life.IdleSince) {
		return nil
	}
	now, err := s.Load(m.Name) // it may have changed while its engine was asked
	if err != nil {
		return err
	}
	now.Life.IdleSince = d.life.IdleSince
	return s.Save(now)
}

// idleSince is since when the machine's engine has had nothing to run; zero if it has.
func (s *Store) idleSince(ctx context.Context, m *Machine) (time.Time, error) {
	transport, base, err := s.transport(m, m.URL())
	if err != nil {
		return time.Time{}, err
	}
	defer transport.CloseIdleConnections()
	e := engineClient{transport, base}
	running, clock, err := e.running(ctx)
	now := time.Now().UTC().Truncate(time.Second)
	switch {
	case err != nil || running > 0:
		return time.Time{}, err
	case m.Life.IdleSince.IsZero(): // nobody knows for how long it has been so
		return now, nil
	}
	ahead := clock.Sub(now) // of the engine's clock to ours
	last, err := e.lastEvent(ctx, m.Life.IdleSince.Add(ahead), clock)
	if err != nil {
		return time.Time{}, err
	}
	if last = last.Add(-ahead); last.After(m.Life.IdleSince) {
		return last.UTC().Truncate(time.Second), nil
	}
	return m.Life.IdleSince, nil
}

// engineClient asks an engine.
type engineClient struct {
	transport http.RoundTripper
	base      string
}

func (e engineClient) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // the status says the most of it
		return nil, errors.Join(fmt.Errorf("GET %s: %s: %s", path, resp.Status, text), resp.Body.Close())
	}
	return resp, nil
}

// running counts the containers that run, or are paused, and tells the time by the engine's clock.
func (e engineClient) running(ctx context.Context) (n int, clock time.Time, err error) {
	resp, err := e.get(ctx, "/containers/json")
	if err != nil {
		return 0, clock, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	var all []struct{}
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		return 0, clock, fmt.Errorf("GET /containers/json: %w", err)
	}
	if clock, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
		clock = time.Now().UTC() // an engine that does not tell is taken for right
	}
	return len(all), clock, nil
}

// lastEvent is when the last of the events came that the engine remembers of that time; zero for none.
func (e engineClient) lastEvent(ctx context.Context, since, until time.Time) (time.Time, error) {
	if !since.Before(until) {
		return time.Time{}, nil
	}
	q := url.Values{"since": {strconv.FormatInt(since.Unix(), 10)}, "until": {strconv.FormatInt(until.Unix(), 10)}}
	resp, err := e.get(ctx, "/events?"+q.Encode())
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	var last time.Time
	for events := json.NewDecoder(resp.Body); ; {
		var event struct {
			Time int64 `json:"time"`
		}
		if err := events.Decode(&event); errors.Is(err, io.EOF) {
			return last, nil
		} else if err != nil {
			return last, fmt.Errorf("GET /events: %w", err)
		}
		if t := time.Unix(event.Time, 0); t.After(last) {
			last = t
		}
	}
}

// IsDead tells whether the machine's host is gone for good: its provider says that there is none. It was made by nobody else meanwhile.
func IsDead(ctx context.Context, s *Store, drv Driver, m *Machine) (bool, error) {
	if s.claimed(m.Name) {
		return false, nil
	}
	state, err := drv.State(ctx, m.Instance)
	if err != nil {
		return false, fmt.Errorf("machine %q: ask driver %s: %w", m.Name, m.DriverName, err)
	}
	return state == StateNotFound, nil
}
