package machine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// ErrNotRunning is docker-machine's text for a machine that is asked for something only a running one has.
var ErrNotRunning = errors.New("Host is not running") //nolint:revive,staticcheck // docker-machine's text

// Engine is what an engine says of itself.
type Engine struct {
	Version    string
	APIVersion string `json:"ApiVersion"`
}

// Status is what is known of a machine just now.
type Status struct {
	State  State
	URL    string // "" unless the machine runs
	Engine Engine
	Err    error // why State is Error or Timeout, or why Engine is unknown
	// Warning is what will be wrong soon, or an expired certificate that Err may come of.
	Warning error
	Took    time.Duration
}

// Ask finds out the machine's state, and its engine's version when it runs. It ends with ctx.
func Ask(ctx context.Context, s *Store, drv Driver, m *Machine) Status {
	began := time.Now()
	st := ask(ctx, s, drv, m)
	st.Warning = s.Expiring(m)
	st.Took = time.Since(began)
	if ctx.Err() != nil {
		st.State = StateTimeout
		st.Err = fmt.Errorf("no answer within %s: %w", st.Took.Round(100*time.Millisecond), ctx.Err())
	}
	return st
}

func ask(ctx context.Context, s *Store, drv Driver, m *Machine) Status {
	state, err := locate(ctx, s, drv, m)
	if err != nil || state != StateRunning {
		return Status{State: state, Err: err}
	}
	st := Status{State: state, URL: m.URL()}
	if st.Engine, err = s.askEngine(ctx, m); err != nil {
		st.Err = fmt.Errorf("Unable to query docker version: %w", err) //nolint:revive,staticcheck // docker-machine's text
	}
	return st
}

// AskState is the machine's state alone: the provider's word, unless its create never came to an end. Where the provider cannot
// tell, a machine with an address counts as running. The error does not name the machine.
func AskState(ctx context.Context, s *Store, drv Driver, m *Machine) (State, error) {
	if m.Unfinished != "" {
		if s.claimed(m.Name) {
			return StateStarting, nil
		}
		return StateError, m.unfinished()
	}
	state, err := drv.State(ctx, m.Instance)
	if err != nil {
		return StateError, fmt.Errorf("ask driver %s: %w", m.DriverName, err)
	}
	return m.orRunning(state), nil
}

func (m *Machine) orRunning(state State) State {
	if state == StateNone && m.URL() != "" {
		return StateRunning
	}
	return state
}

// locate is AskState for who goes on to use the machine's address: where the driver can tell, m has today's from here on. It is not
// stored: a read never writes.
func locate(ctx context.Context, s *Store, drv Driver, m *Machine) (State, error) {
	l, can := drv.(Locator)
	if !can || m.Unfinished != "" {
		return AskState(ctx, s, drv, m)
	}
	i, state, err := l.Locate(ctx, m.Instance)
	if err != nil {
		return cmp.Or(state, StateError), fmt.Errorf("ask driver %s: %w", m.DriverName, err)
	}
	m.setInstance(i)
	return m.orRunning(state), nil
}

// unfinished is the error of a machine whose create stopped.
func (m *Machine) unfinished() error {
	if m.Problem == "" {
		return fmt.Errorf("create was interrupted at the step %q", m.Unfinished)
	}
	return fmt.Errorf("create stopped at the step %q: %s", m.Unfinished, m.Problem)
}

// AskEngine asks the machine's engine for its version over the machine's own TLS. The path carries no API version, since engines
// refuse those that are too old for them.
func (s *Store) AskEngine(ctx context.Context, m *Machine) (Engine, error) {
	e, err := s.askEngine(ctx, m)
	if err != nil {
		return Engine{}, fmt.Errorf("engine of %s: %w", m.Name, err)
	}
	return e, nil
}

func (s *Store) askEngine(ctx context.Context, m *Machine) (Engine, error) {
	return s.askAt(ctx, m, m.URL())
}

// AskManager is AskEngine for the manager that runs on the machine, at its ManagerURL.
func (s *Store) AskManager(ctx context.Context, m *Machine) (Engine, error) {
	e, err := s.askAt(ctx, m, m.ManagerURL())
	if err != nil {
		return Engine{}, fmt.Errorf("manager on %s: %w", m.Name, err)
	}
	return e, nil
}

func (s *Store) askAt(ctx context.Context, m *Machine, address string) (Engine, error) {
	transport, base, err := s.transport(m, address)
	if err != nil {
		return Engine{}, err
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/version", nil)
	if err != nil {
		return Engine{}, err
	}
	return version(transport, req)
}

func version(transport http.RoundTripper, req *http.Request) (Engine, error) {
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return Engine{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return Engine{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return Engine{}, fmt.Errorf("GET /version: %s: %.200s", resp.Status, bytes.TrimSpace(body))
	}
	e := Engine{}
	if err := json.Unmarshal(body, &e); err != nil {
		return Engine{}, fmt.Errorf("GET /version: %w", err)
	}
	return e, nil
}

// transport reaches the machine's engine, or what else is there. Proxies are not for a host that berth made.
func (s *Store) transport(m *Machine, address string) (*http.Transport, string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, "", err
	}
	t := &http.Transport{DisableKeepAlives: true}
	switch {
	case u.Scheme == "unix":
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
		}
		return t, "http://engine", nil
	case u.Scheme == "ssh" && s.Provisioner != nil:
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Provisioner.DialEngine(ctx, m) }
		return t, "http://engine", nil
	case u.Scheme == "tcp" && u.Host != "":
		t.TLSClientConfig, err = s.ClientTLS(m)
		return t, "https://" + u.Host, err
	}
	return nil, "", fmt.Errorf("address %q: only tcp://HOST:PORT and unix:///PATH can be asked", address)
}

// waitEngine waits until the engine answers over TLS.
func (s *Store) waitEngine(ctx context.Context, m *Machine) error {
	return wait(ctx, m, "engine", s.AskEngine)
}

// waitManager is waitEngine for the manager of a Swarm.
func (s *Store) waitManager(ctx context.Context, m *Machine) error {
	return wait(ctx, m, "Swarm's manager", s.AskManager)
}

func wait(ctx context.Context, m *Machine, what string, ask func(context.Context, *Machine) (Engine, error)) error {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	every := 200 * time.Millisecond
	if m.Plain { // an SSH for each question
		every = 3 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second+every)
		_, err := ask(attempt, m)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the %s: %w", what, err)
		case <-tick.C:
		}
	}
}
