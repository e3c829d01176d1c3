package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	compose "github.com/compose-spec/compose-go/v2/types"

	"berth/internal/fleet"
)

// composeBody is the body of a create, as far as placement reads it.
type composeBody struct {
	Image            string
	Env              []string
	Labels           map[string]string
	ExposedPorts     map[string]struct{}
	HostConfig       composeHost
	NetworkingConfig struct {
		EndpointsConfig map[string]composeNetwork
	}
}

type composeHost struct {
	NetworkMode, IpcMode, PidMode         string `json:",omitempty"` //nolint:revive // the API's spelling
	Memory, NanoCpus, CpuQuota, CpuPeriod int64  //nolint:revive // the API's spelling
	Links, VolumesFrom                    []string
	PortBindings                          map[string][]composeBinding
	Mounts                                []composeMount
}

type composeNetwork struct{ Links []string }

type composeBinding struct{ HostIp, HostPort string } //nolint:revive // the API's spelling

type composeMount struct{ Type, Source, Target string }

// body is what Compose sends to create a service's nth container.
func (c *composePlan) body(s *compose.ServiceConfig, n int) json.RawMessage {
	b := composeBody{Image: cmp.Or(s.Image, c.project.Name+"-"+s.Name), Labels: map[string]string{}}
	maps.Copy(b.Labels, s.Labels)
	b.Labels[fleet.LabelProject], b.Labels[labelService] = c.project.Name, s.Name
	b.Labels[labelNumber], b.Labels[labelOneOff] = strconv.Itoa(n), "False"
	for _, key := range slices.Sorted(maps.Keys(s.Environment)) {
		if v := s.Environment[key]; v != nil {
			b.Env = append(b.Env, key+"="+*v)
		}
	}
	b.ports(s)
	b.resources(s)
	c.mounts(&b, s)
	c.networks(&b, s)
	raw, err := json.Marshal(b)
	if err != nil {
		panic(err) // texts and numbers only
	}
	return raw
}

func (b *composeBody) ports(s *compose.ServiceConfig) {
	b.ExposedPorts, b.HostConfig.PortBindings = map[string]struct{}{}, map[string][]composeBinding{}
	for _, e := range s.Expose {
		if !strings.Contains(e, "/") {
			e += "/tcp"
		}
		b.ExposedPorts[e] = struct{}{}
	}
	for _, p := range s.Ports {
		spec := fmt.Sprintf("%d/%s", p.Target, cmp.Or(p.Protocol, "tcp"))
		b.ExposedPorts[spec] = struct{}{}
		b.HostConfig.PortBindings[spec] = append(b.HostConfig.PortBindings[spec], composeBinding{p.HostIP, p.Published})
	}
}

// resources are the service's own, unless its deploy section has limits.
func (b *composeBody) resources(s *compose.ServiceConfig) {
	h := &b.HostConfig
	h.Memory, h.NanoCpus, h.CpuQuota, h.CpuPeriod = int64(s.MemLimit), nanoCPUs(s.CPUS), s.CPUQuota, s.CPUPeriod
	if s.Deploy == nil || s.Deploy.Resources.Limits == nil {
		return
	}
	limits := s.Deploy.Resources.Limits
	if limits.MemoryBytes > 0 {
		h.Memory = int64(limits.MemoryBytes)
	}
	if limits.NanoCPUs > 0 {
		h.NanoCpus = nanoCPUs(float32(limits.NanoCPUs))
	}
}

// nanoCPUs rounds: Compose files are read into numbers that hold seven digits.
func nanoCPUs(cpus float32) int64 { return int64(float64(cpus)*1e6+0.5) * 1000 }

func (c *composePlan) mounts(b *composeBody, s *compose.ServiceConfig) {
	for _, v := range s.Volumes {
		source := v.Source
		if named, ok := c.project.Volumes[source]; ok && v.Type == "volume" {
			source = named.Name
		}
		b.HostConfig.Mounts = append(b.HostConfig.Mounts, composeMount{v.Type, source, v.Target})
	}
	for _, from := range s.VolumesFrom {
		if other, ok := strings.CutPrefix(from, "container:"); ok {
			b.HostConfig.VolumesFrom = append(b.HostConfig.VolumesFrom, other)
			continue
		}
		service, mode, _ := strings.Cut(from, ":")
		b.HostConfig.VolumesFrom = append(b.HostConfig.VolumesFrom, strings.TrimSuffix(c.container(service, 1)+":"+mode, ":"))
	}
}

func (c *composePlan) networks(b *composeBody, s *compose.ServiceConfig) {
	h := &b.HostConfig
	h.NetworkMode, h.IpcMode, h.PidMode = c.mode(s.NetworkMode), c.mode(s.Ipc), c.mode(s.Pid)
	var links []string
	for _, l := range s.Links {
		service, alias, _ := strings.Cut(l, ":")
		links = append(links, c.container(service, 1)+":"+cmp.Or(alias, service))
	}
	links = append(links, s.ExternalLinks...)
	if s.NetworkMode != "" || len(s.Networks) == 0 {
		h.Links = links
		return
	}
	b.NetworkingConfig.EndpointsConfig = map[string]composeNetwork{}
	for i, key := range s.NetworksByPriority() {
		name := c.project.Networks[key].Name
		if i == 0 {
			h.NetworkMode = name
		}
		b.NetworkingConfig.EndpointsConfig[name] = composeNetwork{links}
	}
}

// mode turns a service into its container in network_mode, ipc and pid.
func (c *composePlan) mode(mode string) string {
	if service, ok := strings.CutPrefix(mode, "service:"); ok {
		return "container:" + c.container(service, 1)
	}
	return mode
}
