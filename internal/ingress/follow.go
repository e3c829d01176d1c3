package ingress

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/internal/fleet"
)

// Follow brings what is open here to what the snapshot and the starts under way say. It is quick, and waits for nobody.
func (i *Ingress) Follow() {
	i.mu.Lock()
	defer i.mu.Unlock()
	s, now := i.o.Fleet.Snapshot(), time.Now()
	again := len(*i.hindered.Load()) > 0 && now.Sub(i.tried) >= i.o.Timing.Retry
	if i.ctx == nil || s.Version() == i.version && !again && len(i.holds) == 0 {
		return
	}
	i.follow(s, now)
}

// follow is Follow, whether or not anything changed. The caller holds mu.
func (i *Ingress) follow(s *fleet.Snapshot, now time.Time) {
	i.version, i.tried = s.Version(), now
	i.look(s)
	i.expire(s, now)
	best, hindered := i.decide()
	for k, f := range i.open {
		if _, wanted := best[k]; !wanted {
			f.close()
			delete(i.open, k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(best), compareKeys) {
		w := best[k]
		f, is := i.open[k]
		if v4, both := best[key{k.proto, ipv4(k)}]; both && v4.owner.id == w.owner.id && k.addr.Addr() == netip.IPv6Unspecified() && i.open[v4.key] == nil {
			if is {
				f.close() // half a port would lead by one family to the container, and by the other to somebody else
				delete(i.open, k)
			}
			add(hindered, w, sameInIPv4)
			continue
		}
		if is {
			f.lead(w)
			continue
		}
		f, err := i.listen(w)
		if err == nil {
			i.open[k] = f
			continue
		}
		if reason := i.whyNot(w, err); reason != "" {
			add(hindered, w, reason)
		}
	}
	i.tell(hindered)
	i.hindered.Store(&hindered)
}

// look notes what the containers of the nodes that changed want.
func (i *Ingress) look(s *fleet.Snapshot) {
	nodes := s.Nodes()
	for _, n := range nodes {
		if w, known := i.wants[n.ID]; !known || w.node != n || w.reaches != i.o.Fleet.Reaches(n.ID) {
			i.wants[n.ID] = i.wanted(n)
		}
	}
	if len(i.wants) == len(nodes) {
		return
	}
	for id := range i.wants {
		if _, there := s.Node(id); !there {
			delete(i.wants, id)
		}
	}
}

// decide says to whom each port leads. Where several want one: a node that answers before one that does not, then who has it, who is
// being started, and who is older.
func (i *Ingress) decide() (map[key]want, map[string][]fleet.Hindrance) {
	best, hindered := map[key]want{}, map[string][]fleet.Hindrance{}
	var losers []want
	consider := func(w want) {
		is, taken := best[w.key]
		switch {
		case !taken || is.owner.id == w.owner.id:
			best[w.key] = w
		case i.before(w, is):
			best[w.key], losers = w, append(losers, is)
		default:
			losers = append(losers, w)
		}
	}
	for h := range i.holds {
		for _, w := range h.wants {
			consider(w)
		}
	}
	for _, n := range i.wants {
		for _, w := range n.wants {
			consider(w)
		}
		for _, l := range n.lost {
			hindered[l.owner.id] = append(hindered[l.owner.id], l.Hindrance)
		}
	}
	for _, w := range losers {
		if is := best[w.key].owner; is.id != w.owner.id {
			add(hindered, w, "it leads to container "+is.name+" on node "+is.node)
		}
	}
	return best, hindered
}

func (i *Ingress) before(a, b want) bool {
	has := func(w want) bool {
		f := i.open[w.key]
		return f != nil && f.owner().id == w.owner.id
	}
	for _, test := range []func(want) bool{func(w want) bool { return w.owner.well }, has, func(w want) bool { return !w.owner.held }} {
		if x, y := test(a), test(b); x != y {
			return x
		}
	}
	if d := cmp.Compare(a.owner.since, b.owner.since); d != 0 {
		return d < 0
	}
	return a.owner.id < b.owner.id
}

const sameInIPv4 = "the same port of IPv4 is not to be had"

func compareKeys(a, b key) int {
	return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.proto, b.proto))
}

// hindrance says that a port does not answer here. Where it does is its node, if that has it on all addresses.
func hindrance(w want, reason string) fleet.Hindrance {
	h := fleet.Hindrance{Port: w.port, Reason: reason}
	if ip, err := netip.ParseAddr(w.port.HostIP); !w.route.tunnel && (err != nil || ip.IsUnspecified()) {
		if at, err := netip.ParseAddrPort(w.route.addr); err == nil {
			h.Elsewhere = at.Addr().String()
		}
	}
	return h
}

func add(hindered map[string][]fleet.Hindrance, w want, reason string) {
	all := hindered[w.owner.id]
	if !slices.ContainsFunc(all, func(o fleet.Hindrance) bool { return o.Port == w.port }) {
		hindered[w.owner.id] = append(all, hindrance(w, reason))
	}
}

// whyNot puts into words why a port could not be had; "" where that is as it should be.
func (i *Ingress) whyNot(w want, err error) string {
	six := w.addr.Addr().Is6()
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && w.local:
		return ""
	case six && w.addr.Addr().IsUnspecified() && i.covered(w):
		return "" // where IPv4 answers, a missing IPv6 is no reason to complain
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program has it on this computer"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "ports below 1024 of this computer are for root: give berth CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this computer has no such address"
	}
	return err.Error()
}

// covered tells whether the same port leads to the same container by IPv4.
func (i *Ingress) covered(w want) bool {
	f := i.open[key{w.proto, ipv4(w.key)}]
	return f != nil && f.owner().id == w.owner.id
}

// ipv4 is the same port of all IPv4 addresses.
func ipv4(k key) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), k.addr.Port()) }

// tell logs what is new among the ports that do not answer here, once.
func (i *Ingress) tell(hindered map[string][]fleet.Hindrance) {
	said := map[string]string{}
	for id, all := range hindered {
		for _, h := range all {
			k := strings.Join([]string{id, h.Proto, strconv.Itoa(int(h.HostPort))}, " ")
			if h.Reason == sameInIPv4 {
				continue
			}
			said[k] = h.Reason
			if i.said[k] != h.Reason {
				i.o.Log.Info("a published port does not answer on this computer", "container", id[:min(len(id), 12)], "port", h.HostPort, "proto", h.Proto, "reason", h.Reason)
			}
		}
	}
	i.said = said
}

// Hindered are the ports of a container that do not answer here, and where they do.
func (i *Ingress) Hindered(id string) []fleet.Hindrance { return (*i.hindered.Load())[id] }
