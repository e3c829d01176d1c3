package dockertest

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// endpointSettings is one container's place on one network, in the engine's order.
type endpointSettings struct {
	IPAMConfig          *endpointIPAM
	Links               []string
	Aliases             []string
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	IPPrefixLen         int
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	MacAddress          string
	DriverOpts          map[string]string
}

type endpointIPAM struct {
	IPv4Address string `json:",omitempty"`
	IPv6Address string `json:",omitempty"`
}

// endpoint ties a container to a network, from its create on; network is known once it started.
type endpoint struct {
	name    string // as the client wrote it: the key in Networks
	network *network
	// operational: the address is the cluster's choice, for as long as the endpoint is up.
	operational bool
	endpointSettings
}

// live says whether the endpoint is up, that is, the container runs.
func (e *endpoint) live() bool { return e.EndpointID != "" }

// planEndpoints notes the networks that a start will connect.
func (c *container) planEndpoints(want map[string]*endpointSettings) {
	mode := c.host.NetworkMode
	if strings.HasPrefix(mode, "container:") {
		return
	}
	if mode == "default" {
		mode = "bridge"
	}
	names := []string{mode}
	for _, n := range sortedKeys(want) {
		if n != mode && n != "default" {
			names = append(names, n)
		}
	}
	for _, n := range names {
		e := &endpoint{name: n}
		if s := want[n]; s != nil {
			e.IPAMConfig, e.Links, e.Aliases, e.MacAddress, e.DriverOpts = s.IPAMConfig, s.Links, s.Aliases, s.MacAddress, s.DriverOpts
		}
		c.endpoints = append(c.endpoints, e)
	}
}

// connectAll brings up every endpoint and the published ports.
func (c *container) connectAll() error {
	if ref, ok := strings.CutPrefix(c.host.NetworkMode, "container:"); ok {
		other, err := c.d.findContainer(ref)
		if err != nil {
			return err
		}
		if !other.running() {
			return fail(http.StatusConflict, "cannot join network of a non running container: %s", other.id)
		}
		return nil
	}
	for i, e := range c.endpoints {
		n, err := c.d.findNetwork(e.name)
		if err != nil {
			n, err = c.d.attach(e.name)
		}
		if err == nil {
			err = c.connect(e, n)
		}
		if err != nil {
			return err
		}
		if i == 0 && n.Driver != "host" && n.Driver != "null" {
			if err := c.allocatePorts(); err != nil {
				c.disconnect(e)
				return err
			}
		}
		c.d.emitNetwork("connect", n, "container", c.id)
	}
	return nil
}

// connect gives an endpoint its addresses.
func (c *container) connect(e *endpoint, n *network) error {
	chosen := ""
	if n.Scope == "swarm" && c.d.swarm != nil {
		want := ""
		if e.IPAMConfig != nil {
			want = e.IPAMConfig.IPv4Address
		}
		var err error
		if chosen, err = c.d.swarm.hold(n, holder{c.id, c.d.swarmNode}, want); err != nil {
			return err
		}
	}
	e.network, e.NetworkID, e.EndpointID = n, n.ID, randomID()
	if _, ok := predefined[n.Name]; !ok && !slices.Contains(e.Aliases, c.id[:12]) {
		e.Aliases = append(slices.Clone(e.Aliases), c.id[:12])
	}
	if len(n.IPAM.Config) == 0 {
		return nil
	}
	subnet, err := netip.ParsePrefix(n.IPAM.Config[0].Subnet)
	if err != nil {
		return nil //nolint:nilerr // checked when the network was made
	}
	e.Gateway = n.IPAM.Config[0].Gateway
	setDefault(&e.Gateway, subnet.Masked().Addr().Next().String())
	e.IPPrefixLen = subnet.Bits()
	switch {
	case chosen != "":
		e.IPAddress = chosen
		e.operational = e.IPAMConfig == nil
		e.IPAMConfig = &endpointIPAM{IPv4Address: chosen} // as real engines show it
	case e.IPAMConfig != nil && e.IPAMConfig.IPv4Address != "":
		e.IPAddress = e.IPAMConfig.IPv4Address
	default:
		e.IPAddress = c.d.freeAddress(n, subnet, e.Gateway)
	}
	if a, err := netip.ParseAddr(e.IPAddress); err == nil && a.Is4() {
		b := a.As4()
		e.MacAddress = fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
	}
	return nil
}

func (d *Daemon) freeAddress(n *network, subnet netip.Prefix, gateway string) string {
	taken := map[string]bool{gateway: true}
	for _, e := range d.endpointsOn(n) {
		taken[e.IPAddress] = true
	}
	a := subnet.Masked().Addr().Next()
	for taken[a.String()] {
		a = a.Next()
	}
	return a.String()
}

// disconnect takes an endpoint down; the network's ID stays visible, as on an engine.
func (c *container) disconnect(e *endpoint) {
	c.d.emitNetwork("disconnect", e.network, "container", c.id)
	e.EndpointID, e.Gateway, e.IPAddress, e.IPPrefixLen, e.MacAddress = "", "", "", 0, ""
	if e.operational {
		e.operational, e.IPAMConfig = false, nil
	}
	if e.network.Scope == "swarm" {
		c.d.letGo(e.network, c.id)
	}
}

// releaseNetwork is connectAll backwards.
func (c *container) releaseNetwork() {
	for _, p := range c.ports {
		delete(c.d.ports, p.key())
	}
	c.ports = nil
	for _, e := range c.endpoints {
		if e.live() {
			c.disconnect(e)
		}
	}
}

// port is one published port of a running container.
type port struct {
	private int
	proto   string
	hostIP  string
	public  int
}

func (p port) key() string { return p.hostIP + ":" + strconv.Itoa(p.public) + "/" + p.proto }

// portJSON is a port in the list.
type portJSON struct {
	IP          string `json:",omitempty"`
	PrivatePort int
	PublicPort  int `json:",omitempty"`
	Type        string
}

// allocatePorts takes the host ports of the exposed ports that are bound, or of all with PublishAllPorts.
func (c *container) allocatePorts() error {
	for _, exposed := range sortedKeys(c.config.ExposedPorts) {
		num, proto, _ := strings.Cut(exposed, "/")
		setDefault(&proto, "tcp")
		private, err := strconv.Atoi(num)
		if err != nil {
			return fail(http.StatusBadRequest, "invalid containerPort: %s", num)
		}
		bindings := c.host.PortBindings[exposed]
		if len(bindings) == 0 && c.host.PublishAllPorts {
			bindings = []portBinding{{}}
		}
		for _, b := range bindings {
			if err := c.allocate(private, proto, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// allocate takes one binding: on all addresses if none is named, IPv4 and IPv6.
func (c *container) allocate(private int, proto string, b portBinding) error {
	public, err := strconv.Atoi(b.HostPort)
	if b.HostPort == "" || b.HostPort == "0" {
		public, err = c.d.freePort(proto), nil
	}
	if err != nil {
		return fail(http.StatusBadRequest, "invalid port specification: %q", b.HostPort)
	}
	ips := []string{b.HostIP}
	if b.HostIP == "" {
		ips = []string{"0.0.0.0", "::"}
	}
	for _, ip := range ips {
		p := port{private, proto, ip, public}
		if c.d.portTaken(p) {
			return fail(http.StatusInternalServerError, "driver failed programming external connectivity on endpoint %s (%s): "+
				"Bind for %s:%d failed: port is already allocated", c.name, c.endpoints[0].EndpointID, ip, public)
		}
		c.d.ports[p.key()] = c
		c.ports = append(c.ports, p)
	}
	return nil
}

// portTaken says whether p is held; an address collides with itself and with all addresses.
func (d *Daemon) portTaken(p port) bool {
	if d.ports[p.key()] != nil {
		return true
	}
	if p.hostIP != "0.0.0.0" && p.hostIP != "::" {
		return d.ports[port{0, p.proto, "0.0.0.0", p.public}.key()] != nil
	}
	suffix := fmt.Sprintf(":%d/%s", p.public, p.proto)
	for k := range d.ports {
		if p.hostIP == "0.0.0.0" && strings.HasSuffix(k, suffix) && !strings.HasPrefix(k, "::") {
			return true
		}
	}
	return false
}

// freePort is the next ephemeral port, from 32768 on.
func (d *Daemon) freePort(proto string) int {
	for {
		d.lastPort++
		if !d.portTaken(port{0, proto, "0.0.0.0", d.lastPort}) {
			return d.lastPort
		}
	}
}

// portList is the Ports column: published ones, then those exposed only. Empty unless the container runs.
func (c *container) portList() []portJSON {
	list := []portJSON{}
	if !c.running() {
		return list
	}
	for _, p := range c.ports {
		list = append(list, portJSON{p.hostIP, p.private, p.public, p.proto})
	}
	for _, exposed := range sortedKeys(c.config.ExposedPorts) {
		num, proto, _ := strings.Cut(exposed, "/")
		setDefault(&proto, "tcp")
		private, err := strconv.Atoi(num)
		if err == nil && !slices.ContainsFunc(c.ports, func(p port) bool { return p.private == private && p.proto == proto }) {
			list = append(list, portJSON{PrivatePort: private, Type: proto})
		}
	}
	return list
}

// networkSettings is the block of inspect, in the engine's order.
type networkSettings struct {
	Bridge                 string
	SandboxID              string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	Ports                  map[string][]portBinding
	SandboxKey             string
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Networks               map[string]endpointSettings
}

func (c *container) networkSettings() networkSettings {
	s := networkSettings{Ports: map[string][]portBinding{}, Networks: c.endpointMap()}
	if c.running() {
		for exposed := range c.config.ExposedPorts {
			s.Ports[exposed] = nil
		}
		for _, p := range c.ports {
			key := strconv.Itoa(p.private) + "/" + p.proto
			s.Ports[key] = append(s.Ports[key], portBinding{p.hostIP, strconv.Itoa(p.public)})
		}
	}
	if c.prepared {
		s.SandboxID = c.id
		s.SandboxKey = "/var/run/docker/netns/" + c.id[:12]
	}
	if b, ok := s.Networks["bridge"]; ok {
		s.EndpointID, s.Gateway, s.IPAddress, s.IPPrefixLen, s.MacAddress = b.EndpointID, b.Gateway, b.IPAddress, b.IPPrefixLen, b.MacAddress
	}
	return s
}

func (c *container) endpointMap() map[string]endpointSettings {
	m := make(map[string]endpointSettings, len(c.endpoints))
	for _, e := range c.endpoints {
		m[e.name] = e.endpointSettings
	}
	return m
}

// connectRequest is the body of connect and disconnect.
type connectRequest struct {
	Container      string
	EndpointConfig *endpointSettings
	Force          bool
}

// connectNetwork answers POST /networks/{id}/connect.
func (d *Daemon) connectNetwork(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	req, c, n, err := d.networkAndContainer(r)
	if err != nil {
		return err
	}
	if n.Driver == "host" || c.host.NetworkMode == "host" {
		return fail(http.StatusBadRequest, "container cannot be disconnected from host network or connected to host network")
	}
	if slices.ContainsFunc(c.endpoints, func(e *endpoint) bool { return e.network == n || e.name == n.Name }) {
		return fail(http.StatusForbidden, "endpoint with name %s already exists in network %s", c.name, n.Name)
	}
	e := &endpoint{name: n.Name, network: n}
	if s := req.EndpointConfig; s != nil {
		e.IPAMConfig, e.Links, e.Aliases, e.DriverOpts = s.IPAMConfig, s.Links, s.Aliases, s.DriverOpts
	}
	e.NetworkID = n.ID
	c.endpoints = append(c.endpoints, e)
	if c.running() {
		if err := c.connect(e, n); err != nil {
			c.endpoints = slices.DeleteFunc(c.endpoints, func(o *endpoint) bool { return o == e })
			return err
		}
		d.emitNetwork("connect", n, "container", c.id)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// disconnectNetwork answers POST /networks/{id}/disconnect.
func (d *Daemon) disconnectNetwork(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, c, n, err := d.networkAndContainer(r)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(c.endpoints, func(e *endpoint) bool { return e.network == n || e.name == n.Name })
	if i < 0 {
		return fail(http.StatusInternalServerError, "container %s is not connected to network %s", c.id, n.Name)
	}
	if c.endpoints[i].live() {
		c.disconnect(c.endpoints[i])
	}
	c.endpoints = slices.Delete(c.endpoints, i, i+1)
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *Daemon) networkAndContainer(r *request) (req connectRequest, c *container, n *network, err error) {
	if err = r.decode(&req, http.StatusBadRequest, "got EOF while reading request body"); err != nil {
		return
	}
	if c, err = d.findContainer(req.Container); err != nil {
		return
	}
	if n, err = d.findNetwork(r.name); err != nil && d.swarm != nil {
		n, err = d.attach(r.name)
	}
	return
}
