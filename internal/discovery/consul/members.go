package consul

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"berth/internal/discovery"
)

// Members are the members that stand in a Consul.
type Members struct {
	*store

	one sync.Mutex // held by one call at a time; guards what follows
	id  string     // the session
	ttl time.Duration
}

// New makes the Members of consul://HOST[:8500],HOST…[/PREFIX].
func New(rawURL string, o discovery.Options) (discovery.Store, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	return &Members{store: s}, nil
}

// patience is how long a list waits for a change. What is silent for longer is not there.
const patience = 10 * time.Second

var errReplaced = errors.New("another store has taken its place")

// Follow lists the keys, and again each time that the list has changed.
func (m *Members) Follow(ctx context.Context, see func([]string)) error {
	defer m.transport.CloseIdleConnections()
	var index uint64
	for {
		addrs, now, err := m.list(ctx, index)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case now < index:
			return m.wrap(errReplaced)
		case now > index:
			see(addrs)
		}
		index = now
	}
}

func (m *Members) list(ctx context.Context, index uint64) (addrs []string, now uint64, err error) {
	err = m.call(ctx, patience+patience/16+callLimit, func(ctx context.Context, c *api.Client) error {
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: patience}).WithContext(ctx)
		pairs, meta, err := c.KV().List(m.prefix(), q)
		if err != nil {
			return err
		}
		if meta.ResultsFilteredByACLs {
			return errRefused
		}
		addrs, now = nil, max(meta.LastIndex, 1) // an index of 0 would not wait
		for _, p := range pairs {
			addrs = append(addrs, discovery.Address(p.Key, string(p.Value)))
		}
		return nil
	})
	return addrs, now, err
}

func (m *Members) prefix() string { return m.place.Nodes + "/" }

// Register renews the session, and puts the key where it is missing. Only the latter is seen by who watches.
func (m *Members) Register(ctx context.Context, addr string, ttl time.Duration) error {
	m.one.Lock()
	defer m.one.Unlock()
	return m.call(ctx, callLimit, func(ctx context.Context, c *api.Client) error { return m.register(ctx, c, addr, ttl) })
}

func (m *Members) register(ctx context.Context, c *api.Client, addr string, ttl time.Duration) error {
	if m.ttl != ttl {
		m.id = ""
	}
	if m.id != "" {
		entry, _, err := c.Session().Renew(m.id, write(ctx))
		if err != nil {
			return err
		}
		if entry == nil {
			m.id = ""
		}
	}
	if m.id == "" {
		id, err := m.session(ctx, c, "berth member "+addr, api.SessionBehaviorDelete, sessionTTL(ttl))
		if err != nil {
			return err
		}
		m.id, m.ttl = id, ttl
	}
	key := m.prefix() + addr
	pair, _, err := c.KV().Get(key, read(ctx))
	if err != nil || pair != nil && pair.Session == m.id && string(pair.Value) == addr {
		return err
	}
	return m.put(ctx, c, key, addr)
}

// put locks the key. One that an agent before this one left is replaced in one step, so that nobody sees it missing.
func (m *Members) put(ctx context.Context, c *api.Client, key, addr string) error {
	ok, answer, _, err := c.KV().Txn(api.KVTxnOps{
		{Verb: api.KVDelete, Key: key},
		{Verb: api.KVLock, Key: key, Value: []byte(addr), Session: m.id},
	}, read(ctx))
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %v", errHeld, txnErrors(answer))
	}
	return nil
}

var errHeld = errors.New("the key cannot be locked")

func txnErrors(r *api.KVTxnResponse) (all []string) {
	if r == nil {
		return nil
	}
	for _, e := range r.Errors {
		all = append(all, e.What)
	}
	return all
}

// Leave deletes the key, also one that an agent before left behind, and the session.
func (m *Members) Leave(ctx context.Context, addr string) error {
	m.one.Lock()
	defer m.one.Unlock()
	return m.call(ctx, callLimit, func(ctx context.Context, c *api.Client) error {
		if _, err := c.KV().Delete(m.prefix()+addr, write(ctx)); err != nil {
			return err
		}
		if m.id != "" {
			if _, err := c.Session().Destroy(m.id, write(ctx)); err != nil {
				return err
			}
		}
		m.id = ""
		return nil
	})
}
