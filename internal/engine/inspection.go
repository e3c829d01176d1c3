package engine

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// inspection is what is read of GET /containers/{id}/json.
type inspection struct {
	created           time.Time
	status, health    string
	exit              int
	started, finished time.Time
	memory, nanoCPUs  int64
	quota, period     int64
	shares            int64
	bindings          []fleet.Port // with the host ports that were asked for
	exposed           []fleet.Port
	execIDs           []string
}

// parseInspection reads an inspection and keeps nothing of the body: every container of a fleet is inspected once, and most of
// what is told is not asked for.
func parseInspection(b []byte) (*inspection, error) {
	i := new(inspection)
	return i, rawjson.Walk(b, func(key string, value []byte) error {
		switch key {
		case "Created":
			return readTime(value, &i.created)
		case "State":
			return readObject(value, i.readState)
		case "HostConfig":
			return readObject(value, i.readHostConfig)
		case "Config":
			return readObject(value, i.readConfig)
		case "ExecIDs":
			return rawjson.Each(value, func(v []byte) error {
				i.execIDs = append(i.execIDs, strings.Clone(rawjson.View(v)))
				return nil
			})
		}
		return nil
	})
}

func (i *inspection) readState(key string, value []byte) error {
	switch key {
	case "Status":
		i.status = kept(value)
	case "ExitCode":
		var code int64
		err := readInt(value, &code)
		i.exit = int(code)
		return err
	case "StartedAt":
		return readTime(value, &i.started)
	case "FinishedAt":
		return readTime(value, &i.finished)
	case "Health":
		return readObject(value, func(key string, value []byte) error {
			if key == "Status" {
				i.health = kept(value)
			}
			return nil
		})
	}
	return nil
}

func (i *inspection) readHostConfig(key string, value []byte) error {
	switch key {
	case "Memory":
		return readInt(value, &i.memory)
	case "NanoCpus":
		return readInt(value, &i.nanoCPUs)
	case "CpuQuota":
		return readInt(value, &i.quota)
	case "CpuPeriod":
		return readInt(value, &i.period)
	case "CpuShares":
		return readInt(value, &i.shares)
	case "PortBindings":
		return readObject(value, i.readBindings)
	}
	return nil
}

func (i *inspection) readBindings(spec string, value []byte) error {
	port, proto := splitPort(spec)
	return rawjson.Each(value, func(v []byte) error {
		var ip, ports string
		err := readObject(v, func(key string, value []byte) error {
			switch key {
			case "HostIp":
				ip = kept(value)
			case "HostPort":
				ports = rawjson.View(value)
			}
			return nil
		})
		for _, hp := range hostPorts(ports) {
			i.bindings = append(i.bindings, fleet.Port{Proto: proto, HostIP: ip, HostPort: hp, Port: port})
		}
		return err
	})
}

func (i *inspection) readConfig(key string, value []byte) error {
	if key != "ExposedPorts" {
		return nil
	}
	return readObject(value, func(spec string, _ []byte) error {
		port, proto := splitPort(spec)
		i.exposed = append(i.exposed, fleet.Port{Proto: proto, Port: port})
		return nil
	})
}

// kept is a text that lasts longer than the body.
func kept(value []byte) string { return lasting(rawjson.View(value)) }

func lasting(text string) string {
	if w, ok := words[text]; ok {
		return w
	}
	return strings.Clone(text)
}

// readTime leaves the time alone where there is none.
func readTime(value []byte, t *time.Time) (err error) {
	if text := rawjson.View(value); text != "" {
		*t, err = time.Parse(time.RFC3339Nano, text)
	}
	return err
}

// readInt leaves the number alone where there is none.
func readInt(value []byte, n *int64) (err error) {
	if string(value) != "null" {
		*n, err = strconv.ParseInt(rawjson.Share(value), 10, 64)
	}
	return err
}

// apply puts what placement needs of an inspection into c, which is not published yet.
func (i *inspection) apply(c *fleet.Container) {
	c.Inspected = true
	if !i.created.IsZero() {
		c.Created = i.created.UnixNano()
	}
	c.Memory, c.NanoCPUs, c.CPUShares, c.ExecIDs = i.memory, i.nanoCPUs, i.shares, i.execIDs
	if c.NanoCPUs == 0 && i.quota > 0 {
		period := i.period
		if period == 0 {
			period = 100_000 // the kernel's default, in microseconds
		}
		c.NanoCPUs = i.quota * 1_000_000_000 / period
	}
	c.Wanted, c.Exposed = i.bindings, i.exposed
	sortPorts(c.Wanted)
	sortPorts(c.Exposed)
	if i.status == c.State {
		c.ExitCode, c.StartedAt, c.FinishedAt = i.exit, i.started, i.finished
		if i.health != "" && i.health != "none" {
			c.Health = i.health
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
	return uint16(n), lasting(proto)
}

// hostPorts reads a HostPort, which may be a range: any port of it may be taken, so all count as wanted only if it is one.
func hostPorts(s string) []uint16 {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil && n != 0 {
		return []uint16{uint16(n)}
	}
	return nil
}
