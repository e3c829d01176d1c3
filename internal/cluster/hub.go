package cluster

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// readerQueue is how many events a reader may be behind before it is cut off. dockerd allows 1,024 per listener of one
// engine and then skips silently; a cut stream at least tells the client.
const readerQueue = 16384

// hub hands events out and remembers the last ones.
type hub struct {
	mu      sync.Mutex
	seq     uint64
	ring    []fleet.Event // oldest at next when full
	next    int
	size    int
	readers map[*reader]struct{}
	cut     int // readers that fell too far behind
	closed  bool
	told    func(kind string) // of each event that is new; never nil
	rate    meter
	own     *lru.Cache[toldKey, struct{}] // what managers told, so that what another one repeats is told once
}

// meter counts what comes in a second.
type meter struct {
	second atomic.Int64 // the current one, since 1970
	n      atomic.Int64 // in it so far
	last   atomic.Int64 // in the one before
}

// add counts one. Those that come while a second ends may be counted in either.
func (m *meter) add(now time.Time) {
	if at, was := now.Unix(), m.second.Load(); at != was && m.second.CompareAndSwap(was, at) {
		n := m.n.Swap(0)
		if at != was+1 {
			n = 0
		}
		m.last.Store(n)
	}
	m.n.Add(1)
}

// rate is how many came in the last whole second, or in this one if that is more already.
func (m *meter) rate(now time.Time) int {
	switch now.Unix() - m.second.Load() {
	case 0:
		return int(max(m.last.Load(), m.n.Load()))
	case 1:
		return int(m.n.Load())
	}
	return 0
}

type reader struct {
	ch   chan fleet.Event
	once sync.Once
}

func (r *reader) close() { r.once.Do(func() { close(r.ch) }) }

func newHub(size int, told func(kind string)) *hub {
	if told == nil {
		told = func(string) {}
	}
	size = max(size, 256)
	own, _ := lru.New[toldKey, struct{}](size) // fails for no size only
	return &hub{size: size, readers: map[*reader]struct{}{}, told: told, own: own}
}

// publish hands one event to all readers, never waiting for any.
func (h *hub) publish(ev fleet.Event) {
	h.rate.add(time.Now())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	ev.Seq = h.seq
	if len(h.ring) < h.size {
		h.ring = append(h.ring, ev)
	} else {
		h.ring[h.next] = ev
		h.next = (h.next + 1) % h.size
	}
	if ev.Replay {
		return
	}
	h.told(ev.Type)
	for r := range h.readers {
		select {
		case r.ch <- ev:
		default:
			h.cut++
			delete(h.readers, r)
			r.close()
		}
	}
}

func (h *hub) stats() (readers, behind, cut int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.readers {
		behind = max(behind, len(r.ch))
	}
	return len(h.readers), behind, h.cut
}

func (h *hub) subscribe(ctx context.Context) ([]fleet.Event, <-chan fleet.Event) {
	r := &reader{ch: make(chan fleet.Event, readerQueue)}
	h.mu.Lock()
	defer h.mu.Unlock()
	backlog := append(append(make([]fleet.Event, 0, len(h.ring)), h.ring[h.next:]...), h.ring[:h.next]...)
	if h.closed {
		r.close()
		return backlog, r.ch
	}
	h.readers[r] = struct{}{}
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.readers, r)
		r.close()
	})
	return backlog, r.ch
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for r := range h.readers {
		delete(h.readers, r)
		r.close()
	}
}

// memberEvent is an event about a node as a member of the fleet, of Swarm mode's type.
func memberEvent(n *fleet.Node, action, reason string, more map[string]string) fleet.Event {
	a := map[string]string{"name": n.Name, "reason": reason}
	for k, v := range more {
		a[k] = v
	}
	return ownEvent(n, "node", action, n.ObjectID(), a, time.Now())
}

// ownEvent makes an event of the fleet's own, in the shape of an engine's.
func ownEvent(n *fleet.Node, kind, action, actor string, attributes map[string]string, at time.Time) fleet.Event {
	a := map[string]string{fleet.LabelNode: n.Name, "node.name": n.Name, "node.id": n.ID, "node.addr": n.Addr, "node.ip": n.IP}
	for k, v := range attributes {
		if v != "" {
			a[k] = v
		}
	}
	all := json.RawMessage(rawjson.Encode(a))
	raw := rawjson.Encode(map[string]any{
		"status": action, "id": actor, "from": "berth", "Type": kind, "Action": action, "scope": "local",
		"Actor": map[string]any{"ID": actor, "Attributes": all},
		"time":  at.Unix(), "timeNano": at.UnixNano(),
		"node": map[string]string{"Name": n.Name, "Id": n.ID, "Addr": n.Addr, "Ip": n.IP},
	})
	return fleet.Event{NodeID: n.ID, Node: n.Name, Type: kind, Action: action, ActorID: actor, Attributes: all, Scope: "local", TimeNano: at.UnixNano(), Raw: raw}
}

// addrHost is the host of an address, and addrWord the whole of it, in characters that a node name may have.
func addrHost(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return addrWord(host)
	}
	return addrWord(addr)
}

func addrWord(addr string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '.', r == '_':
			return r
		}
		return '-'
	}, addr), "-")
}
