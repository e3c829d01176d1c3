package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"berth/internal/discovery"
)

// Members are the members that stand in an etcd.
type Members struct {
	*store

	lease sync.Mutex // guards what follows, and is held by one call at a time
	id    clientv3.LeaseID
	ttl   time.Duration
}

// New makes the Members of etcd://HOST[:2379],HOST…[/PREFIX].
func New(rawURL string, o discovery.Options) (discovery.Store, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	return &Members{store: s}, nil
}

// probe is how often it is looked whether the store is there, which a silent watch does not tell.
const probe = 3 * time.Second

// Follow lists the members and watches from there.
func (m *Members) Follow(ctx context.Context, see func([]string)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := m.dial()
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing was written with it
	first, err := m.list(ctx, c)
	if err != nil {
		return m.wrap(err)
	}
	members := map[string]string{} // key → address
	for _, kv := range first.Kvs {
		members[string(kv.Key)] = discovery.Address(string(kv.Key), string(kv.Value))
	}
	see(slices.Collect(maps.Values(members)))
	seen, cluster := first.Header.Revision, first.Header.ClusterId
	// Watch returns when the store has begun it, which one that has gone away since the list never does: looked after meanwhile.
	begun := make(chan clientv3.WatchChan, 1)
	var opening sync.WaitGroup
	opening.Go(func() {
		begun <- c.Watch(clientv3.WithRequireLeader(ctx), m.prefix(), clientv3.WithPrefix(), clientv3.WithRev(seen+1))
	})
	defer func() {
		cancel()
		opening.Wait()
	}()
	var changes clientv3.WatchChan
	tick := time.NewTicker(min(probe, m.place.Heartbeat))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			h, err := m.alive(ctx, c)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return m.wrap(err)
			case h.ClusterId != cluster || h.Revision < seen:
				return m.wrap(errors.New("another store has taken its place"))
			}
		case changes = <-begun:
		case r, open := <-changes:
			if err := r.Err(); err != nil || !open {
				if ctx.Err() != nil {
					return nil
				}
				return m.wrap(errors.Join(err, errors.New("the watch ended")))
			}
			seen = max(seen, r.Header.Revision)
			for i, e := range r.Events {
				// A look for each change of the store, so that farewells one after another are no deletion of all.
				if i > 0 && e.Kv.ModRevision != r.Events[i-1].Kv.ModRevision {
					see(slices.Collect(maps.Values(members)))
				}
				if e.Type == clientv3.EventTypeDelete {
					delete(members, string(e.Kv.Key))
				} else {
					members[string(e.Kv.Key)] = discovery.Address(string(e.Kv.Key), string(e.Kv.Value))
				}
			}
			if len(r.Events) > 0 {
				see(slices.Collect(maps.Values(members)))
			}
		}
	}
}

func (m *Members) prefix() string { return m.place.Nodes + "/" }

func (m *Members) list(ctx context.Context, c *clientv3.Client) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return c.Get(ctx, m.prefix(), clientv3.WithPrefix())
}

// alive asks the quorum for a sign of life.
func (m *Members) alive(ctx context.Context, c *clientv3.Client) (*header, error) {
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	r, err := c.Get(ctx, m.prefix(), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return nil, err
	}
	return &header{r.Header.ClusterId, r.Header.Revision}, nil
}

type header struct {
	ClusterId uint64 //nolint:revive // as etcd writes it
	Revision  int64
}

// Register keeps the member's lease alive, and puts the key where it is missing. Only the latter is seen by watchers.
func (m *Members) Register(ctx context.Context, addr string, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	m.lease.Lock()
	defer m.lease.Unlock()
	c, err := m.connection()
	if err != nil {
		return err
	}
	return m.wrap(m.register(ctx, c, addr, ttl))
}

func (m *Members) register(ctx context.Context, c *clientv3.Client, addr string, ttl time.Duration) error {
	if m.id != clientv3.NoLease && m.ttl == ttl {
		_, err := c.KeepAliveOnce(ctx, m.id)
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		}
		if err != nil {
			m.id = clientv3.NoLease
		}
	} else {
		m.id = clientv3.NoLease
	}
	if m.id == clientv3.NoLease {
		granted, err := c.Grant(ctx, seconds(ttl))
		if err != nil {
			return err
		}
		m.id, m.ttl = granted.ID, ttl
	}
	key := m.prefix() + addr
	_, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.LeaseValue(key), "=", m.id), clientv3.Compare(clientv3.Value(key), "=", addr)).
		Else(clientv3.OpPut(key, addr, clientv3.WithLease(m.id))).
		Commit()
	return err
}

// seconds are what etcd counts in.
func seconds(d time.Duration) int64 { return max(1, int64(math.Ceil(d.Seconds()))) }

// Leave deletes the key, also one that an agent before left behind.
func (m *Members) Leave(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	m.lease.Lock()
	defer m.lease.Unlock()
	c, err := m.connection()
	if err != nil {
		return err
	}
	if _, err := c.Delete(ctx, m.prefix()+addr); err != nil {
		return m.wrap(err)
	}
	id := m.id
	m.id = clientv3.NoLease
	if id == clientv3.NoLease {
		return nil
	}
	if _, err := c.Revoke(ctx, id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return m.wrap(fmt.Errorf("end the membership's lease: %w", err))
	}
	return nil
}
