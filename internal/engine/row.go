package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// rowField is one field of a row of GET /containers/json.
type rowField struct {
	key   string
	value []byte
}

// parseRow reads one row and prepares it for our own list: names of the fleet, the node's label, a gap for the status. All
// texts of the container but its ID are parts of the row that it makes, since a fleet has many containers: what is read of
// a row costs no memory beside it, and the body that raw is a part of is not kept.
func parseRow(raw []byte, node string) (*fleet.Container, error) {
	fields, err := rowFields(raw)
	if err != nil {
		return nil, fmt.Errorf("container list: %w", err)
	}
	strip(fields)
	c := new(fleet.Container)
	row := make([]byte, 0, rowSize(raw, fields, node))
	row = append(row, '{')
	cut := 0
	for i, f := range fields {
		if i > 0 {
			row = append(row, ',')
		}
		row = append(rawjson.AppendString(row, f.key), ':')
		start := len(row)
		switch f.key {
		case "Status":
			cut = start
			c.Status = strings.Clone(rawjson.View(f.value))
			continue
		case "Names":
			row, c.Name, c.Aliases, err = appendNames(row, f.value, node)
		case "Labels":
			row, c.Labels, err = appendLabels(row, f.value, node)
		default:
			row = append(row, f.value...)
			err = readField(c, f.key, row[start:])
		}
		if err != nil {
			return nil, fmt.Errorf("container list: %s: %w", f.key, err)
		}
	}
	row = append(row, '}')
	if c.ID == "" {
		return nil, errors.New("container list: a row without an Id")
	}
	c.Head, c.Tail = row[:cut:cut], row[cut:]
	_, c.Relay = c.Labels.Lookup(fleet.LabelRelay)
	c.Moved, c.Rescued, c.Reschedule = fleet.ParseMove(c.Labels), fleet.ParseRescue(c.Labels), fleet.ParseReschedule(c.Labels)
	c.ExitCode, c.Health = statusParts(c.Status)
	return c, nil
}

// rowFields are the fields of a row, with those added that ours has in any case.
func rowFields(raw []byte) ([]rowField, error) {
	fields := make([]rowField, 0, 20)
	missing := [...]rowField{{"Names", noneOf}, {"Labels", nothing}, {"Status", emptyText}}
	err := rawjson.Walk(raw, func(key string, value []byte) error {
		fields = append(fields, rowField{key, value})
		for i := range missing {
			if missing[i].key == key {
				missing[i].key = ""
			}
		}
		return nil
	})
	for _, add := range missing {
		if add.key != "" {
			fields = append(fields, add)
		}
	}
	return fields, err
}

var noneOf, nothing, emptyText = []byte("[]"), []byte("{}"), []byte(`""`)

// strip takes the labels off a container that was set aside: it is kept for its data, and whoever looks for containers by their
// labels, as Compose does, must not take it for one of those.
func strip(fields []rowField) {
	at := func(key string) int { return slices.IndexFunc(fields, func(f rowField) bool { return f.key == key }) }
	names, id, labels := at("Names"), at("Id"), at("Labels")
	if id < 0 || !bytes.Contains(fields[names].value, []byte("-stale-")) { // the other two are always there
		return
	}
	name, _, err := splitNames(fields[names].value, math.MaxInt)
	if was, is := fleet.Stale(name, rawjson.View(fields[id].value)); is && err == nil {
		fields[labels].value = rawjson.Encode(map[string]string{fleet.LabelStale: was})
	}
}

// rowSize is how many bytes our row has, as a rule exactly, so that none are kept for nothing.
func rowSize(raw []byte, fields []rowField, node string) int {
	size := len(raw) + len(`,"//",:""""`) + 2*len(node) + len(fleet.LabelNode)
	for _, f := range fields {
		switch f.key {
		case "Status":
			size -= len(f.value)
		case "Names":
			name, _, _ := splitNames(f.value, math.MaxInt) // broken ones are found where they are read
			size += len(name)
		case "Labels":
			if len(f.value) <= len(nothing) {
				size--
			}
		}
	}
	return size
}

// appendNames appends the container's names with that which has the node in front, and returns the engine's own of them.
func appendNames(row, value []byte, node string) (_ []byte, name string, aliases []string, err error) {
	name, aliases, err = splitNames(value, math.MaxInt)
	if err != nil {
		return row, "", nil, err
	}
	own, start := 1+len(aliases), len(row)
	if name == "" {
		list := []string{"/"}
		for _, a := range aliases {
			list = append(list, "/"+a)
		}
		value = rawjson.Strings(list)
	}
	value = bytes.TrimSpace(value)
	row = append(row, value[:len(value)-1]...)
	row = append(rawjson.AppendString(append(row, ','), "/"+node+"/"+name), ']')
	name, aliases, err = splitNames(row[start:], own)
	return row, name, aliases, err
}

// splitNames tells the container's own name, of the first names, from the names that links gave it, which have a slash inside.
func splitNames(value []byte, first int) (name string, aliases []string, err error) {
	err = rawjson.Each(value, func(v []byte) error {
		n := strings.TrimPrefix(rawjson.View(v), "/")
		switch first--; {
		case first < 0:
		case name == "" && !strings.Contains(n, "/"):
			name = n
		default:
			aliases = append(aliases, n)
		}
		return nil
	})
	return name, aliases, err
}

// appendLabels appends the labels with the node's, and returns the engine's own of them.
func appendLabels(row, value []byte, node string) ([]byte, fleet.Labels, error) {
	text, ok := members(value)
	members := fleet.Labels(rawjson.Share(text))
	if _, taken := members.Lookup(fleet.LabelNode); taken || !ok || !members.Valid() {
		var m map[string]string
		if err := json.Unmarshal(value, &m); err != nil {
			return row, "", err
		}
		delete(m, fleet.LabelNode)
		members = fleet.LabelsOf(m)
	}
	row = append(row, '{')
	start := len(row)
	row = append(row, members...)
	end := len(row)
	if start < end {
		row = append(row, ',')
	}
	row = append(rawjson.AppendString(row, fleet.LabelNode), ':')
	row = append(rawjson.AppendString(row, node), '}')
	return row, fleet.Labels(rawjson.Share(row[start:end])), nil
}

// members are what stands between the braces of an object.
func members(object []byte) ([]byte, bool) {
	if len(object) < len(nothing) || object[0] != '{' {
		return nil, false
	}
	return bytes.TrimSpace(object[1 : len(object)-1]), true
}

// readField takes from a field what we want to know.
func readField(c *fleet.Container, key string, value []byte) (err error) {
	switch key {
	case "Id":
		c.ID = strings.Clone(rawjson.View(value)) // it is kept in many places, and for longer than the row
	case "Image":
		c.Image = rawjson.View(value)
	case "ImageID":
		c.ImageID = rawjson.View(value)
	case "Created":
		var seconds int64
		seconds, err = strconv.ParseInt(rawjson.Share(value), 10, 64)
		c.Created = seconds * int64(time.Second)
	case "State":
		c.State = word(value)
	case "HostConfig":
		err = readObject(value, func(key string, value []byte) error {
			if key == "NetworkMode" {
				c.NetworkMode = word(value)
			}
			return nil
		})
	case "Ports":
		c.Published, err = readPorts(value)
	case "Mounts":
		c.Mounts, err = readMounts(value)
	case "NetworkSettings":
		err = readObject(value, func(key string, value []byte) (err error) {
			if key == "Networks" {
				c.Networks, err = readNetworks(value)
			}
			return err
		})
	}
	return err
}

// readObject is Walk of an object that may be null.
func readObject(value []byte, f func(key string, value []byte) error) error {
	if string(value) == "null" {
		return nil
	}
	return rawjson.Walk(value, f)
}

func readPorts(value []byte) (published []fleet.Port, err error) {
	err = rawjson.Each(value, func(v []byte) error {
		var p fleet.Port
		err := rawjson.Walk(v, func(key string, value []byte) error {
			switch key {
			case "IP":
				p.HostIP = word(value)
			case "PrivatePort":
				p.Port = number(value)
			case "PublicPort":
				p.HostPort = number(value)
			case "Type":
				p.Proto = word(value)
			}
			return nil
		})
		if p.HostPort != 0 {
			published = append(published, p)
		}
		return err
	})
	return published, err
}

// number reads a port. What is none is no port.
func number(value []byte) uint16 {
	n, _ := strconv.ParseUint(rawjson.Share(value), 10, 16)
	return uint16(n)
}

func readMounts(value []byte) (mounts []fleet.Mount, err error) {
	err = rawjson.Each(value, func(v []byte) error {
		var m fleet.Mount
		err := rawjson.Walk(v, func(key string, value []byte) error {
			switch key {
			case "Type":
				m.Type = word(value)
			case "Name":
				m.Name = rawjson.View(value)
			case "Source":
				m.Source = rawjson.View(value)
			case "Destination":
				m.Destination = rawjson.View(value)
			}
			return nil
		})
		mounts = append(mounts, m)
		return err
	})
	return mounts, err
}

func readNetworks(value []byte) (networks []fleet.Attachment, err error) {
	err = readObject(value, func(name string, v []byte) error {
		a := fleet.Attachment{Name: name}
		err := readObject(v, func(key string, value []byte) error {
			switch key {
			case "NetworkID":
				a.NetworkID = rawjson.View(value)
			case "IPAddress":
				a.IP = rawjson.View(value)
			}
			return nil
		})
		networks = append(networks, a)
		return err
	})
	return networks, err
}

// words are what many fields hold.
var words = func(all ...string) map[string]string {
	m := make(map[string]string, len(all))
	for _, w := range all {
		m[w] = w
	}
	return m
}("created", "running", "paused", "restarting", "removing", "exited", "dead", "starting", "healthy", "unhealthy", "none",
	"tcp", "udp", "sctp", "0.0.0.0", "::", "127.0.0.1", "bridge", "default", "host", "bind", "volume", "tmpfs")

// word is View for a text that is one of a few as a rule, so that comparing it does not read the row.
func word(value []byte) string {
	v := rawjson.View(value)
	if w, ok := words[v]; ok {
		return w
	}
	return v
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
