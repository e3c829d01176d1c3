package move

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// container is an inspection: what is read of it, and all of it as it came.
type container struct {
	raw      *rawjson.Object
	linkedBy []string // names of the containers that are linked to it; see links

	ID    string `json:"Id"`
	Name  string
	Image string // its ID
	State struct {
		Status                      string
		Running, Paused, Restarting bool
	}
	Config struct {
		Image, Hostname string
		Labels          map[string]string
		StopTimeout     *int
	}
	HostConfig struct {
		NetworkMode, IpcMode, PidMode, UTSMode string //nolint:revive // the API's spelling
		AutoRemove, ReadonlyRootfs             bool
		Links, VolumesFrom                     []string
		Devices                                []struct{ PathOnHost string }
		DeviceRequests                         []struct{ Driver string }
		RestartPolicy                          restartPolicy
	}
	Mounts          []mount
	NetworkSettings struct {
		Networks map[string]endpoint
	}
}

type restartPolicy struct {
	Name              string
	MaximumRetryCount int
}

// always tells whether the engine starts the container by itself although somebody stopped it.
func (p restartPolicy) always() bool { return p.Name == "always" }

type mount struct {
	Type, Name, Source, Destination, Driver string
	RW                                      bool
}

// endpoint is a container's place in a network, as far as it was asked for.
type endpoint struct {
	NetworkID  string          `json:"NetworkID"`
	IPAMConfig json.RawMessage `json:"IPAMConfig"`
	Links      []string
	Aliases    []string
	DriverOpts map[string]string
	GwPriority int
}

func parse(inspection []byte) (*container, error) {
	raw, err := rawjson.ParseTrusted(inspection)
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	c := &container{raw: raw}
	if err := json.Unmarshal(inspection, c); err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	if c.ID == "" {
		return nil, fmt.Errorf("inspect: a container without an ID")
	}
	c.Name = strings.TrimPrefix(c.Name, "/")
	return c, nil
}

// runs tells whether its processes exist, or are about to again.
func (c *container) runs() bool { return c.State.Running || c.State.Restarting }

// neverStarted tells whether it has been created and no more.
func (c *container) neverStarted() bool { return c.State.Status == "created" }

// stopLimit is how long an engine has to stop it.
func (c *container) stopLimit() time.Duration {
	if t := c.Config.StopTimeout; t != nil && *t > 0 {
		return startLimit + time.Duration(*t)*time.Second
	}
	return startLimit
}

// body is that of a create which makes the same container.
func (c *container) body(o Recreation) ([]byte, error) {
	b, err := c.raw.Object("Config")
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", c.Name, err)
	}
	host, err := c.raw.Object("HostConfig")
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", c.Name, err)
	}
	h := c.HostConfig
	if c.ownHostname() {
		b.Delete("Hostname")
	}
	if o.Image != "" {
		b.Set("Image", o.Image)
	}
	labels, err := b.Object("Labels")
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", c.Name, err)
	}
	labels.Delete(fleet.LabelMoved) // of an earlier move
	for k, v := range o.Labels {
		labels.Set(k, v)
	}
	b.Set("Labels", labels)
	if len(h.Links) > 0 {
		host.Set("Links", plainLinks(h.Links))
	}
	b.Set("HostConfig", host)
	if name, at, ok := c.mainNetwork(); ok {
		endpoints, config := new(rawjson.Object), new(rawjson.Object)
		endpoints.Set(name, at.config(c.ID))
		config.Set("EndpointsConfig", endpoints)
		b.Set("NetworkingConfig", config)
	}
	return b.Bytes(), nil
}

// ownHostname tells whether nobody chose the host name: it is the beginning of the ID, or the node's.
func (c *container) ownHostname() bool {
	h := c.HostConfig
	return strings.HasPrefix(c.ID, c.Config.Hostname) || h.NetworkMode == "host" || h.UTSMode == "host" || strings.HasPrefix(h.NetworkMode, "container:")
}

// plainLinks turns "/db:/web/db", as inspections have it, into "db:db".
func plainLinks(links []string) []string {
	var plain []string
	for _, l := range links {
		other, alias, _ := strings.Cut(l, ":")
		plain = append(plain, strings.TrimPrefix(other, "/")+":"+alias[strings.LastIndexByte(alias, '/')+1:])
	}
	return plain
}

// mainNetwork is the network that the container is created in, if it is one that somebody made.
func (c *container) mainNetwork() (name string, at endpoint, ok bool) {
	mode := c.HostConfig.NetworkMode
	if mode == "" || mode == "default" || fleet.IsPredefinedNetwork(mode) || strings.HasPrefix(mode, "container:") {
		return "", endpoint{}, false
	}
	for name, at := range c.NetworkSettings.Networks {
		if name == mode || at.NetworkID == mode {
			return name, at, true
		}
	}
	return "", endpoint{}, false
}

// furtherNetworks are those that the container is connected to once it was created, in a fixed order. Of several in the body of a
// create, old engines take one only.
func (c *container) furtherNetworks() []string {
	main, _, _ := c.mainNetwork()
	var names []string
	for name := range c.NetworkSettings.Networks {
		byDefault := name == "bridge" && (c.HostConfig.NetworkMode == "" || c.HostConfig.NetworkMode == "default")
		if name != main && name != c.HostConfig.NetworkMode && !byDefault {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// config is what was asked for, without what the engine made of it.
func (e endpoint) config(id string) *rawjson.Object {
	o := new(rawjson.Object)
	chosen := fleet.IsSwarmNetworkID(e.NetworkID) && e.DriverOpts[fleet.OptionAddress] == "" // by Swarm mode, for this container alone
	if len(e.IPAMConfig) > 0 && string(e.IPAMConfig) != "null" && !chosen {
		o.SetRaw("IPAMConfig", e.IPAMConfig)
	}
	aliases := slices.DeleteFunc(slices.Clone(e.Aliases), func(a string) bool { return a == "" || strings.HasPrefix(id, a) && len(a) >= 12 })
	if len(aliases) > 0 {
		o.Set("Aliases", aliases)
	}
	if len(e.Links) > 0 {
		o.Set("Links", e.Links)
	}
	if len(e.DriverOpts) > 0 {
		o.Set("DriverOpts", e.DriverOpts)
	}
	if e.GwPriority != 0 {
		o.Set("GwPriority", e.GwPriority)
	}
	return o
}
