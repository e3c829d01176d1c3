package move

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
	"berth/internal/rawjson"
)

const (
	createLimit = 10 * time.Minute
	startLimit  = 3 * time.Minute // of a start, a stop and a removal, beside what the container may take to stop
	undoLimit   = 2 * time.Minute
)

// Recreation is what the new container has of its own.
type Recreation struct {
	Name   string            // "" is the old one's
	Image  string            // the reference to create it with; "" is the old one's
	Labels map[string]string // added
	API    string            // the newest version to speak
}

// Recreate makes, on a node, a container as the one that was inspected: the same configuration, name, labels (so its Swarm ID)
// and networks. It is not started. The node must have the image. If it cannot be completed, what was made of it is removed.
func Recreate(ctx context.Context, engines enginecall.Engines, inspection []byte, to *fleet.Node, o Recreation) (id string, err error) {
	c, err := parse(inspection)
	if err != nil {
		return "", err
	}
	return newCaller(engines, o.API).recreate(ctx, c, to, o)
}

// Body is that of the create which makes the container that was inspected, as Recreate would.
func Body(inspection []byte) ([]byte, error) {
	c, err := parse(inspection)
	if err != nil {
		return nil, err
	}
	return c.body(Recreation{})
}

// FixedAddresses names the networks across hosts in which the container was given an address.
func FixedAddresses(inspection []byte) ([]string, error) {
	c, err := parse(inspection)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, at := range c.NetworkSettings.Networks {
		if fleet.IsSwarmNetworkID(at.NetworkID) && at.DriverOpts[fleet.OptionAddress] != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (e caller) recreate(ctx context.Context, c *container, to *fleet.Node, o Recreation) (id string, err error) {
	if o.Name == "" {
		o.Name = c.Name
	}
	body, err := c.body(o)
	if err != nil {
		return "", err
	}
	b, err := e.Ask(ctx, createLimit, to, http.MethodPost, "/containers/create", url.Values{"name": {o.Name}}, body)
	if err != nil {
		return "", err
	}
	var made struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(b, &made); err != nil || made.ID == "" {
		return "", fmt.Errorf("node %s: the engine created a container but did not say which: %.200s", to.Name, b)
	}
	for _, name := range c.furtherNetworks() {
		at := c.NetworkSettings.Networks[name]
		join := new(rawjson.Object)
		join.Set("Container", made.ID)
		join.Set("EndpointConfig", at.config(c.ID))
		if _, err = e.Ask(ctx, callLimit, to, http.MethodPost, "/networks/"+name+"/connect", nil, join.Bytes()); err != nil {
			err = fmt.Errorf("connect to network %s: %w", name, err)
			break
		}
	}
	if err == nil {
		return made.ID, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	return "", errors.Join(err, e.removeContainer(undo, to, made.ID, true))
}
