package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"berth/internal/discovery"
	"berth/internal/election"
)

// Leaser grants the lease of a fleet's primary.
type Leaser struct {
	*store
	addr string
	ttl  time.Duration
}

// NewLeaser makes the Leaser of etcd://HOST[:2379],HOST…[/PREFIX] for a manager that others reach at addr.
func NewLeaser(rawURL string, o discovery.Options, addr string, ttl time.Duration) (election.Leaser, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	return &Leaser{store: s, addr: addr, ttl: ttl}, nil
}

// Leader reads the key.
func (l *Leaser) Leader(ctx context.Context) (election.Leader, error) {
	c, err := l.connection()
	if err != nil {
		return election.Leader{}, err
	}
	r, err := c.Get(ctx, l.place.Leader)
	if err != nil {
		return election.Leader{}, l.wrap(err)
	}
	return leaderOf(r), nil
}

func leaderOf(r *clientv3.GetResponse) election.Leader {
	if len(r.Kvs) == 0 {
		return election.Leader{}
	}
	return election.Leader{Addr: string(r.Kvs[0].Value), Term: uint64(r.Kvs[0].CreateRevision)} //nolint:gosec // revisions count up from 1
}

// Acquire creates the key if it is not there.
func (l *Leaser) Acquire(ctx context.Context) (election.Lease, error) {
	leader, err := l.Leader(ctx) // asked first, since every lease is written to all servers' disks
	if err != nil {
		return nil, err
	}
	if leader != (election.Leader{}) {
		return nil, &election.HeldError{Leader: leader}
	}
	c, err := l.connection()
	if err != nil {
		return nil, err
	}
	granted, err := c.Grant(ctx, seconds(l.ttl))
	if err != nil {
		return nil, l.wrap(err)
	}
	r, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(l.place.Leader), "=", 0)).
		Then(clientv3.OpPut(l.place.Leader, l.addr, clientv3.WithLease(granted.ID))).
		Else(clientv3.OpGet(l.place.Leader)).
		Commit()
	if err != nil {
		return nil, l.wrap(err)
	}
	if !r.Succeeded {
		_, _ = c.Revoke(ctx, granted.ID) // nothing hangs on it, and it ends by itself
		return nil, &election.HeldError{Leader: leaderOf((*clientv3.GetResponse)(r.Responses[0].GetResponseRange()))}
	}
	return &lease{leaser: l, id: granted.ID, revision: r.Header.Revision, ttl: time.Duration(granted.TTL) * time.Second}, nil
}

// lease is the key under an etcd lease.
type lease struct {
	leaser   *Leaser
	id       clientv3.LeaseID
	revision int64 // at which the key was created
	ttl      time.Duration
}

func (l *lease) TTL() time.Duration { return l.ttl }
func (l *lease) Term() uint64       { return uint64(l.revision) } //nolint:gosec // revisions count up from 1

// Renew keeps the lease alive and looks that the key is still the one that was created under it: somebody may have deleted it.
func (l *lease) Renew(ctx context.Context) error {
	c, err := l.leaser.connection()
	if err != nil {
		return err
	}
	alive, err := c.KeepAliveOnce(ctx, l.id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil && alive.TTL <= 0 {
		return election.ErrLost
	}
	if err != nil {
		return l.leaser.wrap(err)
	}
	leader, err := l.leaser.Leader(ctx)
	if err != nil {
		return err
	}
	if leader.Term != l.Term() {
		return election.ErrLost
	}
	return nil
}

// Release deletes the key with its lease.
func (l *lease) Release(ctx context.Context) error {
	c, err := l.leaser.connection()
	if err != nil {
		return err
	}
	if _, err := c.Revoke(ctx, l.id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return l.leaser.wrap(err)
	}
	return nil
}
