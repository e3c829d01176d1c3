package overlay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// place is a container's place in an overlay network, as it was asked for.
type place struct {
	container, network string
	config             endpoint
}

// endpoint is what of such a place can be asked for again.
type endpoint struct {
	IPAMConfig json.RawMessage   `json:",omitempty"`
	Links      []string          `json:",omitempty"`
	Aliases    []string          `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
	GwPriority int               `json:",omitempty"`
}

// places are those of the running containers of a node. An engine that leaves a swarm takes them away; those of stopped containers
// are kept by name.
func (k *Keeper) places(ctx context.Context, n *fleet.Node) ([]place, error) {
	now, ok := k.o.Fleet.Snapshot().Node(n.ID)
	if !ok {
		return nil, nil
	}
	var all []place
	for _, c := range now.Containers {
		if !c.Running() || !slices.ContainsFunc(c.Networks, func(a fleet.Attachment) bool { return fleet.IsSwarmNetworkID(a.NetworkID) }) {
			continue
		}
		var is struct {
			NetworkSettings struct {
				Networks map[string]struct {
					endpoint
					NetworkID string
				}
			}
		}
		err := k.eng.Exchange(ctx, callLimit, n, http.MethodGet, "/containers/"+c.ID+"/json", nil, nil, &is)
		if enginecall.IsStatus(err, http.StatusNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(is.NetworkSettings.Networks)) {
			at := is.NetworkSettings.Networks[name]
			if !fleet.IsSwarmNetworkID(at.NetworkID) {
				continue
			}
			if at.DriverOpts[fleet.OptionAddress] == "" {
				at.IPAMConfig = nil // chosen by the swarm
			}
			at.Aliases = slices.DeleteFunc(at.Aliases, func(a string) bool { return len(a) >= 12 && strings.HasPrefix(c.ID, a) })
			all = append(all, place{c.ID, name, at.endpoint})
		}
	}
	return all, nil
}

// A node that has just joined may not know the networks yet.
const (
	reconnectLimit = 30 * time.Second
	reconnectEvery = 500 * time.Millisecond
)

// reconnect gives containers their places back.
func (k *Keeper) reconnect(ctx context.Context, n *fleet.Node, places []place) error {
	ctx, cancel := context.WithTimeout(ctx, reconnectLimit*time.Duration(1+len(places)/8))
	defer cancel()
	var failed []error
	for _, p := range places {
		for {
			err := k.eng.Exchange(ctx, reconnectLimit, n, http.MethodPost, "/networks/"+p.network+"/connect", nil,
				map[string]any{"Container": p.container, "EndpointConfig": p.config}, nil)
			if err == nil || enginecall.IsStatus(err, http.StatusForbidden) { // 403: it is there already
				break
			}
			select {
			case <-time.After(reconnectEvery):
				continue
			case <-ctx.Done():
				failed = append(failed, fmt.Errorf("connect container %.12s to network %s again: %w", p.container, p.network, err))
			}
			break
		}
	}
	if len(places) > 0 {
		k.o.Log.Info("overlay networks: containers were connected again", "node", n.Name, "places", len(places), "failed", len(failed))
	}
	return errors.Join(failed...)
}
