// Package names says where containers are found from outside: as DNS records, and as targets of Prometheus.
//
// It is a function of a view, which is read from what any manager answers: the list of containers and the addresses of nodes. What it
// tells is where published ports answer on the nodes; it knows nothing of the networks between containers.
package names

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"berth/internal/fleet"
)

// View is the running containers of a fleet at one moment.
type View struct {
	Containers []Container // by name
}

// Container is one that runs.
type Container struct {
	ID, Name, Image   string
	Project, Service  string // of Compose
	Node, NetworkMode string
	Address           netip.Addr // of its node; the zero value if that is not known
	Health            string     // "", starting, healthy, unhealthy
	Labels            map[string]string
	Ports             []Port // that are published where others can reach them
}

// Port is a published port.
type Port struct {
	Proto   string
	Private uint16         // in the container
	Public  netip.AddrPort // where it answers
}

// Well tells whether the container is one to send clients to. One whose health is not known yet is not.
func (c *Container) Well() bool { return c.Health == "" || c.Health == "healthy" }

// Addresses are where it is reached: where its ports are published, or its node if it uses that one's network.
func (c *Container) Addresses() []netip.Addr {
	if c.NetworkMode == "host" && c.Address.IsValid() {
		return []netip.Addr{c.Address}
	}
	var all []netip.Addr
	for _, p := range c.Ports {
		if !slices.Contains(all, p.Public.Addr()) {
			all = append(all, p.Public.Addr())
		}
	}
	return all
}

// row is what is read of a row of the list of containers.
type row struct {
	ID                   string `json:"Id"`
	Names                []string
	Image, State, Status string
	Labels               map[string]string
	Ports                []struct {
		IP, Type                string
		PrivatePort, PublicPort uint16
	}
	HostConfig struct{ NetworkMode string }
}

// Read makes a view of the list of containers. nodes are the addresses of those that answer, by name; what is on others is left out.
// elsewhere is the address of containers whose engine is served by itself, without a fleet.
func Read(list []byte, nodes map[string]netip.Addr, elsewhere netip.Addr) (*View, error) {
	var rows []row
	if err := json.Unmarshal(list, &rows); err != nil {
		return nil, fmt.Errorf("list of containers: %w", err)
	}
	v := new(View)
	for _, r := range rows {
		node := r.Labels[fleet.LabelNode]
		addr, answers := nodes[node]
		if node == "" {
			addr, answers = elsewhere, true
		}
		if answers && r.State == "running" && len(r.Names) > 0 {
			v.Containers = append(v.Containers, r.container(node, addr))
		}
	}
	slices.SortFunc(v.Containers, func(a, b Container) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID)) })
	return v, nil
}

func (r *row) container(node string, addr netip.Addr) Container {
	c := Container{
		ID: r.ID, Name: strings.TrimPrefix(r.Names[0], "/"), Image: r.Image, Labels: r.Labels, Node: node, Address: addr, NetworkMode: r.HostConfig.NetworkMode,
		Project: r.Labels[fleet.LabelProject], Service: r.Labels["com.docker.compose.service"],
	}
	for text, health := range map[string]string{"(healthy)": "healthy", "(unhealthy)": "unhealthy", "(health: starting)": "starting"} {
		if strings.HasSuffix(r.Status, text) {
			c.Health = health
		}
	}
	for _, p := range r.Ports {
		ip, err := netip.ParseAddr(p.IP)
		switch {
		case p.PublicPort == 0 || err != nil || ip.IsLoopback():
			continue // nothing answers outside of the node
		case ip.IsUnspecified():
			if !addr.IsValid() {
				continue
			}
			ip = addr
		}
		port := Port{p.Type, p.PrivatePort, netip.AddrPortFrom(ip.Unmap(), p.PublicPort)}
		if !slices.Contains(c.Ports, port) { // IPv4 and IPv6 of one node are one
			c.Ports = append(c.Ports, port)
		}
	}
	slices.SortFunc(c.Ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Private, b.Private), strings.Compare(a.Proto, b.Proto), a.Public.Compare(b.Public))
	})
	return c
}
