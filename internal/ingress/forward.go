package ingress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
)

// forward is one open port. What it leads to may change while it is open.
type forward struct {
	i    *Ingress
	key  key
	stop context.CancelFunc
	to   atomic.Pointer[target]
	// shut closes the socket.
	shut func() error
}

// target is where a forward leads. Its context ends when it leads somewhere else, and with it what goes there.
type target struct {
	want
	ctx    context.Context //nolint:containedctx // of all that was forwarded to it
	cancel context.CancelFunc
}

// listen opens a port and forwards what comes. The caller holds mu.
func (i *Ingress) listen(w want) (*forward, error) {
	ctx, cancel := context.WithCancel(i.ctx)
	f := &forward{i: i, key: w.key, stop: cancel}
	f.aim(ctx, w)
	network, addr := w.network(), w.addr.String()
	var lc net.ListenConfig
	if w.proto == "udp" {
		pc, err := lc.ListenPacket(ctx, network, addr)
		if err != nil {
			cancel()
			return nil, err
		}
		u, ok := pc.(*net.UDPConn)
		if !ok {
			cancel()
			_ = pc.Close() // it was just opened, and has nothing
			return nil, fmt.Errorf("unexpected packet connection %T", pc)
		}
		f.shut = u.Close
		i.wg.Go(func() { f.serveUDP(ctx, u) })
		return f, nil
	}
	l, err := lc.Listen(ctx, network, addr)
	if err != nil {
		cancel()
		return nil, err
	}
	f.shut = l.Close
	i.wg.Go(func() { f.serveTCP(ctx, l) })
	return f, nil
}

// network is the key's for package net: one family only, as with an engine.
func (k key) network() string {
	if k.addr.Addr().Is4() {
		return k.proto + "4"
	}
	return k.proto + "6"
}

// probe opens a port and closes it again.
func probe(k key) error {
	var lc net.ListenConfig
	ctx := context.Background() // nothing is waited for: there are no names in it
	if k.proto == "udp" {
		c, err := lc.ListenPacket(ctx, k.network(), k.addr.String())
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := lc.Listen(ctx, k.network(), k.addr.String())
	if err != nil {
		return err
	}
	return l.Close()
}

func (f *forward) aim(ctx context.Context, w want) {
	t := &target{want: w}
	t.ctx, t.cancel = context.WithCancel(ctx)
	if was := f.to.Swap(t); was != nil {
		was.cancel()
	}
}

func (f *forward) owner() owner { return f.to.Load().owner }

// lead has the port lead elsewhere, if it is elsewhere. Connections to where it led until now end.
func (f *forward) lead(w want) {
	is := f.to.Load()
	if is.owner == w.owner && is.route == w.route {
		return
	}
	if is.owner.id == w.owner.id && is.route == w.route {
		f.to.Store(&target{w, is.ctx, is.cancel})
		return
	}
	f.aim(f.i.ctx, w)
}

// close closes the port and ends what goes through it.
func (f *forward) close() {
	f.stop()
	f.to.Load().cancel()
	if err := f.shut(); err != nil {
		f.i.o.Log.Debug("close port", "port", f.key.String(), "error", err)
	}
}

// dial connects to where the port leads now.
func (t *target) dial(i *Ingress) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, i.o.Timing.Dial)
	defer cancel()
	if t.route.tunnel {
		return i.o.Fleet.Reach(ctx, t.route.nodeID, t.route.addr)
	}
	return dialer.DialContext(ctx, t.proto, t.route.addr)
}

// udpAddr is where the port leads, for datagrams.
func (t *target) udpAddr() (netip.AddrPort, error) { return netip.ParseAddrPort(t.route.addr) }
