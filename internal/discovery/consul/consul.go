// Package consul keeps a fleet's members and its leader's lease in Consul.
//
// Both are keys that are locked by a session. A member's session deletes its key when it ends; a leader's lets it go, and its term is
// the index of the raft log at which it took the key. Consul ends a session some time between one and two of its TTLs after the last
// renewal (in fact after two), so sessions are asked for half of what is wanted.
package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"berth/internal/discovery"
)

const (
	defaultPort = "8500"
	// callLimit bounds a call that waits for nothing, at one of several agents.
	callLimit = 5 * time.Second
	dialLimit = 2 * time.Second
	// lockDelay is how long nobody gets a lock whose session ended. It is for those who go on after their session's end, and we do not;
	// and 0 would be taken for Consul's own, 15 s.
	lockDelay = time.Millisecond
)

// minSession is the shortest TTL of a session that Consul grants.
var minSession = 10 * time.Second

// store is one Consul, through any of several agents.
type store struct {
	place     discovery.Place
	transport *http.Transport
	agents    []*api.Client

	mu      sync.Mutex
	current int // the agent that answered last
}

func open(rawURL string, o discovery.Options) (*store, error) {
	place, err := discovery.ParsePlace(rawURL, defaultPort, o)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialLimit}
	s := &store{place: place, transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: place.TLS, TLSHandshakeTimeout: dialLimit,
		IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 2,
	}}
	for _, address := range place.Endpoints {
		config := &api.Config{Address: address, Scheme: "http", Token: place.Token, HttpClient: &http.Client{Transport: s.transport}}
		if place.TLS != nil {
			config.Scheme = "https"
		}
		if place.User != "" {
			config.HttpAuth = &api.HttpBasicAuth{Username: place.User, Password: place.Password}
		}
		agent, err := api.NewClient(config)
		if err != nil {
			return nil, fmt.Errorf("consul at %s: %w", address, err)
		}
		s.agents = append(s.agents, agent)
	}
	return s, nil
}

// Close ends idle connections.
func (s *store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// call makes a call at the agent that answered last, or at the next one that does.
func (s *store) call(ctx context.Context, limit time.Duration, do func(context.Context, *api.Client) error) error {
	var err error
	for range s.agents {
		s.mu.Lock()
		at := s.current
		s.mu.Unlock()
		err = s.once(ctx, limit, s.agents[at], do)
		if err == nil || ctx.Err() != nil || !elsewhere(err) {
			break
		}
		s.mu.Lock()
		if s.current == at {
			s.current = (at + 1) % len(s.agents)
		}
		s.mu.Unlock()
	}
	return s.wrap(err)
}

func (s *store) once(ctx context.Context, limit time.Duration, agent *api.Client, do func(context.Context, *api.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return do(ctx, agent)
}

// elsewhere tells whether another agent may answer better: this one is away, or has lost the others.
func elsewhere(err error) bool {
	code := status(err)
	return code == 0 || code >= http.StatusInternalServerError
}

// status is that of the answer; 0 if there was none.
func status(err error) int {
	if e, ok := errors.AsType[api.StatusError](err); ok {
		return e.Code
	}
	return 0
}

func read(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

func write(ctx context.Context) *api.WriteOptions { return (&api.WriteOptions{}).WithContext(ctx) }

// session makes one that ends when it is not renewed, and for no other reason: by default the health of the agent's node would end it,
// too, and that agent is only one of several that we may speak to.
func (s *store) session(ctx context.Context, c *api.Client, name, behavior string, ttl time.Duration) (string, error) {
	id, _, err := c.Session().CreateNoChecks(&api.SessionEntry{Name: name, Behavior: behavior, TTL: ttl.String(), LockDelay: lockDelay}, write(ctx))
	return id, err
}

// sessionTTL is what is asked of Consul so that a session ends ttl after its last renewal.
func sessionTTL(ttl time.Duration) time.Duration { return min(max(ttl/2, minSession), 24*time.Hour) }

// errRefused is for a list from which everything was taken that one may not see.
var errRefused = errors.New("the token may not see the keys")

// wrap says which store it is about, and what to do where that is known.
func (s *store) wrap(err error) error {
	if err == nil {
		return nil
	}
	code := status(err)
	switch {
	case code == http.StatusForbidden || code == http.StatusUnauthorized || errors.Is(err, errRefused):
		return fmt.Errorf("consul at %s refuses: %w; --discovery-opt kv.token-file names a token that may", s.name(), brief(err))
	case code == 0 && !errors.Is(err, context.Canceled) && !errors.Is(err, errReplaced) && !errors.Is(err, errHeld):
		return fmt.Errorf("consul at %s does not answer: %w", s.name(), brief(err))
	}
	return fmt.Errorf("consul at %s: %w", s.name(), brief(err))
}

// brief leaves out the URL of the call, and the words for the code.
func brief(err error) error {
	if e, ok := errors.AsType[api.StatusError](err); ok {
		return errors.New(strings.TrimSpace(e.Body))
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func (s *store) name() string {
	if n := len(s.place.Endpoints); n > 1 {
		return fmt.Sprintf("%s (and %d more)", s.place.Endpoints[0], n-1)
	}
	return s.place.Endpoints[0]
}
