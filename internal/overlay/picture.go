package overlay

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// picture is what one round sees.
type picture struct {
	now     time.Time
	nodes   []*fleet.Node // of the fleet, by name
	cluster *cluster      // the one that carries the networks; nil if there is none
	// headless are healthy nodes that are in a cluster of which no manager answers.
	headless []*fleet.Node
}

// cluster is one Swarm-mode cluster.
type cluster struct {
	id       string // "" if no manager says it: they have no quorum
	ours     bool
	labels   map[string]string
	managers []*fleet.Node // of the fleet, healthy
	speaker  *fleet.Node   // that answered for it; nil if none did
	members  []swarm.Node  // as the speaker lists them
	refused  bool          // a manager answered that it cannot
}

// quorum tells whether the cluster can be changed.
func (c *cluster) quorum() bool {
	if c.speaker == nil {
		return false
	}
	reachable, all := c.reachable()
	return 2*reachable > all
}

func (c *cluster) reachable() (reachable, all int) {
	for _, m := range c.members {
		if m.ManagerStatus == nil {
			continue
		}
		all++
		if m.ManagerStatus.Reachability == swarm.ReachabilityReachable {
			reachable++
		}
	}
	return reachable, all
}

// member is the cluster's entry of a node of the fleet.
func (c *cluster) member(n *fleet.Node) (swarm.Node, bool) {
	for _, m := range c.members {
		if m.ID == n.Swarm.NodeID && n.Swarm.NodeID != "" {
			return m, true
		}
	}
	return swarm.Node{}, false
}

// knows tells whether an engine that says to be in a cluster means this one.
func (c *cluster) knows(n *fleet.Node) bool {
	ids := map[string]bool{}
	for _, m := range c.managers {
		ids[m.Swarm.NodeID] = true
	}
	for _, m := range c.members {
		if m.Spec.Role == swarm.NodeRoleManager {
			ids[m.ID] = true
		}
	}
	return slices.ContainsFunc(append([]string{n.Swarm.NodeID}, n.Swarm.Managers...), func(id string) bool { return ids[id] })
}

// healthy are the nodes that answer.
func (p *picture) healthy() []*fleet.Node {
	return slices.DeleteFunc(slices.Clone(p.nodes), func(n *fleet.Node) bool { return n.State != fleet.Healthy })
}

// look sees what there is. Only engines of whom something may be new are asked.
func (k *Keeper) look(ctx context.Context, now time.Time) *picture {
	k.refresh(ctx, now)
	snap := k.o.Fleet.Snapshot()
	p := &picture{now: now, nodes: snap.Nodes()}
	p.cluster = pick(clusters(p.healthy()), snap)
	if c := p.cluster; c != nil {
		for _, m := range c.managers {
			var members []swarm.Node
			if err := k.eng.Exchange(ctx, callLimit, m, http.MethodGet, "/nodes", nil, nil, &members); err != nil {
				c.refused = c.refused || enginecall.Refused(err)
				k.o.Log.Debug("a swarm manager does not answer for its cluster", "node", m.Name, "error", err)
				continue
			}
			c.speaker, c.members = m, members
			break
		}
		return p
	}
	for _, n := range p.healthy() {
		if n.Swarm.Active() || n.Swarm.State == "pending" && len(n.Swarm.Managers) > 0 {
			p.headless = append(p.headless, n)
		}
	}
	return p
}

// asked bounds how many engines are asked at a time.
const asked = 16

// refresh asks the managers of clusters, and the nodes that are in none or not well, what they are now.
func (k *Keeper) refresh(ctx context.Context, now time.Time) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, asked)
	for _, n := range k.o.Fleet.Snapshot().Nodes() {
		t := k.memo.tries[n.ID]
		waits := t != nil && now.Before(t.again)
		if n.State != fleet.Healthy || n.NoOverlay != "" || waits || n.Swarm.Active() && !n.Swarm.Manager && !k.memo.doubtful(n) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, callLimit)
			defer cancel()
			if err := k.o.Fleet.RefreshInfo(ctx, n.ID); err != nil && ctx.Err() == nil {
				k.o.Log.Debug("an engine does not say whether it is in a swarm", "node", n.Name, "error", err)
			}
		})
	}
	wg.Wait()
}

// doubtful tells whether something was amiss with an active node.
func (m *memo) doubtful(n *fleet.Node) bool {
	_, is := m.since["stray "+n.ID]
	return is || m.reasons[n.ID] != ""
}

// clusters gathers the nodes by the clusters that they manage.
func clusters(nodes []*fleet.Node) []*cluster {
	var all []*cluster
	for _, n := range nodes {
		if !n.Swarm.Manager || !n.Swarm.Active() {
			continue
		}
		i := slices.IndexFunc(all, func(c *cluster) bool { return c.id == n.Swarm.Cluster })
		if i < 0 {
			all = append(all, &cluster{id: n.Swarm.Cluster, labels: n.Swarm.Labels, ours: n.Swarm.Labels[labelOurs] != ""})
			i = len(all) - 1
		}
		all[i].managers = append(all[i].managers, n)
	}
	return all
}

// pick chooses the cluster to use: berth's own, then the one that most nodes are in, and one without a quorum last.
func pick(all []*cluster, snap *fleet.Snapshot) *cluster {
	if len(all) == 0 {
		return nil
	}
	size := map[*cluster]int{}
	for _, c := range all {
		managers := snap.SwarmManagers(c.id)
		for _, n := range snap.Nodes() {
			if n.Swarm.In(managers) {
				size[c]++
			}
		}
	}
	rank := func(c *cluster) int {
		switch {
		case c.ours:
			return 0
		case c.id != "":
			return 1
		}
		return 2
	}
	return slices.MinFunc(all, func(a, b *cluster) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(size[b], size[a]), cmp.Compare(a.id, b.id))
	})
}
