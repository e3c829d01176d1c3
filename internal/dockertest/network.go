package dockertest

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// network is one network, in the engine's order of fields. Guarded by Daemon.mu.
type network struct {
	Name       string
	ID         string `json:"Id"`
	Created    string
	Scope      string
	Driver     string
	EnableIPv6 bool
	IPAM       ipam
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom struct{ Network string }
	ConfigOnly bool
	Containers map[string]networkContainer
	Options    map[string]string
	Labels     map[string]string
}

type ipam struct {
	Driver  string
	Options map[string]string
	Config  []ipamConfig
}

type ipamConfig struct {
	Subnet  string `json:",omitempty"`
	Gateway string `json:",omitempty"`
}

type networkContainer struct {
	Name        string
	EndpointID  string
	MacAddress  string
	IPv4Address string
	IPv6Address string
}

// predefined are the networks that every engine has.
var predefined = map[string]string{"none": "null", "host": "host", "bridge": "bridge"}

// addPredefinedNetworks makes none, host and bridge. Called before anything else knows the daemon.
func (d *Daemon) addPredefinedNetworks() {
	for _, name := range []string{"none", "host", "bridge"} {
		n := d.newNetwork(name, predefined[name])
		n.IPAM.Config = []ipamConfig{}
		if name == "bridge" {
			n.IPAM.Config = []ipamConfig{{Subnet: "172.17.0.0/16"}}
			n.Options = map[string]string{
				"com.docker.network.bridge.default_bridge":       "true",
				"com.docker.network.bridge.enable_icc":           "true",
				"com.docker.network.bridge.enable_ip_masquerade": "true",
				"com.docker.network.bridge.host_binding_ipv4":    "0.0.0.0",
				"com.docker.network.bridge.name":                 "docker0",
				"com.docker.network.driver.mtu":                  "1500",
			}
		}
		d.networks = append(d.networks, n)
	}
}

func (d *Daemon) newNetwork(name, driver string) *network {
	return &network{
		Name: name, ID: randomID(), Created: timestamp(d.now()), Scope: "local", Driver: driver, IPAM: ipam{Driver: "default"},
		Options: map[string]string{}, Labels: map[string]string{},
	}
}

// findNetwork resolves ID, name or unique ID prefix. Called with d.mu.
func (d *Daemon) findNetwork(ref string) (*network, error) {
	networks := d.shownNetworks()
	for _, n := range networks {
		if n.ID == ref {
			return n, nil
		}
	}
	var named, prefixed []*network
	for _, n := range networks {
		if n.Name == ref {
			named = append(named, n)
		}
		if ref != "" && strings.HasPrefix(n.ID, ref) {
			prefixed = append(prefixed, n)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		return nil, fail(http.StatusBadRequest, "%d matches found based on name: network %s is ambiguous", len(named), ref)
	case len(prefixed) == 1:
		return prefixed[0], nil
	case len(prefixed) > 1:
		return nil, fail(http.StatusBadRequest, "%d matches found based on ID prefix: network %s is ambiguous", len(prefixed), ref)
	}
	return nil, fail(http.StatusNotFound, "network %s not found", ref)
}

// listNetworks answers GET /networks.
func (d *Daemon) listNetworks(w http.ResponseWriter, r *request) error {
	f, err := r.filters("dangling", "driver", "id", "label", "label!", "name", "scope", "type")
	if err != nil {
		return err
	}
	dangling, withDangling, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	rows := []network{}
	for _, n := range d.shownNetworks() {
		_, builtin := predefined[n.Name]
		if f.any("driver", func(v string) bool { return v == n.Driver }) && f.any("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
			f.any("name", n.matchName) && f.any("scope", func(v string) bool { return v == n.Scope }) && f.labels(n.Labels) &&
			f.any("type", func(v string) bool { return (v == "builtin") == builtin }) &&
			(!withDangling || dangling == (!builtin && len(d.endpointsOn(n)) == 0)) {
			row := *n
			row.Containers = map[string]networkContainer{}
			rows = append(rows, row)
		}
	}
	writeJSON(w, http.StatusOK, rows)
	return nil
}

func (n *network) matchName(v string) bool {
	re, err := regexp.Compile(v)
	return v == n.Name || err == nil && re.MatchString(n.Name)
}

// endpointsOn is who is connected to n now, by container.
func (d *Daemon) endpointsOn(n *network) map[*container]*endpoint {
	on := map[*container]*endpoint{}
	for _, c := range d.order {
		for _, e := range c.endpoints {
			if e.network == n && e.live() {
				on[c] = e
			}
		}
	}
	return on
}

// inspectNetwork answers GET /networks/{id}.
func (d *Daemon) inspectNetwork(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.findNetwork(r.name)
	if err != nil {
		return err
	}
	row := *n
	row.Containers = map[string]networkContainer{}
	for c, e := range d.endpointsOn(n) {
		nc := networkContainer{Name: c.name, EndpointID: e.EndpointID, MacAddress: e.MacAddress}
		if e.IPAddress != "" {
			nc.IPv4Address = fmt.Sprintf("%s/%d", e.IPAddress, e.IPPrefixLen)
		}
		row.Containers[c.id] = nc
	}
	writeJSON(w, http.StatusOK, row)
	return nil
}

// networkRequest is the body of a network create.
type networkRequest struct {
	Name                                         string
	CheckDuplicate                               bool
	Driver                                       string
	Internal, Attachable, EnableIPv6, ConfigOnly bool
	IPAM                                         *ipam
	Options, Labels                              map[string]string
}

// createNetwork answers POST /networks/create.
func (d *Daemon) createNetwork(w http.ResponseWriter, r *request) error {
	var req networkRequest
	if err := r.decode(&req, http.StatusBadRequest, "got EOF while reading request body"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, warning, err := d.makeNetwork(req, req.CheckDuplicate || r.atLeast("1.44"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, struct {
		ID      string `json:"Id"`
		Warning string
	}{n.ID, warning})
	return nil
}

// makeNetwork checks and adds a network. Called with d.mu.
func (d *Daemon) makeNetwork(req networkRequest, unique bool) (_ *network, warning string, _ error) {
	if strings.TrimSpace(req.Name) == "" {
		return nil, "", fail(http.StatusInternalServerError, "invalid name: %s", req.Name)
	}
	if _, ok := predefined[req.Name]; ok {
		return nil, "", fail(http.StatusForbidden, "operation is not permitted on predefined %s network ", req.Name)
	}
	for _, n := range d.networks {
		if n.Name != req.Name {
			continue
		}
		if unique {
			return nil, "", fail(http.StatusConflict, "network with name %s already exists", req.Name)
		}
		warning = fmt.Sprintf("Network with name %s (id : %s) already exists", n.Name, n.ID)
	}
	setDefault(&req.Driver, "bridge")
	switch req.Driver {
	case "bridge", "macvlan", "ipvlan":
	case "overlay":
		n, err := d.makeOverlay(req)
		if err == nil {
			d.emitNetwork("create", n)
		}
		return n, "", err
	default:
		return nil, "", fail(http.StatusNotFound, "could not find plugin %s in v1 plugin registry: plugin not found", req.Driver)
	}
	n := d.newNetwork(req.Name, req.Driver)
	n.Internal, n.Attachable, n.EnableIPv6, n.ConfigOnly = req.Internal, req.Attachable, req.EnableIPv6, req.ConfigOnly
	if req.Options != nil {
		n.Options = req.Options
	}
	if req.Labels != nil {
		n.Labels = req.Labels
	}
	if err := d.addressNetwork(n, req.IPAM); err != nil {
		return nil, "", err
	}
	d.networks = append(d.networks, n)
	d.emitNetwork("create", n)
	return n, warning, nil
}

// addressNetwork gives the network the subnet it asked for, or the next free one.
func (d *Daemon) addressNetwork(n *network, want *ipam) error {
	if want != nil {
		n.IPAM.Options = want.Options
		n.IPAM.Config = want.Config
		if want.Driver != "" {
			n.IPAM.Driver = want.Driver
		}
	}
	if len(n.IPAM.Config) == 0 {
		n.IPAM.Config = []ipamConfig{d.freeSubnet()}
		return nil
	}
	for _, c := range n.IPAM.Config {
		if _, err := netip.ParsePrefix(c.Subnet); err != nil {
			return fail(http.StatusBadRequest, "invalid subnet %s", c.Subnet)
		}
		if d.overlaps(c.Subnet) {
			return fail(http.StatusForbidden, "Pool overlaps with other one on this address space")
		}
	}
	return nil
}

func (d *Daemon) freeSubnet() ipamConfig {
	for i := 18; ; i++ {
		subnet := fmt.Sprintf("172.%d.0.0/16", i)
		if i > 31 {
			subnet = fmt.Sprintf("192.168.%d.0/20", (i-32)*16)
		}
		if !d.overlaps(subnet) {
			return ipamConfig{Subnet: subnet, Gateway: netip.MustParsePrefix(subnet).Addr().Next().String()}
		}
	}
}

func (d *Daemon) overlaps(subnet string) bool {
	p := netip.MustParsePrefix(subnet)
	return slices.ContainsFunc(d.networks, func(n *network) bool {
		return slices.ContainsFunc(n.IPAM.Config, func(c ipamConfig) bool {
			have, err := netip.ParsePrefix(c.Subnet)
			return err == nil && have.Overlaps(p)
		})
	})
}

// emitNetwork sends a network event. Called with d.mu.
func (d *Daemon) emitNetwork(action string, n *network, pairs ...string) {
	d.emit("network", action, n.ID, attributes(nil, append(pairs, "name", n.Name, "type", n.Driver)...))
}

// removeNetwork answers DELETE /networks/{id}.
func (d *Daemon) removeNetwork(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.findNetwork(r.name)
	if err != nil {
		return err
	}
	if _, ok := predefined[n.Name]; ok {
		return fail(http.StatusForbidden, "%s is a pre-defined network and cannot be removed", n.Name)
	}
	if n.Scope == "swarm" {
		if err := d.removeOverlay(n); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if len(d.endpointsOn(n)) > 0 {
		return fail(http.StatusForbidden, "error while removing network: network %s id %s has active endpoints", n.Name, n.ID)
	}
	d.dropNetwork(n)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Daemon) dropNetwork(n *network) {
	d.networks = slices.DeleteFunc(d.networks, func(o *network) bool { return o == n })
	d.emitNetwork("destroy", n)
}

// pruneNetworks answers POST /networks/prune: those that nobody uses.
func (d *Daemon) pruneNetworks(w http.ResponseWriter, r *request) error {
	f, err := r.filters("label", "label!", "until")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var deleted []string
	for _, n := range slices.Clone(d.shownNetworks()) {
		if n.Scope == "swarm" {
			if !n.Ingress && f.labels(n.Labels) && d.removeOverlay(n) == nil {
				deleted = append(deleted, n.Name)
			}
			continue
		}
		if n.Name == "docker_gwbridge" && d.swarm != nil {
			continue // where real engines have their ends in it
		}
		if _, ok := predefined[n.Name]; !ok && len(d.endpointsOn(n)) == 0 && f.labels(n.Labels) {
			d.dropNetwork(n)
			deleted = append(deleted, n.Name)
		}
	}
	d.emit("network", "prune", "", map[string]string{"reclaimed": "0"})
	writeJSON(w, http.StatusOK, struct{ NetworksDeleted []string }{deleted})
	return nil
}
