package overlay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/enginecall"
	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// refusal is why a command is not carried out.
type refusal struct{ message string }

func (r *refusal) Error() string { return r.message }

// Unavailable makes it errdefs.ErrUnavailable.
func (r *refusal) Unavailable() {}

// conflict is a refusal that --force overrules.
type conflict struct{ message string }

func (c *conflict) Error() string { return c.message }

// Conflict makes it errdefs.ErrConflict.
func (c *conflict) Conflict() {}

// begin lets one command act at a time, in the manager that acts at all.
func (k *Keeper) begin(ctx context.Context) (end func(), err error) {
	k.mu.Lock()
	running := k.running
	k.mu.Unlock()
	if !running {
		return nil, &refusal{"overlay networks are kept by another manager, or this one has just begun; try again"}
	}
	if err := k.enter(ctx); err != nil {
		return nil, err
	}
	return func() {
		k.leave()
		k.nudge()
	}, nil
}

// Up has the cluster formed, from now on. It returns at once; Status shows how far it is. nil leaves the settings.
func (k *Keeper) Up(ctx context.Context, set *Settings) error {
	end, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.want = on
	if set != nil {
		k.set, k.said = *set, true
	}
	k.status.On = true
	if k.status.State == "off" {
		k.status.State = "waiting"
	}
	k.memo = newMemo()
	return nil
}

// Down takes the cluster down that berth formed, or takes the fleet's nodes out of another one that they joined.
func (k *Keeper) Down(ctx context.Context, force bool) error {
	end, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	p := k.look(ctx, time.Now())
	if used := inUse(k.o.Fleet.Snapshot()); len(used) > 0 && !force {
		return &conflict{"overlay networks are in use: " + strings.Join(used, ", ") + "; stop these containers, or use --force, which disconnects them"}
	}
	k.mu.Lock()
	k.want = off
	k.mu.Unlock()
	var failed []error
	for _, n := range leaving(p) {
		if err := k.check(ctx); err != nil {
			return err
		}
		if err := k.quit(ctx, n); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Release takes a lost node's entry away, and with it what the cluster keeps for it: the addresses of its containers. When the node is
// back it joins anew.
func (k *Keeper) Release(ctx context.Context, nodeID, addr string) error {
	end, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	p := k.look(ctx, time.Now())
	c := p.cluster
	if c == nil || !c.quorum() {
		return &refusal{"nobody answers for the swarm"}
	}
	for _, m := range c.members {
		i := slices.IndexFunc(p.nodes, func(n *fleet.Node) bool { return n.Swarm.NodeID == m.ID })
		if m.Spec.Labels[labelAddr] != addr && (i < 0 || p.nodes[i].ID != nodeID) {
			continue
		}
		if i >= 0 && p.nodes[i].State == fleet.Healthy {
			return &refusal{"its node is back"}
		}
		if err := k.expel(ctx, c, m); err != nil {
			return err
		}
	}
	return nil
}

// expel removes an entry; a manager's is made a worker's first.
func (k *Keeper) expel(ctx context.Context, c *cluster, m swarm.Node) error {
	for {
		var err error
		if m.ManagerStatus != nil && m.Spec.Role == swarm.NodeRoleManager {
			err = k.role(ctx, c, m, swarm.NodeRoleWorker)
		} else if err = k.remove(ctx, c, m); err == nil {
			k.o.Log.Info("overlay networks: a lost node's entry was removed, to free its addresses", "node", memberName(m))
			return nil
		}
		select { // the managers have to agree on its going first
		case <-time.After(reconnectEvery):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
		var now swarm.Node
		err = k.eng.Exchange(ctx, callLimit, c.speaker, http.MethodGet, "/nodes/"+m.ID, nil, nil, &now)
		if enginecall.IsStatus(err, http.StatusNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		m = now
	}
}

// leaving are the nodes that are to leave, managers last.
func leaving(p *picture) []*fleet.Node {
	var all []*fleet.Node
	for _, n := range p.healthy() {
		c := p.cluster
		switch {
		case !n.Swarm.Active() && n.Swarm.State != "pending" && n.Swarm.State != "error":
		case c == nil: // its managers are gone, and nobody can tell whose it was
		case c.ours && (c.has(n) || c.knows(n)):
			all = append(all, n)
		default:
			if m, known := c.member(n); known && m.Spec.Labels[labelAddr] != "" {
				all = append(all, n)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *fleet.Node) int {
		rank := func(n *fleet.Node) int {
			if n.Swarm.Manager {
				return 1
			}
			return 0
		}
		return cmp.Compare(rank(a), rank(b))
	})
	return all
}

// inUse names the networks that containers run in.
func inUse(snap *fleet.Snapshot) []string {
	var used []string
	for _, w := range networks(snap) {
		if len(w.Containers) > 0 {
			used = append(used, w.Name+" by "+strings.Join(w.Containers, ", "))
		}
	}
	return used
}

// write keeps the settings as the cluster's labels. The rest of its specification stays as it is.
func (k *Keeper) write(ctx context.Context, c *cluster, set Settings) error {
	var is struct {
		Version struct{ Index uint64 }
		Spec    json.RawMessage
	}
	if err := k.eng.Exchange(ctx, callLimit, c.speaker, http.MethodGet, "/swarm", nil, nil, &is); err != nil {
		return err
	}
	spec, err := rawjson.ParseTrusted(is.Spec)
	if err != nil {
		return fmt.Errorf("node %s: the swarm's specification: %w", c.speaker.Name, err)
	}
	labels, err := spec.Object("Labels")
	if err != nil {
		return fmt.Errorf("node %s: the swarm's specification: %w", c.speaker.Name, err)
	}
	for _, key := range []string{labelEncrypted, labelMTU, labelData} {
		labels.Delete(key)
	}
	for key, v := range set.labels() {
		labels.Set(key, v)
	}
	spec.Set("Labels", labels)
	q := url.Values{"version": {strconv.FormatUint(is.Version.Index, 10)}}
	return k.eng.Exchange(ctx, callLimit, c.speaker, http.MethodPost, "/swarm/update", q, json.RawMessage(spec.Bytes()), nil)
}
