package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// creation is a parsed create request: the body as it came, and what placement needs of it.
type creation struct {
	r      *request
	query  url.Values
	name   string // without a node
	node   string // that the client named: "node/name" or a header
	body   *rawjson.Object
	config createConfig
	rules  schedule.Rules
	env    []string
	labels map[string]string
	pins   []schedule.Tie // to what the client named
	// network is what a reference to a network means now, after it moved.
	network func(ref string) string
	// openings are the ports that were given a host port for the node of the last build.
	openings []opening
	// notes are what the client is to know of its ports, for the node of the last build.
	notes []string
	// translated is what the last build left to be done on its node.
	translated translation
	// socket is where the node of the last build has the fleet's socket; "" if the container gets the node's own.
	socket string
}

// createConfig is what is read of the body of POST /containers/create.
type createConfig struct {
	Image        string
	Env          []string
	Labels       map[string]string
	ExposedPorts map[string]any
	Healthcheck  *struct{ StartInterval int64 }
	HostConfig   createHost
	// Before API 1.18 these stood at the top; classic Swarm took them from there too.
	Memory, CPUShares int64
	NetworkingConfig  struct{ EndpointsConfig map[string]newerEndpoint }
}

type createHost struct {
	Memory, NanoCpus, CPUQuota, CPUPeriod, CPUShares int64  //nolint:revive // the API's spelling
	NetworkMode, IpcMode, PidMode                    string //nolint:revive // the API's spelling
	Links, VolumesFrom, Binds                        []string
	PortBindings                                     map[string][]struct{ HostIP, HostPort string }
	PublishAllPorts                                  bool
	Annotations                                      map[string]string
	DeviceRequests                                   []struct{ Driver string }
	Mounts                                           []createMount
}

type createMount struct {
	Type, Source, Target string
	BindOptions          struct{ CreateMountpoint, ReadOnlyForceRecursive bool }
	VolumeOptions        struct{ Subpath string }
	TmpfsOptions         struct{ Options []json.RawMessage }
}

// readOfCreate is createConfig as fields to pick: clients send all fields there are, most of them empty.
var readOfCreate = []rawjson.Want{
	{Key: "Image"}, {Key: "Env"}, {Key: "Labels"}, {Key: "ExposedPorts"}, {Key: "Healthcheck"}, {Key: "Memory"}, {Key: "CPUShares"},
	{Key: "NetworkingConfig"},
	{Key: "HostConfig", Inside: []rawjson.Want{
		{Key: "Memory"}, {Key: "NanoCpus"}, {Key: "CPUQuota"}, {Key: "CPUPeriod"}, {Key: "CPUShares"}, {Key: "NetworkMode"}, {Key: "IpcMode"},
		{Key: "PidMode"}, {Key: "Links"}, {Key: "VolumesFrom"}, {Key: "Binds"}, {Key: "PortBindings"}, {Key: "PublishAllPorts"},
		{Key: "Annotations"}, {Key: "DeviceRequests"}, {Key: "Mounts"},
	}},
}

// readCreate decodes what is read of the body.
func readCreate(body *rawjson.Object) (c createConfig, err error) {
	b, err := body.Pick(readOfCreate)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		err = invalidf("request body: %v", err)
	}
	return c, err
}

// createContainer places a container and has it created there.
func createContainer(s *Server, w http.ResponseWriter, r *request) error {
	if r.Header.Get(dryRunHeader) != "" {
		return placeContainer(s, w, r)
	}
	c, err := parseCreation(r)
	if err != nil {
		return err
	}
	s.fleet.Settle(r.Context(), fleet.KindImage) // a tag that was moved beside us may be news that is not looked at yet
	req, err := s.placement(r.Context(), c)
	if err != nil {
		return err
	}
	done, err := s.groups.place(r.Context(), s, c, req)
	if err != nil {
		return err
	}
	defer done()
	res, n, err := s.fleet.Create(r.Context(), req, func(n *fleet.Node, name string, labels map[string]string, claim claim) (*http.Request, error) {
		if err := s.ensureImage(r.Context(), n, c.config.Image, c.query.Get("platform"), r); err != nil {
			return nil, err
		}
		if err := s.openPorts(r.Context(), n, c, claim); err != nil {
			return nil, err
		}
		if err := s.checkPorts(n, c, req.Ports); err != nil {
			return nil, err
		}
		if err := s.offerSocket(r.Context(), n, c); err != nil {
			return nil, err
		}
		return c.build(r.Context(), s.fleet.Snapshot(), n, name, labels)
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("node %s: create: %w", n.Name, err)
	}
	switch res.StatusCode {
	case http.StatusCreated:
		if b, err = s.finish(r.Context(), n, c, b); err != nil {
			return err
		}
		s.created(r.Context(), n, c)
	case http.StatusNotFound:
		s.wantImage(r, n, c.config.Image) // as for another platform; the client pulls it now
	}
	w.Header().Set("X-Berth-Node", n.Name)
	writeRaw(w, res.StatusCode, b)
	return nil
}

func parseCreation(r *request) (*creation, error) {
	b, err := body(r)
	if err != nil {
		return nil, err
	}
	c := &creation{r: r, query: r.URL.Query(), body: b}
	c.name = strings.TrimPrefix(c.query.Get("name"), "/")
	c.node = r.Header.Get("X-Berth-Node")
	if node, rest, ok := strings.Cut(c.name, "/"); ok {
		c.node, c.name = node, rest
	}
	if c.query.Has("name") && c.query.Get("name") != "" {
		if err := checkName(c.name); err != nil {
			return nil, err
		}
	}
	if b.Len() == 0 {
		return nil, invalid("Config cannot be empty in order to create a container")
	}
	if c.config, err = readCreate(b); err != nil {
		return nil, err
	}
	if err := checkImage(c.config.Image); err != nil {
		return nil, err
	}
	maps.DeleteFunc(c.config.Labels, func(k, _ string) bool {
		return strings.HasPrefix(k, fleet.LabelPrefix) && k != fleet.LabelGroup
	})
	c.rules, c.env, c.labels, err = schedule.ParseRules(c.config.Env, c.config.Labels)
	return c, err
}

// placement makes the scheduler's request.
func (s *Server) placement(ctx context.Context, c *creation) (*schedule.Request, error) {
	h := c.config.HostConfig
	req := &schedule.Request{
		Name: c.name, Image: c.config.Image, Labels: c.labels, Rules: c.rules,
		Memory: max(h.Memory, c.config.Memory), NanoCPUs: h.NanoCpus,
		VolumesFrom: h.VolumesFrom, Links: h.Links, HostNetwork: h.NetworkMode == "host",
	}
	if req.NanoCPUs == 0 && h.CPUQuota > 0 {
		period := h.CPUPeriod
		if period == 0 {
			period = 100_000 // the kernel's default, in microseconds
		}
		req.NanoCPUs = h.CPUQuota * 1_000_000_000 / period
	}
	for _, mode := range []string{h.NetworkMode, h.IpcMode, h.PidMode} {
		if other, ok := strings.CutPrefix(mode, "container:"); ok {
			req.Shares = append(req.Shares, other)
		}
	}
	if err := c.ports(req); err != nil {
		return nil, err
	}
	if err := s.require(req, c.r.version, c.needs()); err != nil {
		return nil, err
	}
	snap := s.fleet.Snapshot()
	if c.node != "" {
		n, ok := snap.NodeByName(c.node)
		if !ok {
			return nil, invalidf("no node %s in the fleet; docker info lists them", c.node)
		}
		c.pins = []schedule.Tie{{What: "node " + c.node, NodeIDs: []string{n.ID}}}
	}
	c.network = s.groups.current
	bonds, rules, err := s.bonds(ctx, c)
	if err != nil {
		return nil, err
	}
	req.Ties = append(slices.Clone(c.pins), tiesOf(bonds)...)
	req.Rules = req.Rules.Merge(rules)
	s.requireOverlay(req, c.network(h.NetworkMode), bonds)
	req.Prefer = s.preferred(ctx, c)
	if platform := c.query.Get("platform"); platform != "" {
		parts := strings.Split(platform, "/")
		req.OS = parts[0]
		if len(parts) > 1 {
			req.Arch = parts[1]
		}
	}
	s.requireSocket(req, c)
	return req, nil
}

// ports reads the published and exposed ports.
func (c *creation) ports(req *schedule.Request) error {
	for spec, bindings := range c.config.HostConfig.PortBindings {
		port, proto, err := readPort(spec)
		if err != nil {
			return err
		}
		for _, b := range bindings {
			p := fleet.Port{Proto: proto, HostIP: b.HostIP, Port: port}
			// A range lets the engine choose, so it conflicts with nothing until it has.
			if b.HostPort != "" && !strings.Contains(b.HostPort, "-") {
				n, err := strconv.ParseUint(b.HostPort, 10, 16)
				if err != nil {
					return invalidf("invalid port specification: %q", b.HostPort)
				}
				p.HostPort = uint16(n)
			}
			req.Ports = append(req.Ports, p)
		}
	}
	for spec := range c.config.ExposedPorts {
		if strings.Contains(spec, "-") {
			continue
		}
		port, proto, err := readPort(spec)
		if err != nil {
			return err
		}
		req.Exposed = append(req.Exposed, fleet.Port{Proto: proto, Port: port})
	}
	slices.SortFunc(req.Ports, comparePorts)
	slices.SortFunc(req.Exposed, comparePorts)
	return nil
}

func comparePorts(a, b fleet.Port) int {
	if d := int(a.HostPort) - int(b.HostPort); d != 0 {
		return d
	}
	if d := int(a.Port) - int(b.Port); d != 0 {
		return d
	}
	return strings.Compare(a.Proto, b.Proto)
}

func readPort(spec string) (uint16, string, error) {
	num, proto, ok := strings.Cut(spec, "/")
	if !ok {
		proto = "tcp"
	}
	n, err := strconv.ParseUint(num, 10, 16)
	if err != nil {
		return 0, "", invalidf("invalid port specification: %q", spec)
	}
	return uint16(n), proto, nil
}

// build makes the request for a node. The body is the client's; only what names objects or rules is rewritten.
func (c *creation) build(ctx context.Context, snap *fleet.Snapshot, n *fleet.Node, name string, ours map[string]string) (*http.Request, error) {
	o := c.body.Clone()
	labels := maps.Clone(ours)
	maps.Copy(labels, c.labels) // which may have a Swarm ID of an earlier life
	o.Set("Labels", labels)
	if len(c.env) != len(c.config.Env) {
		o.Set("Env", c.env)
	}
	if err := c.rewriteHost(o, snap); err != nil {
		return nil, err
	}
	if err := c.rewriteNetworks(o, snap); err != nil {
		return nil, err
	}
	if err := c.fillOpenings(o); err != nil {
		return nil, invalidf("request body: %v", err)
	}
	var err error
	if c.translated, err = c.translate(o, n); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker", bytes.NewReader(o.Bytes()))
	if err != nil {
		return nil, err
	}
	q := maps.Clone(c.query)
	q.Set("name", name)
	if fleet.CompareVersions(n.Clamp(c.r.version), "1.41") < 0 {
		q.Del("platform")
	}
	r.URL.Path, r.URL.RawQuery = n.Path(c.r.version, "/containers/create"), q.Encode()
	r.Header.Set("Content-Type", "application/json")
	return r, nil
}

// rewriteHost takes node names off the references in HostConfig: engines do not know them.
func (c *creation) rewriteHost(o *rawjson.Object, snap *fleet.Snapshot) error {
	h := c.config.HostConfig
	changed := new(rawjson.Object)
	set := func(key string, was []string, bare func(string) string) {
		if is := eachOf(was, bare); !slices.Equal(was, is) {
			changed.Set(key, is)
		}
	}
	set("Links", h.Links, func(l string) string { return bareContainer(snap, l, ":") })
	set("VolumesFrom", h.VolumesFrom, func(v string) string { return bareContainer(snap, v, ":") })
	set("Binds", h.Binds, func(b string) string { return c.socketBind(bareSource(snap, b)) })
	for _, m := range [...]struct{ key, mode string }{{"NetworkMode", h.NetworkMode}, {"IpcMode", h.IpcMode}, {"PidMode", h.PidMode}} {
		is := m.mode
		if other, ok := strings.CutPrefix(m.mode, "container:"); ok {
			is = "container:" + bareContainer(snap, other, "")
		} else if m.key == "NetworkMode" {
			is = bareNetwork(snap, c.network(m.mode))
			if network, spans := spanning(snap, is); spans {
				is = network.Name
			}
		}
		if is != m.mode {
			changed.Set(m.key, is)
		}
	}
	mounts := slices.ContainsFunc(h.Mounts, func(m createMount) bool { return c.bareMount(snap, m.Type, m.Source) != m.Source })
	if changed.Len() == 0 && !mounts {
		return nil
	}
	host, err := o.Object("HostConfig")
	if err != nil {
		return invalidf("request body: %v", err)
	}
	for _, key := range changed.Keys() {
		host.SetRaw(key, changed.Get(key))
	}
	if mounts {
		bare, err := c.rewriteMounts(snap, host)
		if err != nil {
			return err
		}
		host.Set("Mounts", bare)
	}
	o.Set("HostConfig", host)
	return nil
}

// bareMount is the source of a mount as its node knows it: without the node of node/volume, and the fleet's for the docker socket.
func (c *creation) bareMount(snap *fleet.Snapshot, kind, source string) string {
	switch kind {
	case "volume":
		return bareSource(snap, source)
	case "bind":
		return c.socketSource(source)
	}
	return source
}

// rewriteMounts gives all mounts the sources that their node knows.
func (c *creation) rewriteMounts(snap *fleet.Snapshot, host *rawjson.Object) ([]json.RawMessage, error) {
	raws, err := rawjson.Array(orNull(host.Get("Mounts")))
	if err != nil {
		return nil, invalidf("request body: Mounts: %v", err)
	}
	for i, raw := range raws {
		m, err := rawjson.Parse(raw)
		if err != nil {
			return nil, invalidf("request body: Mounts: %v", err)
		}
		var kind, source string
		if err := errors.Join(m.Decode("Type", &kind), m.Decode("Source", &source)); err != nil {
			return nil, invalidf("request body: Mounts: %v", err)
		}
		if is := c.bareMount(snap, kind, source); is != source {
			m.Set("Source", is)
			raws[i] = m.Bytes()
		}
	}
	return raws, nil
}

// rewriteNetworks takes node names off the keys of EndpointsConfig.
func (c *creation) rewriteNetworks(o *rawjson.Object, snap *fleet.Snapshot) error {
	if len(c.config.NetworkingConfig.EndpointsConfig) == 0 {
		return nil
	}
	config, err := o.Object("NetworkingConfig")
	if err != nil {
		return invalidf("request body: %v", err)
	}
	endpoints, err := config.Object("EndpointsConfig")
	if err != nil {
		return invalidf("request body: %v", err)
	}
	bare := new(rawjson.Object)
	for _, k := range endpoints.Keys() {
		name, endpoint := bareNetwork(snap, c.network(k)), endpoints.Get(k)
		if network, spans := spanning(snap, name); spans {
			// A node that does not know the network would keep what is said here as its name.
			name = network.Name
			var err error
			if endpoint, err = markedAddress(endpoint); err != nil {
				return err
			}
		}
		bare.SetRaw(name, endpoint)
	}
	config.Set("EndpointsConfig", bare)
	o.Set("NetworkingConfig", config)
	return nil
}

func eachOf(in []string, f func(string) string) []string {
	var out []string
	for _, v := range in {
		out = append(out, f(v))
	}
	return out
}

// bareContainer turns a reference that only the fleet understands (node/name, a Swarm ID) into the container's name. What
// follows sep stays.
func bareContainer(snap *fleet.Snapshot, ref, sep string) string {
	name, rest, found := ref, "", false
	if sep != "" {
		name, rest, found = strings.Cut(ref, sep)
	}
	c, err := snap.Container(name)
	if err == nil && strings.TrimPrefix(name, "/") != c.Container.Name && !strings.HasPrefix(c.Container.ID, name) {
		name = c.Container.Name
	}
	if !found {
		return name
	}
	return name + sep + rest
}

// bareSource takes the node off a bind whose source is node/volume.
func bareSource(snap *fleet.Snapshot, bind string) string {
	node, rest, ok := strings.Cut(bind, "/")
	if !ok || node == "" || strings.Contains(node, ":") {
		return bind
	}
	if _, known := snap.NodeByName(node); !known {
		return bind
	}
	return rest
}

// bareNetwork takes the node off node/network.
func bareNetwork(snap *fleet.Snapshot, ref string) string {
	node, rest, ok := strings.Cut(ref, "/")
	if !ok {
		return ref
	}
	if _, known := snap.NodeByName(node); !known {
		return ref
	}
	return rest
}
