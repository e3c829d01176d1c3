package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"berth/internal/fleet"
)

// nodeTable is classic Swarm's table in `docker info`: the client prints the pairs as they are, and shows them in its JSON.
func (s *Server) nodeTable(snap *fleet.Snapshot) [][2]string {
	policy := s.fleet.Policy()
	role, primary := "primary", ""
	if s.o.Role != nil {
		role, primary = s.o.Role()
	}
	rows := [][2]string{{"Role", role}}
	if primary != "" {
		rows = append(rows, [2]string{"Primary", primary})
	}
	strategy := policy.Strategy
	if strategy == "" {
		strategy = "spread"
	}
	rows = append(rows,
		[2]string{"Strategy", strategy},
		[2]string{"Filters", strings.Join(policy.Filters, ", ")},
		[2]string{"Nodes", count(len(snap.Nodes()))})
	if s.o.Overlay != nil {
		if o := s.o.Overlay.Status(); o.On || o.State != "off" {
			text := o.State
			if o.Managers > 0 {
				text += fmt.Sprintf(", %d of %d managers", o.Reachable, o.Managers)
			}
			rows = append(rows, [2]string{"Overlay", text})
		}
	}
	for _, n := range snap.Nodes() {
		rows = append(rows, nodeRows(n, policy.Overcommit)...)
	}
	return rows
}

func nodeRows(n *fleet.Node, overcommit float64) [][2]string {
	total := len(n.Containers)
	containers := count(total)
	if n.State == fleet.Healthy {
		containers = fmt.Sprintf("%d (%d Running, %d Paused, %d Stopped)", total, n.Sum.Running, n.Sum.Paused, n.Sum.Stopped)
	}
	cpus := float64(n.CPUs) * (1 + overcommit)
	memory := float64(n.Memory) * (1 + overcommit)
	rows := [][2]string{
		{" " + n.Name, n.Addr},
		{"  └ ID", n.ID},
		{"  └ Status", n.State.String()},
		{"  └ Containers", containers},
		{"  └ Reserved CPUs", trim(float64(n.Sum.NanoCPUs)/1e9) + " / " + trim(cpus)},
		{"  └ Reserved Memory", units.BytesSize(float64(n.Sum.Memory)) + " / " + units.BytesSize(memory)},
		{"  └ Labels", labelList(n.Labels)},
	}
	if !n.Takes() {
		rows = append(rows, [2]string{"  └ Availability", string(n.Availability)})
	}
	if n.Error != "" {
		rows = append(rows, [2]string{"  └ Error", n.Error})
	}
	return append(rows,
		[2]string{"  └ UpdatedAt", n.UpdatedAt.UTC().Format(time.RFC3339)},
		[2]string{"  └ ServerVersion", n.Version})
}

// trim writes a number of CPUs without needless zeros.
func trim(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(f, 'f', 2, 64), "0"), ".")
}

func labelList(labels map[string]string) string {
	list := make([]string, 0, len(labels))
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// nodeList is the same for programs: `docker info --format '{{json .}}'` shows it to those that ask the API directly.
func nodeList(snap *fleet.Snapshot) []map[string]any {
	list := []map[string]any{}
	for _, n := range snap.Nodes() {
		list = append(list, map[string]any{
			"Name": n.Name, "ID": n.ID, "Addr": n.Addr, "IP": n.IP, "State": n.State.String(), "Error": n.Error, "Health": n.Health,
			"Availability": availability(n), "Labels": n.Labels, "CPUs": n.CPUs, "Memory": n.Memory, "ReservedNanoCPUs": n.Sum.NanoCPUs, "ReservedMemory": n.Sum.Memory,
			"Containers": len(n.Containers), "Running": n.Sum.Running, "Paused": n.Sum.Paused, "Stopped": n.Sum.Stopped,
			"ServerVersion": n.Version, "ApiVersion": n.API, "UpdatedAt": n.UpdatedAt.UTC().Format(time.RFC3339),
		})
	}
	return list
}
