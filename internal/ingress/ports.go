package ingress

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/internal/fleet"
)

// key is a port of this computer. An unspecified address is all of its family.
type key struct {
	proto string
	addr  netip.AddrPort
}

func (k key) String() string { return k.addr.String() + "/" + k.proto }

// want is a port that a container has or is about to have.
type want struct {
	key
	port  fleet.Port // as its engine has it
	route route
	owner owner
	// local: the node may be this computer, reached over SSH. Who listens on the port is its engine then.
	local bool
}

// owner is who a port leads to.
type owner struct {
	id, name, node string
	well           bool // its node answers
	held           bool // it is being started
	since          int64
}

// route is how a published port is reached.
type route struct {
	nodeID string
	addr   string
	// tunnel: over the node's SSH connection.
	tunnel bool
}

// nodeWants is what the containers of a node as it was last seen want.
type nodeWants struct {
	node    *fleet.Node
	reaches bool
	wants   []want
	lost    []lost
}

// lost is a port that cannot be reached from here, and why.
type lost struct {
	owner owner
	fleet.Hindrance
}

// wanted lists the ports of a node's running containers.
func (i *Ingress) wanted(n *fleet.Node) nodeWants {
	w := nodeWants{node: n, reaches: i.o.Fleet.Reaches(n.ID)}
	if i.here(n) {
		return w
	}
	for _, c := range n.Containers {
		if len(c.Published) > 0 && c.Running() {
			i.addWants(&w, n, c, c.Published)
		}
	}
	return w
}

func (i *Ingress) addWants(w *nodeWants, n *fleet.Node, c *fleet.Container, ports []fleet.Port) {
	o := owner{id: c.ID, name: c.Name, node: n.Name, well: n.State == fleet.Healthy, since: c.Created}
	for _, p := range ports {
		if p.HostPort == 0 {
			continue
		}
		keys, ok := i.keys(p)
		if !ok {
			continue
		}
		r, why := i.route(n, p, w.reaches)
		if why != "" {
			w.lost = append(w.lost, lost{o, fleet.Hindrance{Port: p, Reason: why}})
			continue
		}
		for _, k := range keys {
			w.wants = append(w.wants, want{k, p, r, o, r.tunnel && isLoopback(n.IP)})
		}
	}
}

// keys are the ports here that stand for one there. It is false for a port on an address that belongs to the node alone: that one
// answers where the client wanted it.
func (i *Ingress) keys(p fleet.Port) ([]key, bool) {
	proto := p.Proto
	if proto == "" {
		proto = "tcp"
	}
	at := func(a netip.Addr) key { return key{proto, netip.AddrPortFrom(a, p.HostPort)} }
	if p.HostIP == "" {
		if i.o.Address.IsValid() {
			return []key{at(i.o.Address)}, true
		}
		return []key{at(netip.IPv4Unspecified()), at(netip.IPv6Unspecified())}, true
	}
	ip, err := netip.ParseAddr(p.HostIP)
	switch {
	case err != nil:
		return nil, false
	case ip.IsUnspecified() && i.o.Address.IsValid():
		return []key{at(i.o.Address)}, i.o.Address.Is4() == ip.Is4()
	case ip.IsUnspecified(), ip.IsLoopback():
		return []key{at(ip)}, true
	}
	return nil, false
}

// route is the way to a published port, or why there is none.
func (i *Ingress) route(n *fleet.Node, p fleet.Port, reaches bool) (r route, why string) {
	port := strconv.Itoa(int(p.HostPort))
	if p.Proto == "sctp" {
		return r, "SCTP is not forwarded"
	}
	ip, err := netip.ParseAddr(p.HostIP)
	everywhere := err != nil || ip.IsUnspecified()
	overSSH := strings.HasPrefix(n.Addr, "ssh://")
	switch {
	case p.Proto == "udp" && !everywhere:
		return r, "it is published on the loopback of node " + n.Name + ", which UDP does not reach from here"
	case p.Proto == "udp" && overSSH && isLoopback(n.IP):
		return r, "UDP does not go through SSH"
	case p.Proto == "udp" && n.IP != "":
		return route{n.ID, net.JoinHostPort(n.IP, port), false}, ""
	case !everywhere && reaches:
		return route{n.ID, net.JoinHostPort(p.HostIP, port), true}, ""
	case !everywhere:
		return r, "it is published on the loopback of node " + n.Name + ", where only SSH would lead"
	case overSSH && reaches:
		return route{n.ID, net.JoinHostPort("127.0.0.1", port), true}, ""
	case n.IP == "":
		return r, "the address of node " + n.Name + " is not known"
	}
	return route{n.ID, net.JoinHostPort(n.IP, port), false}, ""
}

// here tells whether the node's published ports are on this computer already.
func (i *Ingress) here(n *fleet.Node) bool {
	if strings.HasPrefix(n.Addr, "unix://") {
		return true
	}
	if isLoopback(n.IP) && strings.HasPrefix(n.Addr, "ssh://") {
		return false // that may lead anywhere
	}
	ip, err := netip.ParseAddr(n.IP)
	return err == nil && i.ours(ip)
}

func isLoopback(text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && ip.IsLoopback()
}

// ownAddresses are those of this computer's interfaces, asked again now and then.
type ownAddresses struct {
	mu    sync.Mutex
	asked time.Time
	all   map[netip.Addr]bool
}

const ownAddressesFor = 10 * time.Second

func (o *ownAddresses) has(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true // to forward from our loopback to our loopback would be a circle
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.asked) > ownAddressesFor {
		o.asked, o.all = time.Now(), map[netip.Addr]bool{}
		addrs, _ := net.InterfaceAddrs() // without them no node is taken for this computer, as with those of other computers
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				o.all[prefix.Addr().Unmap()] = true
			}
		}
	}
	return o.all[ip.Unmap()]
}
