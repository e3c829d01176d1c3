package gossip

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Follow gossips along and tells what it hears.
func (m *Members) Follow(ctx context.Context, see func([]string)) error {
	n, err := m.join(entry{})
	if n != nil {
		defer n.end(true) //nolint:errcheck // who did not hear the farewell finds out
	}
	if err != nil {
		return err
	}
	look := time.NewTicker(min(time.Second, m.place.Heartbeat))
	defer look.Stop()
	seek := time.NewTicker(m.place.Heartbeat)
	defer seek.Stop()
	last := ""
	for first := true; ; first = false {
		addrs, alone := n.members()
		if alone {
			return errors.New("gossip: none of the others answers any more")
		}
		m.remember(n)
		if key := strings.Join(addrs, " "); first || key != last {
			last = key
			see(addrs)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.news:
		case <-look.C: // a silent one's time may be over
		case <-seek.C:
			if err := m.find(n); err != nil {
				return err
			}
		}
	}
}

func (m *Members) remember(n *node) {
	if alive := n.alive(); len(alive) > 0 {
		m.peersMu.Lock()
		defer m.peersMu.Unlock()
		m.peers = alive
	}
}

// Register begins to gossip of the engine, or goes on.
func (m *Members) Register(_ context.Context, addr string, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := entry{Engine: addr, TTL: max(1, int(ttl.Round(time.Second)/time.Second))}
	var err error
	if m.node == nil {
		if m.node, err = m.join(e); m.node == nil {
			return err
		}
	} else if err = m.node.say(e); err == nil {
		err = m.find(m.node)
	}
	m.remember(m.node)
	m.await(ttl)
	return err
}

// await takes the engine out if no other call comes within ttl.
func (m *Members) await(ttl time.Duration) {
	if m.expire != nil {
		m.expire.Stop()
	}
	m.beat++
	beat := m.beat
	m.expire = time.AfterFunc(ttl, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.beat == beat && m.node != nil {
			_ = m.node.say(entry{}) // who does not hear it now hears it when they next meet
		}
	})
}

// Leave says farewell, which only the agent itself can: nobody else speaks for it.
func (m *Members) Leave(_ context.Context, addr string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.beat == 0 {
		return fmt.Errorf("gossip: only the agent that keeps %s can take it out: end that", addr)
	}
	return m.stop(true)
}

// Close stops to gossip, which the others take for a death.
func (m *Members) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stop(false)
}

func (m *Members) stop(farewell bool) error {
	m.beat++
	if m.expire != nil {
		m.expire.Stop()
	}
	if m.node == nil {
		return nil
	}
	n := m.node
	m.node = nil
	return n.end(farewell)
}
