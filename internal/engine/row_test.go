package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// plainRow is a row as encoding/json reads it.
type plainRow struct {
	ID         string `json:"Id"`
	Names      []string
	Image      string
	ImageID    string
	Created    int64
	Labels     map[string]string
	State      string
	Status     string
	HostConfig struct{ NetworkMode string }
	Ports      []struct {
		IP                      string
		PrivatePort, PublicPort uint16
		Type                    string
	}
	Mounts          []fleet.Mount
	NetworkSettings struct {
		Networks map[string]struct{ NetworkID, IPAddress string }
	}
}

// drawRow is a row's fields, in any order, with one that nobody knows. Some fields are missing, null or empty.
func drawRow(t *rapid.T) map[string]any {
	text := rapid.OneOf(rapid.SampledFrom([]string{"bridge", "tcp", "0.0.0.0", "a\"b", `c\d`, "ü", ""}), rapid.StringMatching(`[a-z]{1,6}`))
	row := map[string]any{"Id": rapid.StringMatching(`[0-9a-f]{1,12}`).Draw(t, "id"), "Future": map[string]any{"x": []any{1, "]"}}}
	maybe := func(key string, value func() any) {
		switch rapid.IntRange(0, 5).Draw(t, key) {
		case 0: // missing
		case 1:
			row[key] = nil
		default:
			row[key] = value()
		}
	}
	texts := func(name string) map[string]string {
		return rapid.MapOfN(text, text, 0, 4).Draw(t, name)
	}
	name := rapid.StringMatching(`[a-z]{1,4}`)
	row["Names"] = []string{"/" + name.Draw(t, "name")}
	for range rapid.IntRange(0, 2).Draw(t, "aliases") {
		row["Names"] = append(row["Names"].([]string), "/"+name.Draw(t, "alias")+"/"+name.Draw(t, "alias"))
	}
	maybe("Labels", func() any {
		labels := texts("labels")
		if rapid.IntRange(0, 4).Draw(t, "named like ours") == 0 {
			labels[fleet.LabelNode] = "elsewhere"
		}
		return labels
	})
	maybe("Status", func() any {
		return rapid.SampledFrom([]string{"Up 2 hours", "Up 1 second (healthy)", "Exited (137) 3 days ago", ""}).Draw(t, "status")
	})
	row["Created"] = rapid.Int64Range(0, 1<<33).Draw(t, "created")
	for _, key := range []string{"Image", "ImageID", "State"} {
		row[key] = text.Draw(t, key)
	}
	maybe("HostConfig", func() any { return texts("hostConfig") })
	if rapid.Bool().Draw(t, "moded") {
		row["HostConfig"] = map[string]string{"NetworkMode": text.Draw(t, "mode")}
	}
	maybe("Ports", func() any {
		var ports []map[string]any
		for range rapid.IntRange(0, 3).Draw(t, "ports") {
			ports = append(ports, map[string]any{"IP": text.Draw(t, "ip"), "PrivatePort": rapid.Uint16().Draw(t, "private"), "PublicPort": rapid.Uint16Range(0, 2).Draw(t, "public"), "Type": text.Draw(t, "type")})
		}
		return ports
	})
	maybe("Mounts", func() any {
		return []map[string]string{{"Type": "volume", "Name": text.Draw(t, "volume"), "Source": "/x", "Destination": text.Draw(t, "destination"), "Mode": "z"}}
	})
	maybe("NetworkSettings", func() any {
		return map[string]any{"Networks": map[string]any{text.Draw(t, "network"): map[string]any{"NetworkID": text.Draw(t, "networkID"), "IPAddress": text.Draw(t, "ip"), "Aliases": nil}}}
	})
	return row
}

// What is read of a row is what encoding/json reads, and the row that we show has the same fields but for those we edit.
func TestRowsAreReadAsEncodingJSONReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := drawRow(t)
		raw := rawjson.Encode(row)
		if rapid.Bool().Draw(t, "indented") {
			var b bytes.Buffer
			if err := json.Indent(&b, raw, "", "  "); err != nil {
				t.Fatal(err)
			}
			raw = b.Bytes()
		}
		var want plainRow
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		node := rapid.SampledFrom([]string{"n1", `quote"`}).Draw(t, "node")
		body := bytes.Clone(raw)
		c, err := parseRow(body, node)
		if err != nil {
			t.Fatal(err)
		}
		clear(body) // nothing of it may be kept
		checkRead(t, c, want)
		checkShown(t, c, row, want, node)
	})
}

func checkRead(t *rapid.T, c *fleet.Container, want plainRow) {
	delete(want.Labels, fleet.LabelNode)
	got := plainRow{
		ID: c.ID, Image: c.Image, ImageID: c.ImageID, Created: c.Created / int64(time.Second), State: c.State, Status: c.Status,
		Labels: want.Labels, Names: want.Names, Ports: want.Ports, Mounts: want.Mounts, NetworkSettings: want.NetworkSettings,
	}
	got.HostConfig.NetworkMode = c.NetworkMode
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v, want %+v", got, want)
	}
	if labels := maps.Collect(c.Labels.All()); !maps.Equal(labels, want.Labels) {
		t.Fatalf("labels %q, want %q", labels, want.Labels)
	}
	names := []string{"/" + c.Name}
	for _, a := range c.Aliases {
		names = append(names, "/"+a)
	}
	if !slices.Equal(names, want.Names) {
		t.Fatalf("names %q, want %q", names, want.Names)
	}
	var ports []fleet.Port
	for _, p := range want.Ports {
		if p.PublicPort != 0 {
			ports = append(ports, fleet.Port{Proto: p.Type, HostIP: p.IP, HostPort: p.PublicPort, Port: p.PrivatePort})
		}
	}
	if !slices.Equal(c.Published, ports) {
		t.Fatalf("ports %v, want %v", c.Published, ports)
	}
	if !slices.Equal(c.Mounts, want.Mounts) {
		t.Fatalf("mounts %v, want %v", c.Mounts, want.Mounts)
	}
	var networks []fleet.Attachment
	for name, n := range want.NetworkSettings.Networks {
		networks = append(networks, fleet.Attachment{Name: name, NetworkID: n.NetworkID, IP: n.IPAddress})
	}
	if !slices.Equal(c.Networks, networks) {
		t.Fatalf("networks %v, want %v", c.Networks, networks)
	}
}

func checkShown(t *rapid.T, c *fleet.Container, row map[string]any, want plainRow, node string) {
	text := string(c.Head) + `"Up"` + string(c.Tail)
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("shown %s: %v", text, err)
	}
	row["Status"] = "Up"
	row["Names"] = append(slices.Clone(want.Names), "/"+node+"/"+strings.TrimPrefix(want.Names[0], "/"))
	labels := map[string]string{fleet.LabelNode: node}
	for k, v := range want.Labels {
		if k != fleet.LabelNode {
			labels[k] = v
		}
	}
	row["Labels"] = labels
	var wanted map[string]any
	if err := json.Unmarshal(rawjson.Encode(row), &wanted); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, wanted) {
		t.Fatalf("shown %v, want %v", got, wanted)
	}
}

// A row takes the memory that it is long.
func TestRowsTakeNoMoreThanTheyAreLong(t *testing.T) {
	for _, raw := range []string{
		`{"Id":"a","Names":["/web"],"Labels":{"a":"b"},"State":"running","Status":"Up 2 hours","Z":1}`,
		`{"Id":"a","Names":["/web","/p/back"],"Labels":{},"Status":""}`,
	} {
		c, err := parseRow([]byte(raw), "node")
		if err != nil {
			t.Fatal(err)
		}
		if n := cap(c.Head) + cap(c.Tail) - len(c.Head) - len(c.Tail); n > 16 { // what the allocator rounds up to
			t.Errorf("%d bytes too many for %s", n, raw)
		}
	}
}

func TestBrokenRowsAreErrors(t *testing.T) {
	for _, raw := range []string{``, `[]`, `{}`, `{"Id":""}`, `{"Id":"a","Names":1}`, `{"Id":"a","Labels":[1]}`, `{"Id":"a","Labels":{"a":1}}`, `{"Id":"a","Created":"x"}`, `{"Id":"a"`, `{"Id":"a","Ports":{}}`} {
		if c, err := parseRow([]byte(raw), "n"); err == nil {
			t.Errorf("%s gives %+v", raw, c)
		}
	}
}

// plainInspection is an inspection as encoding/json reads it.
type plainInspection struct {
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

func TestInspectionsAreReadAsEncodingJSONReadsThem(t *testing.T) {
	for _, raw := range []string{
		`{}`,
		`{"Created":"2026-01-02T03:04:05.123456789Z","State":{"Status":"exited","ExitCode":137,"StartedAt":"2026-01-02T03:04:05Z","FinishedAt":"0001-01-01T00:00:00Z","Health":null},
		"HostConfig":null,"Config":{"ExposedPorts":null},"ExecIDs":null}`,
		`{"State":{"Status":"running","Health":{"Status":"unhealthy","Log":[{"Output":"\"}"}]}},"HostConfig":{"Memory":1073741824,"NanoCpus":0,"CpuQuota":50000,"CpuPeriod":100000,"CpuShares":512,
		"PortBindings":{"80/tcp":[{"HostIp":"10.0.0.1","HostPort":"8080"},{"HostIp":"","HostPort":""}],"53/udp":null,"90":[{"HostPort":"90"}]}},"Config":{"ExposedPorts":{"80/tcp":{},"443/sctp":{}}},"ExecIDs":["a","b"]}`,
	} {
		body := []byte(raw)
		i, err := parseInspection(body)
		if err != nil {
			t.Fatal(err)
		}
		clear(body)
		var p plainInspection
		if err := json.Unmarshal([]byte(raw), &p); err != nil {
			t.Fatal(err)
		}
		want := &inspection{
			created: p.Created, status: p.State.Status, exit: p.State.ExitCode, started: p.State.StartedAt, finished: p.State.FinishedAt, memory: p.HostConfig.Memory,
			nanoCPUs: p.HostConfig.NanoCpus, quota: p.HostConfig.CPUQuota, period: p.HostConfig.CPUPeriod, shares: p.HostConfig.CPUShares, execIDs: p.ExecIDs,
		}
		if p.State.Health != nil {
			want.health = p.State.Health.Status
		}
		for spec, bindings := range p.HostConfig.PortBindings {
			port, proto := splitPort(spec)
			for _, b := range bindings {
				for _, hp := range hostPorts(b.HostPort) {
					want.bindings = append(want.bindings, fleet.Port{Proto: proto, HostIP: b.HostIP, HostPort: hp, Port: port})
				}
			}
		}
		for spec := range p.Config.ExposedPorts {
			port, proto := splitPort(spec)
			want.exposed = append(want.exposed, fleet.Port{Proto: proto, Port: port})
		}
		for _, x := range []*inspection{i, want} {
			sortPorts(x.bindings)
			sortPorts(x.exposed)
		}
		if got, want := fmt.Sprintf("%+v", i), fmt.Sprintf("%+v", want); got != want {
			t.Errorf("read %s, want %s", got, want)
		}
	}
	for _, raw := range []string{`[]`, `{"Created":"yesterday"}`, `{"State":[]}`, `{"HostConfig":{"Memory":"much"}}`} {
		if i, err := parseInspection([]byte(raw)); err == nil {
			t.Errorf("%s gives %+v", raw, i)
		}
	}
}

// BenchmarkRow and BenchmarkInspection are what each container costs when its engine is first seen, but for the calls.
func BenchmarkRow(b *testing.B) {
	raw := rawjson.Encode(map[string]any{
		"Id": strings.Repeat("0af1", 16), "Names": []string{"/shop-web-1"}, "Image": "nginx:1", "ImageID": "sha256:" + strings.Repeat("0a", 32), "Command": "nginx -g 'daemon off;'",
		"Created": 1700000000, "State": "running", "Status": "Up 2 hours", "HostConfig": map[string]string{"NetworkMode": "shop_default"},
		"Labels": map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "com.docker.compose.config-hash": strings.Repeat("1b", 32)},
		"Ports":  []map[string]any{{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}}, "Mounts": []any{},
		"NetworkSettings": map[string]any{"Networks": map[string]any{"shop_default": map[string]any{"NetworkID": strings.Repeat("2c", 32), "IPAddress": "172.18.0.2", "Gateway": "172.18.0.1"}}},
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseRow(raw, "n1"); err != nil {
			b.Fatal(err)
		}
	}
}
