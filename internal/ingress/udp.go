package ingress

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// datagramSize is the largest that there can be.
const datagramSize = 1 << 16

// flows are the peers of one UDP port, each with a socket of its own towards the node, so that answers find their way back.
type flows struct {
	f    *forward
	here *net.UDPConn

	mu     sync.Mutex
	by     map[netip.AddrPort]*flow
	recent *list.List // of *flow, the last heard in front
}

type flow struct {
	peer netip.AddrPort
	t    *target
	node *net.UDPConn
	at   *list.Element
	// last is when something came by; guarded by flows.mu.
	last time.Time
}

// serveUDP forwards datagrams until the port is closed.
func (f *forward) serveUDP(ctx context.Context, here *net.UDPConn) {
	s := &flows{f: f, here: here, by: map[netip.AddrPort]*flow{}, recent: list.New()}
	defer s.forgetAll()
	buf := make([]byte, datagramSize)
	for {
		n, peer, err := here.ReadFromUDPAddrPort(buf)
		if err == nil {
			s.send(peer, buf[:n])
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		f.i.o.Log.Debug("receive", "port", f.key.String(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(acceptPause):
		}
	}
}

// send hands a datagram on. Like any router it may lose it.
func (s *flows) send(peer netip.AddrPort, b []byte) {
	w, err := s.flow(peer)
	if err != nil {
		s.f.i.o.Log.Debug("forward", "port", s.f.key.String(), "error", err)
		return
	}
	if _, err := w.node.Write(b); errors.Is(err, syscall.ECONNREFUSED) {
		_, _ = w.node.Write(b) // the error was about an earlier one; whether this one arrives nobody knows
	}
}

// flow finds a peer's, or makes one.
func (s *flows) flow(peer netip.AddrPort) (*flow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.f.to.Load()
	if w := s.by[peer]; w != nil {
		if w.t.ctx == t.ctx {
			w.last = time.Now()
			s.recent.MoveToFront(w.at)
			return w, nil
		}
		s.forget(w) // it leads to where the port led before
	}
	at, err := t.udpAddr()
	if err != nil {
		return nil, err
	}
	node, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	if len(s.by) >= s.f.i.o.Limits.Flows {
		if oldest, ok := s.recent.Back().Value.(*flow); ok {
			s.forget(oldest)
		}
	}
	w := &flow{peer: peer, t: t, node: node, last: time.Now()}
	w.at = s.recent.PushFront(w)
	s.by[peer] = w
	s.f.i.wg.Go(func() { s.answer(w) })
	return w, nil
}

// answer brings back what the container says, until the flow is silent for long or leads nowhere any more.
func (s *flows) answer(w *flow) {
	defer context.AfterFunc(w.t.ctx, func() { _ = w.node.Close() })() // which ends the Read
	defer s.end(w)
	buf := make([]byte, datagramSize)
	for {
		if err := w.node.SetReadDeadline(s.until(w)); err != nil {
			return
		}
		n, err := w.node.Read(buf)
		var late net.Error
		switch {
		case err == nil:
			s.heard(w)
			if _, err := s.here.WriteToUDPAddrPort(buf[:n], w.peer); errors.Is(err, net.ErrClosed) {
				return
			}
		case errors.Is(err, syscall.ECONNREFUSED): // nobody listens there just now
		case errors.As(err, &late) && late.Timeout() && time.Now().Before(s.until(w)):
		default:
			return
		}
	}
}

func (s *flows) heard(w *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.last = time.Now()
	if s.by[w.peer] == w {
		s.recent.MoveToFront(w.at)
	}
}

// until is when the flow has been silent for too long, if nothing comes by until then.
func (s *flows) until(w *flow) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.last.Add(s.f.i.o.Timing.Idle)
}

func (s *flows) end(w *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(w)
}

// forget ends a flow. The caller holds mu.
func (s *flows) forget(w *flow) {
	_ = w.node.Close() // whoever reads from it ends
	if s.by[w.peer] == w {
		delete(s.by, w.peer)
		s.recent.Remove(w.at)
	}
}

func (s *flows) forgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.by {
		s.forget(w)
	}
}
