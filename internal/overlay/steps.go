package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// joinsAtOnce bounds how many nodes join at a time.
const joinsAtOnce = 8

// do goes the steps, the joins at once and the others in turn. It tells whether something was done.
func (k *Keeper) do(ctx context.Context, p *picture, steps []step) (done bool) {
	var joins, others []step
	for _, s := range steps {
		switch s.kind {
		case join, rejoin:
			joins = append(joins, s)
		default:
			others = append(others, s)
		}
	}
	for _, s := range others {
		done = k.step(ctx, p, s) == nil || done
	}
	joins = slices.DeleteFunc(joins, func(s step) bool {
		t := k.memo.tries[s.node.ID]
		return t != nil && p.now.Before(t.again)
	})
	errs := make([]error, len(joins))
	var wg sync.WaitGroup
	slots := make(chan struct{}, joinsAtOnce)
	for i, s := range joins {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = k.step(ctx, p, s)
		})
	}
	wg.Wait()
	for i, s := range joins {
		k.memo.note(s.node, errs[i], p.now, k.o.RetryMin, k.o.RetryMax)
		done = done || errs[i] == nil
	}
	return done
}

// note remembers whether a node could join.
func (m *memo) note(n *fleet.Node, err error, now time.Time, least, most time.Duration) {
	if err == nil {
		delete(m.tries, n.ID)
		delete(m.reasons, n.ID)
		return
	}
	t := m.tries[n.ID]
	if t == nil {
		t = &try{wait: least}
		m.tries[n.ID] = t
	}
	t.again, t.wait = now.Add(t.wait), min(2*t.wait, most)
	m.reasons[n.ID] = err.Error()
}

func (k *Keeper) step(ctx context.Context, p *picture, s step) error {
	err := k.check(ctx)
	if err == nil {
		switch s.kind {
		case form:
			err = k.form(ctx, s.node)
		case join:
			err = k.join(ctx, p.cluster, s.node)
		case rejoin:
			err = k.rejoin(ctx, p.cluster, s.node)
		case label:
			err = k.label(ctx, p.cluster, s.node, s.member)
		case promote:
			err = k.role(ctx, p.cluster, s.member, swarm.NodeRoleManager)
		case demote:
			err = k.role(ctx, p.cluster, s.member, swarm.NodeRoleWorker)
		case remove:
			err = k.remove(ctx, p.cluster, s.member)
		}
	}
	switch {
	case err == nil && s.kind != label:
		k.o.Log.Info("overlay networks: "+s.String(), "because", s.why)
	case err != nil && ctx.Err() == nil:
		k.o.Log.Warn("overlay networks: "+s.String()+" did not work", "error", err)
	}
	return err
}

const (
	swarmPort  = "2377"
	subnetSize = 24
)

// initRequest and joinRequest are the bodies with what we say; engines fill in the rest.
type initRequest struct {
	ListenAddr      string
	AdvertiseAddr   string         `json:",omitempty"`
	DataPathAddr    string         `json:",omitempty"`
	ForceNewCluster bool           `json:",omitempty"`
	DefaultAddrPool []netip.Prefix `json:",omitempty"`
	SubnetSize      uint32         `json:",omitempty"`
	Spec            struct {
		Name   string            `json:",omitempty"`
		Labels map[string]string `json:",omitempty"`
	}
}

type joinRequest struct {
	ListenAddr    string
	AdvertiseAddr string `json:",omitempty"`
	DataPathAddr  string `json:",omitempty"`
	RemoteAddrs   []string
	JoinToken     string
}

// advertised is the address that a node gives the others. One that is only its own computer's leaves the choice to the engine.
func advertised(n *fleet.Node) string {
	ip, err := netip.ParseAddr(n.IP)
	if err != nil || ip.IsLoopback() {
		return ""
	}
	return ip.String()
}

func listening(n *fleet.Node) string {
	if ip, err := netip.ParseAddr(n.IP); err == nil && ip.Is6() && !ip.Is4In6() {
		return "[::]:" + swarmPort
	}
	return "0.0.0.0:" + swarmPort
}

// form begins the cluster on a node.
func (k *Keeper) form(ctx context.Context, n *fleet.Node) error {
	set := k.settings()
	r := initRequest{ListenAddr: listening(n), AdvertiseAddr: advertised(n), DataPathAddr: set.DataInterface}
	pool, err := k.pool(set)
	if err != nil {
		return err
	}
	if pool.IsValid() {
		r.DefaultAddrPool, r.SubnetSize = []netip.Prefix{pool}, subnetSize
	}
	r.Spec.Name, r.Spec.Labels = "default", set.labels()
	if err := k.eng.Exchange(ctx, joinLimit, n, http.MethodPost, "/swarm/init", nil, r, nil); err != nil {
		return err
	}
	return k.see(ctx, n)
}

// see waits for the picture to show a node as it is now.
func (k *Keeper) see(ctx context.Context, n *fleet.Node) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return errors.Join(k.o.Fleet.RefreshInfo(ctx, n.ID), k.o.Fleet.Refresh(ctx, n.ID, fleet.KindNetwork, ""))
}

// pools are where subnets may come from: what people use least first.
var pools = []string{"10.192.0.0/12", "10.208.0.0/12", "10.224.0.0/12", "10.176.0.0/12", "10.160.0.0/12", "10.96.0.0/12", "172.24.0.0/13", "192.168.128.0/17"}

// pool is the first that no host has an address or a network in.
func (k *Keeper) pool(set Settings) (netip.Prefix, error) {
	if set.Pool != "" {
		return netip.ParsePrefix(set.Pool)
	}
	for _, text := range pools {
		pool := netip.MustParsePrefix(text)
		if !slices.ContainsFunc(k.o.Fleet.Snapshot().Nodes(), func(n *fleet.Node) bool { return occupied(n, pool) }) {
			return pool, nil
		}
	}
	return netip.Prefix{}, nil
}

func occupied(n *fleet.Node, pool netip.Prefix) bool {
	if ip, err := netip.ParseAddr(n.IP); err == nil && pool.Contains(ip.Unmap()) {
		return true
	}
	return slices.ContainsFunc(n.Networks, func(w *fleet.Network) bool {
		return w.Scope == "local" && slices.ContainsFunc(w.Subnets(), pool.Overlaps)
	})
}

// join has a node join the cluster, as a worker: who becomes a manager is decided by who is there.
func (k *Keeper) join(ctx context.Context, c *cluster, n *fleet.Node) error {
	var s swarm.Swarm
	if err := k.eng.Exchange(ctx, callLimit, c.speaker, http.MethodGet, "/swarm", nil, nil, &s); err != nil {
		return err
	}
	r := joinRequest{ListenAddr: listening(n), AdvertiseAddr: advertised(n), DataPathAddr: k.settings().DataInterface, JoinToken: s.JoinTokens.Worker}
	for _, m := range c.members {
		if m.ManagerStatus != nil && m.ManagerStatus.Reachability == swarm.ReachabilityReachable {
			r.RemoteAddrs = append(r.RemoteAddrs, m.ManagerStatus.Addr)
		}
	}
	if len(r.RemoteAddrs) == 0 {
		r.RemoteAddrs = []string{net.JoinHostPort(c.speaker.IP, swarmPort)}
	}
	if err := k.eng.Exchange(ctx, joinLimit, n, http.MethodPost, "/swarm/join", nil, r, nil); err != nil {
		return err
	}
	if err := k.see(ctx, n); err != nil {
		return err
	}
	now, ok := k.o.Fleet.Snapshot().Node(n.ID)
	if !ok || !now.Swarm.Active() {
		return fmt.Errorf("it is %s still, the engine goes on trying", now.Swarm.State)
	}
	var m swarm.Node
	if err := k.eng.Exchange(ctx, callLimit, c.speaker, http.MethodGet, "/nodes/"+now.Swarm.NodeID, nil, nil, &m); err != nil {
		return err
	}
	return k.label(ctx, c, now, m)
}

// label writes on the cluster's entry of a node whose it is.
func (k *Keeper) label(ctx context.Context, c *cluster, n *fleet.Node, m swarm.Node) error {
	spec := m.Spec
	spec.Labels = maps.Clone(spec.Labels)
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	spec.Labels[labelNode], spec.Labels[labelAddr] = n.Name, n.Addr
	return k.update(ctx, c, m, spec)
}

func (k *Keeper) role(ctx context.Context, c *cluster, m swarm.Node, r swarm.NodeRole) error {
	spec := m.Spec
	spec.Role = r
	return k.update(ctx, c, m, spec)
}

func (k *Keeper) update(ctx context.Context, c *cluster, m swarm.Node, spec swarm.NodeSpec) error {
	q := url.Values{"version": {strconv.FormatUint(m.Version.Index, 10)}}
	return k.eng.Exchange(ctx, callLimit, c.speaker, http.MethodPost, "/nodes/"+m.ID+"/update", q, spec, nil)
}

// remove takes an entry away. One that is gone counts as removed.
func (k *Keeper) remove(ctx context.Context, c *cluster, m swarm.Node) error {
	err := k.eng.Exchange(ctx, callLimit, c.speaker, http.MethodDelete, "/nodes/"+m.ID, url.Values{"force": {"1"}}, nil, nil)
	if enginecall.IsStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// rejoin has a node leave what it believes to be in, join, and connects its containers again as they were.
func (k *Keeper) rejoin(ctx context.Context, c *cluster, n *fleet.Node) error {
	places, err := k.places(ctx, n)
	if err != nil {
		return err
	}
	if err := k.quit(ctx, n); err != nil {
		return err
	}
	if err := k.join(ctx, c, n); err != nil {
		return err
	}
	return k.reconnect(ctx, n, places)
}

// quit has a node leave its swarm. One that is in none has left.
func (k *Keeper) quit(ctx context.Context, n *fleet.Node) error {
	err := k.eng.Exchange(ctx, joinLimit, n, http.MethodPost, "/swarm/leave", url.Values{"force": {"1"}}, nil, nil)
	if err != nil && !enginecall.IsStatus(err, http.StatusServiceUnavailable) {
		return err
	}
	return k.see(ctx, n)
}
