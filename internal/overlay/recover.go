package overlay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// ForceNewCluster makes what is left of a cluster without a quorum able to decide again. A manager that answers goes on alone with all
// that it knows, and the others join it. Without one, the nodes leave, form another cluster, and the networks are made anew
// with the containers in them.
func (k *Keeper) ForceNewCluster(ctx context.Context) error {
	end, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	ctx = context.WithoutCancel(ctx) // what is half done is worse than both
	ctx, cancel := context.WithTimeout(ctx, recoverLimit)
	defer cancel()
	p := k.look(ctx, time.Now())
	c := p.cluster
	switch {
	case c != nil && c.quorum():
		return &refusal{"the swarm has its quorum: there is nothing to be forced"}
	case c == nil && len(p.headless) == 0:
		return &refusal{"no node that answers is in a swarm: berth overlay up forms one"}
	}
	if err := k.check(ctx); err != nil {
		return err
	}
	k.mu.Lock()
	k.want = on
	k.mu.Unlock()
	k.memo = newMemo()
	if c != nil {
		n := c.managers[0]
		places, err := k.places(ctx, n)
		if err != nil {
			return err
		}
		k.o.Log.Warn("overlay networks: a swarm manager goes on alone, as it was told to", "node", n.Name)
		if err := k.alone(ctx, n); err != nil {
			return err
		}
		return errors.Join(k.see(ctx, n), k.renew(ctx, n, places))
	}
	return k.anew(ctx, p.headless)
}

// alone has a manager begin a cluster of its own with what it knows. For that it waits for calls that still wait for the old one, and meanwhile an
// engine from 23.0 on answers no ping: its pings tell of the cluster. So one that is taken for lost may do it nevertheless.
func (k *Keeper) alone(ctx context.Context, n *fleet.Node) error {
	ctx, cancel := context.WithTimeout(ctx, 2*joinLimit)
	defer cancel()
	r := initRequest{ListenAddr: listening(n), AdvertiseAddr: advertised(n), DataPathAddr: k.settings().DataInterface, ForceNewCluster: true}
	err := k.eng.Exchange(ctx, joinLimit, n, http.MethodPost, "/swarm/init", nil, r, nil)
	if err == nil || enginecall.Refused(err) {
		return err
	}
	for {
		if k.see(ctx, n) == nil {
			if c := k.look(ctx, time.Now()).cluster; c != nil && c.quorum() {
				return nil
			}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%w; should it come back, berth overlay status tells what it did", err)
		}
	}
}

// renew takes containers out of their networks and brings them back: an engine that begins a cluster anew forgets the names of those
// that are in one.
func (k *Keeper) renew(ctx context.Context, n *fleet.Node, places []place) error {
	for _, p := range places {
		err := k.eng.Exchange(ctx, callLimit, n, http.MethodPost, "/networks/"+p.network+"/disconnect", nil, map[string]any{"Container": p.container, "Force": true}, nil)
		if err != nil && !enginecall.Refused(err) {
			return err
		}
		// One at a time, and each only when the one before is back.
		if err := k.reconnect(ctx, n, []place{p}); err != nil {
			return err
		}
	}
	return nil
}

const recoverLimit = 10 * time.Minute

// anew has nodes whose managers are gone form another cluster, with the same networks and places.
func (k *Keeper) anew(ctx context.Context, nodes []*fleet.Node) error {
	k.o.Log.Warn("overlay networks: no manager of the swarm is left: another is formed, and its networks are made anew, as it was told")
	wanted := k.bodies()
	places := map[string][]place{}
	for _, n := range nodes {
		var err error
		if places[n.ID], err = k.places(ctx, n); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := k.quit(ctx, n); err != nil {
			return err
		}
	}
	if err := k.form(ctx, nodes[0]); err != nil {
		return err
	}
	p := k.look(ctx, time.Now())
	if p.cluster == nil || !p.cluster.quorum() {
		return fmt.Errorf("node %s formed a swarm, and does not show it", nodes[0].Name)
	}
	var failed []error
	for _, body := range wanted {
		if err := k.eng.Exchange(ctx, callLimit, p.cluster.speaker, http.MethodPost, "/networks/create", nil, body, nil); err != nil {
			failed = append(failed, err)
		}
	}
	for _, n := range nodes[1:] {
		if err := k.join(ctx, p.cluster, n); err != nil {
			failed = append(failed, err)
		}
	}
	for _, n := range nodes {
		if err := k.reconnect(ctx, n, places[n.ID]); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// bodies are the creates of all overlay networks that were ever seen, also by nodes that are lost.
func (k *Keeper) bodies() []json.RawMessage {
	var all []json.RawMessage
	seen := map[string]bool{}
	for _, n := range k.o.Fleet.Snapshot().Nodes() {
		for _, w := range n.Networks {
			if !w.Spans() || w.Driver != "overlay" || seen[w.Name] {
				continue
			}
			if body := bodyOf(w); body != nil {
				seen[w.Name] = true
				all = append(all, body)
			}
		}
	}
	return all
}

// bodyOf makes a create of a network's row. What the swarm chose for it, but its subnets, is chosen anew.
func bodyOf(w *fleet.Network) json.RawMessage {
	row, err := rawjson.ParseTrusted(w.Row)
	if err != nil {
		return nil // it was read once, so this does not happen
	}
	o := new(rawjson.Object)
	for _, key := range []string{"Name", "Driver", "EnableIPv6", "IPAM", "Internal", "Labels"} {
		if row.Has(key) {
			o.SetRaw(key, row.Get(key))
		}
	}
	o.Set("Attachable", true)
	o.Set("CheckDuplicate", true)
	if options, err := row.Object("Options"); err == nil {
		options.Delete("com.docker.network.driver.overlay.vxlanid_list")
		o.Set("Options", options)
	}
	return o.Bytes()
}
