package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

func count(n int) string { return strconv.Itoa(n) }

// showInfo is the fleet as one engine: a healthy node's answer with the sums, the common values and the table of nodes in
// the place of what is that node's own.
func showInfo(s *Server, w http.ResponseWriter, _ *request) error {
	snap := s.fleet.Snapshot()
	o := new(rawjson.Object)
	for _, n := range snap.Nodes() {
		if n.State == fleet.Healthy || o.Len() == 0 {
			if i := infoObject(n); i.Len() > 0 && (o.Len() == 0 || n.State == fleet.Healthy) {
				o = i
				if n.State == fleet.Healthy {
					break
				}
			}
		}
	}
	s.addSums(o, snap)
	s.addCommon(o, snap)
	s.addCapabilities(o, snap)
	o.Set("SystemStatus", s.nodeTable(snap))
	o.Set("Warnings", s.warnings(snap))
	o.SetRaw("Swarm", []byte(`{"NodeID":"","NodeAddr":"","LocalNodeState":"inactive","ControlAvailable":false,"Error":"","RemoteManagers":null}`))
	o.Set("Nodes", nodeList(snap))
	writeRaw(w, http.StatusOK, append(o.Bytes(), '\n'))
	return nil
}

// addSums adds up what one engine would have as much of.
func (s *Server) addSums(o *rawjson.Object, snap *fleet.Snapshot) {
	var cpus, memory int64
	var running, paused, stopped int
	images := map[string]bool{}
	var files, routines, listeners int64
	for _, n := range snap.Nodes() {
		if n.State != fleet.Healthy {
			continue
		}
		cpus, memory = cpus+n.CPUs, memory+n.Memory
		running, paused, stopped = running+n.Sum.Running, paused+n.Sum.Paused, stopped+n.Sum.Stopped
		for _, i := range n.Images {
			images[i.ID] = true
		}
		var c struct{ NFd, NGoroutines, NEventsListener int64 }
		if json.Unmarshal(n.Info, &c) == nil {
			files, routines, listeners = files+c.NFd, routines+c.NGoroutines, listeners+c.NEventsListener
		}
	}
	for k, v := range map[string]int64{
		"NCPU": cpus, "MemTotal": memory, "Images": int64(len(images)), "NFd": files, "NGoroutines": routines, "NEventsListener": listeners,
		"Containers": int64(running + paused + stopped), "ContainersRunning": int64(running), "ContainersPaused": int64(paused), "ContainersStopped": int64(stopped),
	} {
		o.Set(k, v)
	}
}

func (s *Server) addCommon(o *rawjson.Object, snap *fleet.Snapshot) {
	c := commonOf(snap)
	o.Set("ID", s.o.ID)
	o.Set("Name", "berth")
	o.Set("ServerVersion", s.serverVersion(snap))
	o.Set("OSType", c.os)
	o.Set("OperatingSystem", c.operatingSystem)
	o.Set("KernelVersion", c.kernel)
	if o.Set("Driver", c.driver); c.driver == "mixed" {
		o.Set("DriverStatus", [][2]string{})
	}
	if o.Get("Architecture") == nil {
		o.Set("Architecture", c.arch)
	}
	o.Set("SystemTime", s.o.Now().UTC().Format(time.RFC3339Nano))
	o.Set("Labels", []string{"berth.nodes=" + count(len(snap.Nodes()))})
}

// addCapabilities says yes only where every node does.
func (s *Server) addCapabilities(o *rawjson.Object, snap *fleet.Snapshot) {
	flags := []string{
		"MemoryLimit", "SwapLimit", "KernelMemory", "KernelMemoryTCP", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit",
		"OomKillDisable", "IPv4Forwarding", "BridgeNfIptables", "BridgeNfIp6tables", "ExperimentalBuild", "LiveRestoreEnabled",
	}
	runtimes := new(rawjson.Object)
	cgroup := ""
	for _, n := range snap.Nodes() {
		if n.State != fleet.Healthy {
			continue
		}
		i := infoObject(n)
		for _, f := range flags {
			if o.Has(f) && bytes.Equal(i.Get(f), []byte("false")) {
				o.Set(f, false)
			}
		}
		if r, err := i.Object("Runtimes"); err == nil {
			for _, k := range r.Keys() {
				runtimes.SetRaw(k, r.Get(k))
			}
		}
		var v string
		if i.Decode("CgroupVersion", &v) == nil && (cgroup == "" || v == "1") {
			cgroup = v
		}
	}
	if runtimes.Len() > 0 {
		o.Set("Runtimes", runtimes)
	}
	if cgroup != "" {
		o.Set("CgroupVersion", cgroup)
	}
}

// nodeTable is classic Swarm's table in `docker info`: the client prints the pairs as they are.
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

// warnings say what is wrong with the fleet; the client prints them last.
func (s *Server) warnings(snap *fleet.Snapshot) []string {
	var out []string
	for _, n := range snap.Nodes() {
		if n.State != fleet.Healthy {
			out = append(out, fmt.Sprintf("WARNING: node %s (%s) is %s: %s", n.Name, n.Addr, strings.ToLower(n.State.String()), n.Error))
		}
	}
	if len(snap.Nodes()) == 0 {
		out = append(out, "WARNING: the fleet has no nodes; make one with `berth create` or name some to `berth serve`")
	}
	return out
}

// nodeList is the same for programs: `docker info --format '{{json .}}'` shows it to those that ask the API directly.
func nodeList(snap *fleet.Snapshot) []map[string]any {
	list := []map[string]any{}
	for _, n := range snap.Nodes() {
		list = append(list, map[string]any{
			"Name": n.Name, "ID": n.ID, "Addr": n.Addr, "IP": n.IP, "State": n.State.String(), "Error": n.Error, "Health": n.Health,
			"Labels": n.Labels, "CPUs": n.CPUs, "Memory": n.Memory, "ReservedNanoCPUs": n.Sum.NanoCPUs, "ReservedMemory": n.Sum.Memory,
			"Containers": len(n.Containers), "Running": n.Sum.Running, "Paused": n.Sum.Paused, "Stopped": n.Sum.Stopped,
			"ServerVersion": n.Version, "ApiVersion": n.API, "UpdatedAt": n.UpdatedAt.UTC().Format(time.RFC3339),
		})
	}
	return list
}
