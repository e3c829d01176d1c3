package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// row is what is read of one row of GET /containers/json; the row itself stays as it came.
type row struct {
	ID              string `json:"Id"`
	Names           []string
	Image           string
	ImageID         string
	Created         int64
	Labels          map[string]string
	State           string
	Status          string
	HostConfig      struct{ NetworkMode string }
	Ports           []rowPort
	Mounts          []fleet.Mount
	NetworkSettings struct {
		Networks map[string]struct{ NetworkID, IPAddress string }
	}
}

type rowPort struct {
	IP                      string
	PrivatePort, PublicPort uint16
	Type                    string
}

// parseRow reads one row and prepares it for our own list: names of the fleet, the node's label, a gap for the status.
func parseRow(raw []byte, node string) (*fleet.Container, error) {
	var r row
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("container list: %w", err)
	}
	if r.ID == "" {
		return nil, errors.New("container list: a row without an Id")
	}
	c := &fleet.Container{
		ID: r.ID, Image: intern(r.Image), ImageID: intern(r.ImageID), Labels: internAll(r.Labels), Created: r.Created * int64(time.Second),
		State: intern(r.State), Status: r.Status, NetworkMode: intern(r.HostConfig.NetworkMode), Mounts: r.Mounts,
	}
	_, c.Relay = r.Labels[fleet.LabelRelay]
	c.Moved = fleet.ParseMove(r.Labels)
	c.Name, c.Aliases = splitNames(r.Names)
	c.ExitCode, c.Health = statusParts(r.Status)
	for _, p := range r.Ports {
		if p.PublicPort != 0 {
			c.Published = append(c.Published, fleet.Port{Proto: p.Type, HostIP: p.IP, HostPort: p.PublicPort, Port: p.PrivatePort})
		}
	}
	for name, n := range r.NetworkSettings.Networks {
		c.Networks = append(c.Networks, fleet.Attachment{Name: intern(name), NetworkID: intern(n.NetworkID), IP: n.IPAddress})
	}
	o, err := rawjson.ParseTrusted(raw)
	if err != nil {
		return nil, fmt.Errorf("container list: %w", err)
	}
	return c, render(c, o, node)
}

// intern keeps one copy of what many containers have: images, networks, states and labels come in a few different ones.
func intern(s string) string { return unique.Make(s).Value() }

// longLabel is from where on a label's value is its container's own, as a rule.
const longLabel = 48

func internAll(labels map[string]string) map[string]string {
	if labels == nil {
		return nil
	}
	kept := make(map[string]string, len(labels))
	for k, v := range labels {
		if len(v) < longLabel {
			v = intern(v)
		}
		kept[intern(k)] = v
	}
	return kept
}

// render makes Head and Tail of a row.
func render(c *fleet.Container, o *rawjson.Object, node string) error {
	names := []string{"/" + c.Name}
	for _, a := range c.Aliases {
		names = append(names, "/"+a)
	}
	o.SetRaw("Names", rawjson.Strings(append(names, "/"+node+"/"+c.Name)))
	labels, err := o.Object("Labels")
	if err != nil {
		return fmt.Errorf("container list: %w", err)
	}
	labels.Set(fleet.LabelNode, node)
	o.Set("Labels", labels)
	if o.Get("Status") == nil {
		o.Set("Status", "")
	}
	c.Head, c.Tail, err = o.Cut("Status")
	return err
}

// splitNames tells the container's own name from the names that links gave it, which have a slash inside.
func splitNames(names []string) (name string, aliases []string) {
	for _, n := range names {
		n = strings.TrimPrefix(n, "/")
		if name == "" && !strings.Contains(n, "/") {
			name = n
			continue
		}
		aliases = append(aliases, n)
	}
	return name, aliases
}

// statusParts reads the exit code and the health that only the text of the row tells.
func statusParts(status string) (exit int, health string) {
	if _, rest, ok := strings.Cut(status, "("); ok {
		inner, _, _ := strings.Cut(rest, ")")
		if n, err := strconv.Atoi(inner); err == nil {
			exit = n
		}
	}
	for _, h := range []string{"(healthy)", "(unhealthy)", "(health: starting)"} {
		if strings.HasSuffix(status, h) {
			return exit, strings.TrimPrefix(strings.Trim(h, "()"), "health: ")
		}
	}
	return exit, ""
}

// inspection is what is read of GET /containers/{id}/json.
type inspection struct {
	Created time.Time
	State   struct {
		Status     string
		ExitCode   int
		StartedAt  time.Time
		FinishedAt time.Time
		Health     *struct{ Status string }
	}
	HostConfig struct {
		Memory, NanoCpus, CPUQuota, CPUPeriod, CPUShares int64
		PortBindings                                     map[string][]struct{ HostIP, HostPort string }
	}
	Config struct {
		ExposedPorts map[string]struct{}
	}
	ExecIDs []string
}

// apply puts what placement needs of an inspection into c, which is not published yet.
func (i *inspection) apply(c *fleet.Container) {
	h := i.HostConfig
	c.Inspected = true
	if !i.Created.IsZero() {
		c.Created = i.Created.UnixNano()
	}
	c.Memory, c.NanoCPUs, c.CPUShares, c.ExecIDs = h.Memory, h.NanoCpus, h.CPUShares, i.ExecIDs
	if c.NanoCPUs == 0 && h.CPUQuota > 0 {
		period := h.CPUPeriod
		if period == 0 {
			period = 100_000 // the kernel's default, in microseconds
		}
		c.NanoCPUs = h.CPUQuota * 1_000_000_000 / period
	}
	c.Wanted, c.Exposed = nil, nil
	for spec, bindings := range h.PortBindings {
		port, proto := splitPort(spec)
		for _, b := range bindings {
			for _, hp := range hostPorts(b.HostPort) {
				c.Wanted = append(c.Wanted, fleet.Port{Proto: proto, HostIP: b.HostIP, HostPort: hp, Port: port})
			}
		}
	}
	for spec := range i.Config.ExposedPorts {
		port, proto := splitPort(spec)
		c.Exposed = append(c.Exposed, fleet.Port{Proto: proto, Port: port})
	}
	sortPorts(c.Wanted)
	sortPorts(c.Exposed)
	if i.State.Status == c.State {
		c.ExitCode, c.StartedAt, c.FinishedAt = i.State.ExitCode, i.State.StartedAt, i.State.FinishedAt
		if i.State.Health != nil && i.State.Health.Status != "none" {
			c.Health = i.State.Health.Status
		}
	}
}

func sortPorts(ps []fleet.Port) {
	slices.SortFunc(ps, func(a, b fleet.Port) int {
		if d := int(a.HostPort) - int(b.HostPort); d != 0 {
			return d
		}
		if d := int(a.Port) - int(b.Port); d != 0 {
			return d
		}
		return strings.Compare(a.Proto+a.HostIP, b.Proto+b.HostIP)
	})
}

// splitPort reads "80/tcp". What is no number gives 0, which conflicts with nothing.
func splitPort(spec string) (uint16, string) {
	num, proto, ok := strings.Cut(spec, "/")
	if !ok {
		proto = "tcp"
	}
	n, _ := strconv.ParseUint(num, 10, 16) // "" and ranges mean no fixed port
	return uint16(n), proto
}

// hostPorts reads a HostPort, which may be a range: any port of it may be taken, so all count as wanted only if it is one.
func hostPorts(s string) []uint16 {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil && n != 0 {
		return []uint16{uint16(n)}
	}
	return nil
}
