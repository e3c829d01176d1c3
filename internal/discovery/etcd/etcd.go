// Package etcd keeps a fleet's members and its leader's lease in etcd, by its API v3.
//
// A member is a key under an etcd lease that its agent keeps alive, which no watcher hears of; the leader is a key that was created
// under a lease, and its term is the revision of that creation.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"berth/internal/discovery"
)

const (
	defaultPort = "2379"
	// callLimit bounds a call that waits for nothing.
	callLimit = 5 * time.Second
	// dialLimit is how long one endpoint of several may keep the others waiting.
	dialLimit = 2 * time.Second
	// keepAlive is how often a connection is pinged; servers end those that ping more often than every 5 s.
	keepAlive = 10 * time.Second
	// retries are of calls that changed nothing, 25 ms apart: enough to find another endpoint, and who calls tries again anyway.
	retries = 8
)

// again is how soon a server that was down is tried again; by gRPC's own it may take two minutes.
var again = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}

// store is an etcd cluster. It connects when it is first needed.
type store struct {
	place discovery.Place

	mu     sync.Mutex
	client *clientv3.Client
}

func open(rawURL string, o discovery.Options) (*store, error) {
	place, err := discovery.ParsePlace(rawURL, defaultPort, o)
	if err != nil {
		return nil, err
	}
	if place.Token != "" {
		return nil, errors.New("etcd:// has users and passwords: kv.user and kv.password-file")
	}
	return &store{place: place}, nil
}

// dial makes a client, which connects by and by; one with a password first asks for a token, for as long as dialLimit.
func (s *store) dial() (*clientv3.Client, error) {
	scheme := "http://"
	if s.place.TLS != nil {
		scheme = "https://"
	}
	var endpoints []string
	for _, e := range s.place.Endpoints {
		endpoints = append(endpoints, scheme+e)
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: s.place.TLS, Username: s.place.User, Password: s.place.Password, DialTimeout: dialLimit,
		DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: callLimit, Logger: zap.NewNop(), MaxUnaryRetries: retries,
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: dialLimit}), grpc.WithChainUnaryInterceptor(hurry),
		},
	})
	return c, s.wrap(err)
}

// hurry lets a call fail at once, and with the reason, when no endpoint can be connected to; etcd's client would wait.
func hurry(ctx context.Context, method string, request, reply any, c *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return call(ctx, method, request, reply, c, append(opts, grpc.WaitForReady(false))...)
}

// connection is the client of calls that are made one by one.
func (s *store) connection() (*clientv3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		c, err := s.dial()
		if err != nil {
			return nil, err
		}
		s.client = c
	}
	return s.client, nil
}

// Close ends the connections.
func (s *store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil
	}
	err := s.client.Close()
	s.client = nil
	if errors.Is(err, context.Canceled) {
		return nil // it says that it was closed
	}
	return err
}

// wrap says which store it is about, and what to do where that is known.
func (s *store) wrap(err error) error {
	if err == nil {
		return nil
	}
	if refused(err) {
		return fmt.Errorf("etcd at %s refuses: %w; --discovery-opt kv.user and kv.password-file name a user who may", s.name(), err)
	}
	if st, ok := status.FromError(err); ok && st.Code() == codes.Unavailable {
		return fmt.Errorf("etcd at %s does not answer: %s", s.name(), st.Message())
	}
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return fmt.Errorf("etcd at %s does not answer: %w", s.name(), err)
	}
	return fmt.Errorf("etcd at %s: %w", s.name(), err)
}

func (s *store) name() string {
	if n := len(s.place.Endpoints); n > 1 {
		return fmt.Sprintf("%s (and %d more)", s.place.Endpoints[0], n-1)
	}
	return s.place.Endpoints[0]
}

// refused tells whether a user is wanted, or another one.
func refused(err error) bool {
	for _, e := range []error{
		rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed, rpctypes.ErrPermissionDenied, rpctypes.ErrInvalidAuthToken, rpctypes.ErrPermissionNotGranted,
		rpctypes.ErrAuthNotEnabled,
	} {
		if errors.Is(rpctypes.Error(err), e) {
			return true
		}
	}
	code := status.Code(err)
	return code == codes.Unauthenticated || code == codes.PermissionDenied
}
