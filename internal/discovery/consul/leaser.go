package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"

	"berth/internal/discovery"
	"berth/internal/election"
)

// Leaser grants the lease of a fleet's primary.
type Leaser struct {
	*store
	addr string
	ttl  time.Duration
}

// NewLeaser makes the Leaser of consul://HOST[:8500],HOST…[/PREFIX] for a manager that others reach at addr. Another leads within ttl of
// the last renewal; but Consul grants no less than 20 s.
func NewLeaser(rawURL string, o discovery.Options, addr string, ttl time.Duration) (election.Leaser, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	return &Leaser{store: s, addr: addr, ttl: sessionTTL(ttl)}, nil
}

// Leader reads the key.
func (l *Leaser) Leader(ctx context.Context) (leader election.Leader, err error) {
	err = l.call(ctx, callLimit, func(ctx context.Context, c *api.Client) error {
		leader, _, err = l.holder(ctx, c)
		return err
	})
	return leader, err
}

// holder says who leads, and by which session.
func (l *Leaser) holder(ctx context.Context, c *api.Client) (election.Leader, string, error) {
	pair, _, err := c.KV().Get(l.place.Leader, read(ctx))
	if err != nil || pair == nil || pair.Session == "" {
		return election.Leader{}, "", err
	}
	return election.Leader{Addr: string(pair.Value), Term: pair.ModifyIndex}, pair.Session, nil
}

// Acquire locks the key if nobody has.
func (l *Leaser) Acquire(ctx context.Context) (got election.Lease, err error) {
	var held *election.HeldError
	err = l.call(ctx, callLimit, func(ctx context.Context, c *api.Client) error {
		got, held, err = l.acquire(ctx, c)
		return err
	})
	if err == nil && held != nil {
		return nil, held
	}
	return got, err
}

func (l *Leaser) acquire(ctx context.Context, c *api.Client) (election.Lease, *election.HeldError, error) {
	leader, session, err := l.holder(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if session != "" {
		return nil, &election.HeldError{Leader: leader}, nil
	}
	id, err := l.session(ctx, c, "berth primary "+l.addr, api.SessionBehaviorRelease, l.ttl)
	if err != nil {
		return nil, nil, err
	}
	_, _, err = c.KV().Acquire(&api.KVPair{Key: l.place.Leader, Value: []byte(l.addr), Session: id}, write(ctx))
	if err == nil { // what the answer says is known from the key as well, and the term only from there
		leader, session, err = l.holder(ctx, c)
	}
	if err == nil && session == id {
		return &lease{leaser: l, id: id, term: leader.Term}, nil, nil
	}
	_, _ = c.Session().Destroy(id, write(ctx)) // else it ends by itself
	return nil, &election.HeldError{Leader: leader}, err
}

// lease is the key under a session.
type lease struct {
	leaser *Leaser
	id     string
	term   uint64
}

func (e *lease) TTL() time.Duration { return e.leaser.ttl }
func (e *lease) Term() uint64       { return e.term }

// Renew renews the session and looks that the key is still locked by it: somebody may have deleted it.
func (e *lease) Renew(ctx context.Context) error {
	lost := false
	err := e.leaser.call(ctx, callLimit, func(ctx context.Context, c *api.Client) error {
		entry, _, err := c.Session().Renew(e.id, write(ctx))
		if err != nil {
			return err
		}
		leader, session, err := e.leaser.holder(ctx, c)
		lost = err == nil && (entry == nil || session != e.id || leader.Term != e.term)
		return err
	})
	if lost {
		return election.ErrLost
	}
	return err
}

// Release lets the key go and ends the session.
func (e *lease) Release(ctx context.Context) error {
	return e.leaser.call(ctx, callLimit, func(ctx context.Context, c *api.Client) error {
		if _, _, err := c.KV().Release(&api.KVPair{Key: e.leaser.place.Leader, Value: []byte(e.leaser.addr), Session: e.id}, write(ctx)); err != nil {
			return err
		}
		_, err := c.Session().Destroy(e.id, write(ctx))
		return err
	})
}
