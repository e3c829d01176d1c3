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

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

func count(n int) string { return strconv.Itoa(n) }

// showInfo is the fleet as one engine: a node's answer with the sums, the common values and the table of nodes in the place
// of what is that node's own. Fields that we do not know stay as that node has them.
func showInfo(s *Server, w http.ResponseWriter, r *request) error {
	s.fleet.Settle(r.Context(), fleet.KindContainer)
	snap := s.fleet.Snapshot()
	infos := infosOf(snap)
	o := new(rawjson.Object)
	if len(infos) > 0 {
		o = infos[0].copy()
	} else {
		blankInfo(o)
	}
	addSums(o, snap)
	s.addNames(o, snap)
	addCommon(o, infos)
	addUnions(o, infos)
	o.Set("SystemStatus", s.nodeTable(snap))
	o.Set("Warnings", s.warnings(snap, infos))
	o.SetRaw("Swarm", []byte(`{"NodeID":"","NodeAddr":"","LocalNodeState":"inactive","ControlAvailable":false,"Error":"","RemoteManagers":null}`))
	o.Set("Nodes", nodeList(snap))
	writeRaw(w, http.StatusOK, append(o.Bytes(), '\n'))
	return nil
}

// infos are the answers of several nodes to GET /info.
type infos []nodeInfo

type nodeInfo struct {
	o   *rawjson.Object
	raw []byte
}

// copy is the answer once more, to be changed.
func (i nodeInfo) copy() *rawjson.Object {
	o, err := rawjson.ParseTrusted(i.raw)
	if err != nil {
		return new(rawjson.Object) // infosOf has parsed it before
	}
	return o
}

// infosOf reads the healthy nodes, or what was last heard of the others if none is.
func infosOf(snap *fleet.Snapshot) infos {
	var up, down infos
	for _, n := range snap.Nodes() {
		o, err := rawjson.ParseTrusted(n.Info)
		if err != nil {
			continue // never reached: it has said nothing yet
		}
		if n.State == fleet.Healthy {
			up = append(up, nodeInfo{o, n.Info})
		} else {
			down = append(down, nodeInfo{o, n.Info})
		}
	}
	if len(up) == 0 {
		return down
	}
	return up
}

// blankInfo is a fleet without a node that ever answered; clients look into these fields without a question.
func blankInfo(o *rawjson.Object) {
	o.SetRaw("Plugins", []byte(`{"Volume":[],"Network":[],"Authorization":null,"Log":[]}`))
	o.SetRaw("RegistryConfig", []byte(`{"InsecureRegistryCIDRs":[],"IndexConfigs":{},"Mirrors":[]}`))
	for _, k := range []string{"MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit", "IPv4Forwarding", "OomKillDisable"} {
		o.Set(k, true) // else clients warn of what no node lacks
	}
	o.Set("OSType", "linux")
	o.Set("IndexServerAddress", "https://index.docker.io/v1/")
	o.Set("SecurityOptions", []string{})
	o.Set("Runtimes", map[string]any{})
}

// addSums adds up what one engine would have as much of.
func addSums(o *rawjson.Object, snap *fleet.Snapshot) {
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
	for _, sum := range []struct {
		key   string
		value int64
	}{
		{"Containers", int64(running + paused + stopped)}, {"ContainersRunning", int64(running)}, {"ContainersPaused", int64(paused)},
		{"ContainersStopped", int64(stopped)}, {"Images", int64(len(images))}, {"NCPU", cpus}, {"MemTotal", memory},
		{"NFd", files}, {"NGoroutines", routines}, {"NEventsListener", listeners},
	} {
		o.Set(sum.key, sum.value)
	}
}

// addNames puts the endpoint's own in the place of a node's.
func (s *Server) addNames(o *rawjson.Object, snap *fleet.Snapshot) {
	o.Set("ID", s.o.ID)
	o.Set("Name", "berth")
	o.Set("ServerVersion", s.serverVersion(snap))
	o.Set("SystemTime", s.o.Now().UTC().Format(time.RFC3339Nano))
	o.Set("Labels", []string{"berth.nodes=" + count(len(snap.Nodes()))})
}

// addCommon takes the most frequent value of what one engine has one of. What people read says so where nodes differ.
func addCommon(o *rawjson.Object, all infos) {
	for _, k := range []string{
		"OSType", "Architecture", "CgroupDriver", "LoggingDriver", "DefaultRuntime", "InitBinary", "DockerRootDir", "ContainerdCommit",
		"RuncCommit", "InitCommit",
	} {
		if v, _ := all.majority(k); v != nil {
			o.SetRaw(k, v)
		}
	}
	for _, k := range []string{"OperatingSystem", "KernelVersion", "OSVersion"} {
		if v, mixed := all.majority(k); mixed {
			o.Set(k, "mixed ("+count(len(all))+" nodes)")
		} else if v != nil {
			o.SetRaw(k, v)
		}
	}
	if string(o.Get("OperatingSystem")) == `"Docker Desktop"` {
		o.Set("OperatingSystem", "Docker Desktop under berth") // by the bare name clients expect its socket on their own machine
	}
	if _, mixed := all.majority("Driver"); mixed {
		o.Set("Driver", "mixed")
		o.Set("DriverStatus", [][2]string{})
	}
	for _, i := range all {
		if string(i.o.Get("CgroupVersion")) == `"1"` {
			o.Set("CgroupVersion", "1")
		}
	}
	for _, k := range []string{
		"MemoryLimit", "SwapLimit", "KernelMemory", "KernelMemoryTCP", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit",
		"OomKillDisable", "IPv4Forwarding", "BridgeNfIptables", "BridgeNfIp6tables", "Debug", "ExperimentalBuild", "LiveRestoreEnabled",
	} {
		if slices.ContainsFunc(all, func(i nodeInfo) bool { return bytes.Equal(i.o.Get(k), []byte("false")) }) {
			o.Set(k, false) // yes only where every node says yes
		}
	}
}

// majority is the most frequent value of a field, the first node's in a draw, and whether there are others.
func (all infos) majority(key string) (value json.RawMessage, mixed bool) {
	votes := map[string]int{}
	for _, i := range all {
		v := i.o.Get(key)
		if v == nil {
			continue
		}
		if votes[string(v)]++; value == nil || votes[string(v)] > votes[string(value)] {
			value = v
		}
	}
	return value, len(votes) > 1
}

// tally counts the entries of a list over all nodes, in the order of their first appearance.
func (all infos) tally(key string) (order []string, votes map[string]int) {
	votes = map[string]int{}
	for _, i := range all {
		var has []string
		if i.o.Decode(key, &has) != nil {
			continue // no list of words: nothing that we could count
		}
		for _, v := range has {
			if votes[v]++; votes[v] == 1 {
				order = append(order, v)
			}
		}
	}
	return order, votes
}

// addUnions shows what some node has, of which placement or the user has to know.
func addUnions(o *rawjson.Object, all infos) {
	if len(all) == 0 {
		return
	}
	runtimes := new(rawjson.Object)
	plugins := map[string][]string{"Volume": {}, "Network": {}, "Authorization": nil, "Log": {}}
	for _, i := range all {
		if r, err := i.o.Object("Runtimes"); err == nil {
			for _, k := range r.Keys() {
				runtimes.SetRaw(k, r.Get(k))
			}
		}
		var has map[string][]string
		if i.o.Decode("Plugins", &has) == nil {
			for kind, names := range has {
				plugins[kind] = append(plugins[kind], names...)
			}
		}
	}
	for kind, names := range plugins {
		slices.Sort(names)
		plugins[kind] = slices.Compact(names)
	}
	o.Set("Runtimes", runtimes)
	o.Set("Plugins", plugins)
	o.Set("SecurityOptions", all.securityOptions())
}

// securityOptions are those that all nodes have, and those of a single one that take abilities away.
func (all infos) securityOptions() []string {
	order, votes := all.tally("SecurityOptions")
	kept := []string{}
	for _, v := range order {
		if votes[v] == len(all) || strings.HasPrefix(v, "name=rootless") || strings.HasPrefix(v, "name=userns") {
			kept = append(kept, v)
		}
	}
	return kept
}

// warnings say what is wrong with the fleet, and what engines say themselves, once; the client prints them last.
func (s *Server) warnings(snap *fleet.Snapshot, all infos) []string {
	var out []string
	if s.o.Notices != nil {
		for _, n := range s.o.Notices() {
			out = append(out, "WARNING: "+n)
		}
	}
	for _, n := range snap.Nodes() {
		if n.State != fleet.Healthy {
			out = append(out, fmt.Sprintf("WARNING: node %s (%s) is %s: %s", n.Name, n.Addr, strings.ToLower(n.State.String()), n.Error))
		}
	}
	if len(snap.Nodes()) == 0 {
		out = append(out, "WARNING: the fleet has no nodes; make one with `berth create` or name some to `berth serve`")
	}
	order, votes := all.tally("Warnings")
	for _, v := range order {
		if strings.HasPrefix(v, "WARNING: Running Swarm in ") {
			continue // how many managers the swarm beneath has is berth's to say
		}
		if votes[v] < len(all) {
			v += fmt.Sprintf(" (%d of %d nodes)", votes[v], len(all))
		}
		out = append(out, v)
	}
	return out
}
