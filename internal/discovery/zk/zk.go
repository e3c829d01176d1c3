// Package zk keeps a fleet's members and its leader's lease in ZooKeeper.
//
// Both are ephemeral znodes: they end with the session that made them. A session lasts as long as the library's pings are heard, and
// so says only that a process lives; that it does what it should is for us to see, so a membership or a lease that is not renewed ends
// its znode. The term of a lease is the zxid that created it.
package zk

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"berth/internal/discovery"
)

const (
	defaultPort = "2181"
	// callLimit bounds a call, and what it takes to get a session.
	callLimit = 5 * time.Second
	// watchTimeout is the session of who only reads: how long a dead server is believed in.
	watchTimeout = 10 * time.Second
	// answerLimit is how long a server that is connected to has to begin a session, before another one is tried.
	answerLimit = 2 * time.Second
)

// store is a ZooKeeper ensemble.
type store struct {
	place discovery.Place
}

func open(rawURL string, o discovery.Options) (*store, error) {
	place, err := discovery.ParsePlace(rawURL, defaultPort, o)
	if err != nil {
		return nil, err
	}
	if place.Token != "" {
		return nil, errors.New("zk:// has users and passwords: kv.user and kv.password-file")
	}
	return &store{place: place}, nil
}

func (s *store) nodes() string  { return "/" + s.place.Nodes }
func (s *store) leader() string { return "/" + s.place.Leader }

// acl is whom the znodes belong to that we make.
func (s *store) acl() []zk.ACL {
	if s.place.User != "" {
		return zk.AuthACL(zk.PermAll)
	}
	return zk.WorldACL(zk.PermAll)
}

// session is a connection that finds another server when one is lost, and after an expiry begins a new session by itself.
type session struct {
	conn  *zk.Conn
	ready chan struct{} // closed when it has a session for the first time
	lost  chan struct{} // closed when it lost a server for the first time after that
	ended chan struct{} // closed when nothing of it runs any more

	mu     sync.Mutex // guards closed, and that no call begins after it
	closed bool
	calls  sync.WaitGroup

	// timeout is how long the server keeps the session without a ping, in ms; it has the last word on that.
	timeout atomic.Int32
}

// dial begins a session, or says why there is none.
func (s *store) dial(ctx context.Context, timeout time.Duration) (*session, error) {
	n := &session{ready: make(chan struct{}), lost: make(chan struct{}), ended: make(chan struct{})}
	conn, events, err := zk.Connect(s.place.Endpoints, timeout, zk.WithLogger(silent{}), zk.WithLogInfo(false), zk.WithDialer(n.dialer(s.place.TLS)))
	if err != nil {
		return nil, s.wrap(err) // a name does not resolve
	}
	n.conn = conn
	go n.follow(events)
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	select {
	case <-n.ready:
	case <-ctx.Done():
		n.close()
		return nil, s.wrap(ctx.Err())
	}
	if s.place.User != "" {
		if err := n.do(ctx, func() error { return conn.AddAuth("digest", []byte(s.place.User+":"+s.place.Password)) }); err != nil {
			n.close()
			return nil, s.wrap(err)
		}
	}
	return n, nil
}

// follow ends with the connection, which closes the channel.
func (n *session) follow(events <-chan zk.Event) {
	defer close(n.ended)
	ready, lost := false, false
	for e := range events {
		switch {
		case e.State == zk.StateHasSession && !ready:
			ready = true
			close(n.ready)
		case (e.State == zk.StateDisconnected || e.State == zk.StateExpired) && ready && !lost:
			lost = true
			close(n.lost)
		}
	}
}

// close ends the session, and with it its ephemeral znodes, if the server can be told.
func (n *session) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.conn.Close()
	n.calls.Wait()
	<-n.ended
}

// alive says whether the server was heard since the last trouble.
func (n *session) alive() bool { return n.conn.State() == zk.StateHasSession }

// do makes a call, which the library does not limit by itself. One that is given up ends when the server is lost or the session closed.
func (n *session) do(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return zk.ErrConnectionClosed
	}
	n.calls.Go(func() { done <- call() })
	n.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dialer connects, with TLS if it is wanted, and listens in for the session's timeout: the library keeps to itself what the server
// granted.
func (n *session) dialer(config *tls.Config) zk.Dialer {
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		var d interface {
			DialContext(context.Context, string, string) (net.Conn, error)
		} = &net.Dialer{}
		if config != nil {
			d = &tls.Dialer{Config: config}
		}
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &listener{Conn: c, timeout: &n.timeout}, nil
	}
}

// listener reads the head of a server's first answer along with its reader: length, protocol version, session timeout.
type listener struct {
	net.Conn
	head    []byte
	timeout *atomic.Int32
}

const headSize = 12

// SetReadDeadline gives a server that says nothing at all no more than answerLimit, where the library would give it minutes.
func (l *listener) SetReadDeadline(t time.Time) error {
	if limit := time.Now().Add(answerLimit); len(l.head) < headSize && t.After(limit) {
		t = limit
	}
	return l.Conn.SetReadDeadline(t)
}

func (l *listener) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if missing := headSize - len(l.head); missing > 0 && n > 0 {
		if l.head = append(l.head, b[:min(n, missing)]...); len(l.head) == headSize {
			l.timeout.Store(int32(binary.BigEndian.Uint32(l.head[8:]))) //nolint:gosec // the protocol has it signed
		}
	}
	return n, err
}

// granted is the session's timeout as the server has it.
func (n *session) granted() time.Duration { return time.Duration(n.timeout.Load()) * time.Millisecond }

// silent has nothing logged beside the errors that calls return.
type silent struct{}

func (silent) Printf(string, ...any) {}

// make creates a znode, and what is missing above it.
func (s *store) make(c *zk.Conn, node, data string, flags int32) error {
	_, err := c.Create(node, []byte(data), flags, s.acl())
	if !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	if err := s.makeAll(c, path.Dir(node)); err != nil {
		return err
	}
	_, err = c.Create(node, []byte(data), flags, s.acl())
	return err
}

func (s *store) makeAll(c *zk.Conn, dir string) error {
	for at := 1; at <= len(dir); at++ {
		if at < len(dir) && dir[at] != '/' {
			continue
		}
		there, _, err := c.Exists(dir[:at]) // first, since to create may be forbidden above
		if err == nil && !there {
			_, err = c.Create(dir[:at], nil, 0, s.acl())
		}
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return nil
}

// wrap says which store it is about, and what to do where that is known.
func (s *store) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zk.ErrNoAuth), errors.Is(err, zk.ErrAuthFailed), errors.Is(err, zk.ErrInvalidACL):
		return fmt.Errorf("zookeeper at %s refuses: %s; --discovery-opt kv.user and kv.password-file name a user who may", s.name(), strings.TrimPrefix(err.Error(), "zk: "))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, zk.ErrNoServer), errors.Is(err, zk.ErrConnectionClosed), errors.Is(err, zk.ErrSessionExpired):
		return fmt.Errorf("zookeeper at %s does not answer: %w", s.name(), err)
	}
	return fmt.Errorf("zookeeper at %s: %w", s.name(), err)
}

func (s *store) name() string {
	if n := len(s.place.Endpoints); n > 1 {
		return fmt.Sprintf("%s (and %d more)", s.place.Endpoints[0], n-1)
	}
	return s.place.Endpoints[0]
}
