package zk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"berth/internal/discovery"
)

// Members are the members that stand in a ZooKeeper.
type Members struct {
	*store
	warn func(error)

	mu      sync.Mutex // held by one call at a time; guards what follows
	session *session
	ttl     time.Duration // that the session was asked for
	warned  bool          // that the server grants another
	addr    string        // registered; "" if none is
	expire  *time.Timer
	beat    int // counts registrations, so that a timer of an older one does nothing
}

// New makes the Members of zk://HOST[:2181],HOST…[/PREFIX].
func New(rawURL string, o discovery.Options) (discovery.Store, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	m := &Members{store: s, warn: o.Warn}
	if m.warn == nil {
		m.warn = func(error) {}
	}
	return m, nil
}

// Follow lists the znodes again whenever their parent says that they changed.
func (m *Members) Follow(ctx context.Context, see func([]string)) error {
	n, err := m.dial(ctx, watchTimeout)
	if err != nil {
		return err
	}
	defer n.close()
	for {
		addrs, changed, err := m.look(ctx, n)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return m.wrap(err)
		}
		see(addrs)
		select {
		case <-ctx.Done():
			return nil
		case <-n.lost:
			return m.wrap(zk.ErrConnectionClosed)
		case e := <-changed:
			if e.Err != nil {
				return m.wrap(e.Err)
			}
		}
	}
}

// look lists the members and says where the next change will be told. A parent that is not there yet has none.
func (m *Members) look(ctx context.Context, n *session) (addrs []string, changed <-chan zk.Event, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	type answer struct {
		addrs   []string
		changed <-chan zk.Event
	}
	got := make(chan answer, 1)
	err = n.do(ctx, func() error {
		for {
			addrs, _, changed, err := n.conn.ChildrenW(m.nodes())
			if !errors.Is(err, zk.ErrNoNode) {
				got <- answer{addrs, changed}
				return err
			}
			there, _, changed, err := n.conn.ExistsW(m.nodes())
			if err != nil || !there {
				got <- answer{nil, changed}
				return err
			}
		}
	})
	if err != nil {
		return nil, nil, err
	}
	a := <-got
	return a.addrs, a.changed, nil
}

// Register makes the znode, or sees that it is there. The session lasts for ttl without a sign of this process, and the znode without
// another call.
func (m *Members) Register(ctx context.Context, addr string, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.connect(ctx, ttl); err != nil {
		return err
	}
	n := m.session
	node := m.nodes() + "/" + addr
	if err := n.do(ctx, func() error { return m.put(n.conn, node, addr) }); err != nil {
		return m.wrap(err)
	}
	m.addr = addr
	m.await(ttl)
	return nil
}

// connect sees that there is a session of ttl. One that cannot find a server is given up: if the ensemble lost its memory, it would
// never let in a client that remembers more.
func (m *Members) connect(ctx context.Context, ttl time.Duration) error {
	if m.session != nil && (!m.session.alive() || m.ttl != ttl) {
		m.session.close()
		m.session = nil
	}
	if m.session != nil {
		return nil
	}
	n, err := m.dial(ctx, ttl)
	if err != nil {
		return err
	}
	m.session, m.ttl = n, ttl
	if got := n.granted(); got != ttl && !m.warned {
		m.warned = true
		m.warn(fmt.Errorf("zookeeper at %s grants sessions of %v and not of %v (its minSessionTimeout and maxSessionTimeout): so long lasts the membership of an agent that dies",
			m.name(), got, ttl))
	}
	return nil
}

// put sees that the znode is there and belongs to this session; else it would end with another's.
func (m *Members) put(c *zk.Conn, node, addr string) error {
	there, stat, err := c.Exists(node)
	switch {
	case err != nil:
		return err
	case there && stat.EphemeralOwner == c.SessionID():
		return nil
	case !there:
		return m.make(c, node, addr, zk.FlagEphemeral)
	}
	// An agent before this one left it. Both at once, so that nobody sees it missing.
	_, err = c.Multi(&zk.DeleteRequest{Path: node, Version: stat.Version}, &zk.CreateRequest{Path: node, Data: []byte(addr), Acl: m.acl(), Flags: zk.FlagEphemeral})
	return err
}

// await ends the membership if no other call comes within ttl.
func (m *Members) await(ttl time.Duration) {
	if m.expire != nil {
		m.expire.Stop()
	}
	m.beat++
	beat := m.beat
	m.expire = time.AfterFunc(ttl, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.beat == beat && m.session != nil {
			m.session.close()
			m.session = nil
		}
	})
}

// Leave deletes the znode, also one that an agent before left behind.
func (m *Members) Leave(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beat++
	ttl := m.ttl
	if m.session == nil || ttl == 0 {
		ttl = watchTimeout
	}
	if err := m.connect(ctx, ttl); err != nil {
		return err
	}
	n := m.session
	err := n.do(ctx, func() error { return n.conn.Delete(m.nodes()+"/"+addr, -1) })
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return m.wrap(err)
}

// Close ends the session, and with it the membership.
func (m *Members) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beat++
	if m.expire != nil {
		m.expire.Stop()
	}
	if m.session != nil {
		m.session.close()
		m.session = nil
	}
	return nil
}
