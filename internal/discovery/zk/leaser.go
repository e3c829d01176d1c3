package zk

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"berth/internal/discovery"
	"berth/internal/election"
)

// Leaser grants the lease of a fleet's primary.
type Leaser struct {
	*store
	addr string
	ttl  time.Duration

	mu      sync.Mutex
	session *session
	held    *lease // whose session is not given up for a server that is not heard for a moment
}

// NewLeaser makes the Leaser of zk://HOST[:2181],HOST…[/PREFIX] for a manager that others reach at addr.
func NewLeaser(rawURL string, o discovery.Options, addr string, ttl time.Duration) (election.Leaser, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	return &Leaser{store: s, addr: addr, ttl: ttl}, nil
}

// connect sees that there is a session whose server is heard.
func (l *Leaser) connect(ctx context.Context) (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil && l.held == nil && !l.session.alive() {
		l.session.close()
		l.session = nil
	}
	if l.session == nil {
		n, err := l.dial(ctx, l.ttl)
		if err != nil {
			return nil, err
		}
		l.session = n
	}
	return l.session, nil
}

// drop ends a lease that was not renewed, with its session.
func (l *Leaser) drop(e *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == e {
		l.held = nil
		l.session.close()
		l.session = nil
	}
}

func (l *Leaser) hold(e *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = e
}

func (l *Leaser) holds(e *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held == e
}

// Close ends the session.
func (l *Leaser) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		l.session.close()
		l.session = nil
	}
	return nil
}

// holder is the znode as it was read.
type holder struct {
	leader  election.Leader
	owner   int64
	version int32
	session int64 // of the connection it was read by
}

// read reads the znode, from a server that has heard of all that was written before. The zero holder means that there is none.
func (l *Leaser) read(ctx context.Context, n *session) (holder, error) {
	got := make(chan holder, 1)
	err := n.do(ctx, func() error {
		h := holder{session: n.conn.SessionID()}
		if _, err := n.conn.Sync(l.leader()); err != nil {
			return err
		}
		data, stat, err := n.conn.Get(l.leader())
		switch {
		case errors.Is(err, zk.ErrNoNode):
		case err != nil:
			return err
		default:
			h.leader = election.Leader{Addr: string(data), Term: uint64(stat.Czxid)} //nolint:gosec // zxids count up from 0
			h.owner, h.version = stat.EphemeralOwner, stat.Version
		}
		got <- h
		return nil
	})
	if err != nil {
		return holder{}, l.wrap(err)
	}
	return <-got, nil
}

// Leader reads the znode.
func (l *Leaser) Leader(ctx context.Context) (election.Leader, error) {
	n, err := l.connect(ctx)
	if err != nil {
		return election.Leader{}, err
	}
	h, err := l.read(ctx, n)
	return h.leader, err
}

// Acquire creates the znode if it is not there.
func (l *Leaser) Acquire(ctx context.Context) (election.Lease, error) {
	n, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	h, err := l.read(ctx, n)
	if err != nil {
		return nil, err
	}
	if h.leader != (election.Leader{}) && h.owner != h.session {
		return nil, &election.HeldError{Leader: h.leader}
	}
	err = n.do(ctx, func() error {
		if h.owner != 0 && h.owner == h.session { // a lease of ours that was not released, or of whose grant we did not hear
			if err := n.conn.Delete(l.leader(), h.version); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return err
			}
		}
		return l.make(n.conn, l.leader(), l.addr, zk.FlagEphemeral)
	})
	if err != nil && !errors.Is(err, zk.ErrNodeExists) {
		return nil, l.wrap(err)
	}
	mine, readErr := l.read(ctx, n)
	switch {
	case readErr != nil:
		return nil, readErr
	case mine.leader == election.Leader{}:
		return nil, l.wrap(errors.New("the lease was lost at once"))
	case err != nil || mine.owner != mine.session:
		return nil, &election.HeldError{Leader: mine.leader}
	}
	ttl := min(l.ttl, n.granted())
	e := &lease{leaser: l, session: n, owner: mine.owner, term: mine.leader.Term, ttl: ttl}
	l.hold(e)
	e.expire = time.AfterFunc(ttl, func() { l.drop(e) })
	return e, nil
}

// lease is the znode of a session.
type lease struct {
	leaser  *Leaser
	session *session
	owner   int64 // the session's ID: after an expiry there is another
	term    uint64
	ttl     time.Duration
	expire  *time.Timer // ends the session if it is not renewed: the library's pings would keep it for as long as this process lives
}

func (e *lease) TTL() time.Duration { return e.ttl }
func (e *lease) Term() uint64       { return e.term }

// Renew makes a call, which the server takes for a sign of life of the session as it does pings, and sees that the znode is ours.
func (e *lease) Renew(ctx context.Context) error {
	if !e.leaser.holds(e) {
		return election.ErrLost
	}
	h, err := e.leaser.read(ctx, e.session)
	switch {
	case errors.Is(err, zk.ErrSessionExpired):
		return election.ErrLost
	case err == nil && (h.leader.Term != e.term || h.owner != e.owner):
		return election.ErrLost
	case err != nil:
		return err
	}
	e.expire.Reset(e.ttl)
	return nil
}

// Release deletes the znode.
func (e *lease) Release(ctx context.Context) error {
	e.expire.Stop()
	if e.leaser.holds(e) {
		e.leaser.hold(nil)
	}
	n, err := e.leaser.connect(ctx)
	if err != nil {
		return err
	}
	h, err := e.leaser.read(ctx, n)
	if err != nil || h.leader.Term != e.term {
		return err
	}
	err = n.do(ctx, func() error { return n.conn.Delete(e.leaser.leader(), h.version) })
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return e.leaser.wrap(err)
}
