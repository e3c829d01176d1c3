package names

import (
	"net/netip"
	"strconv"
	"strings"
)

// Group is one element of what Prometheus' http_sd reads.
type Group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// Labels of containers that say what is to be scraped.
const (
	labelScrape = "prometheus.scrape" // true, or false for never
	labelPort   = "prometheus.port"   // in the container
	labelPath   = "prometheus.path"
	labelScheme = "prometheus.scheme"
)

// Targets are the published TCP ports of containers, one group each, with the labels of Prometheus' docker_sd. Without all they are only
// those that containers ask for by their labels. Those that are not well are among them: that is what monitoring is for.
func (v *View) Targets(all bool) []Group {
	groups := []Group{} // null is no list for Prometheus
	for i := range v.Containers {
		groups = v.Containers[i].targets(groups, all)
	}
	return groups
}

func (c *Container) targets(groups []Group, all bool) []Group {
	scrape, port := c.Labels[labelScrape], c.Labels[labelPort]
	if scrape == "false" || !all && scrape != "true" && port == "" {
		return groups
	}
	if c.NetworkMode == "host" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || !c.Address.IsValid() {
			return groups // nobody knows what it listens on
		}
		return append(groups, c.group(Port{"tcp", uint16(n), netip.AddrPortFrom(c.Address, uint16(n))}))
	}
	for _, p := range c.Ports {
		if p.Proto == "tcp" && (port == "" || port == strconv.Itoa(int(p.Private))) {
			groups = append(groups, c.group(p))
		}
	}
	return groups
}

func (c *Container) group(p Port) Group {
	const docker = "__meta_docker_"
	labels := map[string]string{
		docker + "container_id": c.ID, docker + "container_name": "/" + c.Name, docker + "container_network_mode": c.NetworkMode,
		docker + "port_private": strconv.Itoa(int(p.Private)), docker + "port_public": strconv.Itoa(int(p.Public.Port())), docker + "port_public_ip": p.Public.Addr().String(),
		"__meta_berth_node": c.Node, "__meta_berth_image": c.Image, "__meta_berth_health": c.Health, "__meta_berth_project": c.Project, "__meta_berth_service": c.Service,
	}
	for k, v := range c.Labels {
		labels[docker+"container_label_"+labelName(k)] = v
	}
	if v := c.Labels[labelPath]; v != "" {
		labels["__metrics_path__"] = v
	}
	if v := c.Labels[labelScheme]; v != "" {
		labels["__scheme__"] = v
	}
	return Group{[]string{p.Public.String()}, labels}
}

// labelName makes a name for Prometheus as its own service discoveries do.
func labelName(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, s)
}
