package dockertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	units "github.com/docker/go-units"
)

// containerJSON is the answer of inspect, in the engine's order.
type containerJSON struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           stateJSON
	Image           string
	ResolvConfPath  string
	HostnamePath    string
	HostsPath       string
	LogPath         string
	Name            string
	RestartCount    int
	Driver          string
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	ExecIDs         []string
	HostConfig      json.RawMessage
	GraphDriver     map[string]any
	SizeRw          *int64 `json:",omitempty"`
	SizeRootFs      *int64 `json:",omitempty"`
	Mounts          []mountPoint
	Config          *config
	NetworkSettings networkSettings
}

type stateJSON struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  string
	FinishedAt string
	Health     *healthJSON `json:",omitempty"`
}

type healthJSON struct {
	Status        string
	FailingStreak int
	Log           []struct{}
}

// inspectContainer answers GET /containers/{id}/json.
func (d *Daemon) inspectContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	v := c.inspect()
	if r.flag("size") {
		var rw int64
		root := d.images[c.imageID].size
		v.SizeRw, v.SizeRootFs = &rw, &root
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

func (c *container) inspect() containerJSON {
	cmd := append(c.command(), "")
	args := append([]string{}, cmd[1:max(1, len(cmd)-1)]...)
	v := containerJSON{
		ID: c.id, Created: timestamp(c.created), Path: cmd[0], Args: args, State: c.state(), Image: c.imageID,
		Name: "/" + c.name, RestartCount: c.restarts, Driver: "overlay2", Platform: "linux", HostConfig: c.hostConfigJSON(),
		GraphDriver: map[string]any{"Name": "overlay2", "Data": map[string]string{}},
		Mounts:      c.mounts, Config: c.config, NetworkSettings: c.networkSettings(),
	}
	if v.Mounts == nil {
		v.Mounts = []mountPoint{}
	}
	for _, e := range c.execs {
		if !e.over {
			v.ExecIDs = append(v.ExecIDs, e.id)
		}
	}
	if c.prepared {
		dir := "/var/lib/docker/containers/" + c.id + "/"
		v.ResolvConfPath, v.HostnamePath, v.HostsPath, v.LogPath = dir+"resolv.conf", dir+"hostname", dir+"hosts", dir+c.id+"-json.log"
	}
	return v
}

func (c *container) state() stateJSON {
	s := stateJSON{
		Status: c.status, Running: c.running() || c.status == "restarting", Paused: c.status == "paused",
		Restarting: c.status == "restarting", Pid: c.pid, ExitCode: c.exitCode, Error: c.err,
		StartedAt: timestamp(c.startedAt), FinishedAt: timestamp(c.finishedAt),
	}
	if c.health != "" {
		s.Health = &healthJSON{Status: c.health, Log: []struct{}{}}
	}
	return s
}

// defaultHostConfig is what Engine 20.10 shows for a container that asked for nothing.
var defaultHostConfig = []byte(`{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{}},"NetworkMode":"default",
"PortBindings":null,"RestartPolicy":{"Name":"","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,
"CapAdd":null,"CapDrop":null,"CgroupnsMode":"host","Dns":null,"DnsOptions":null,"DnsSearch":null,"ExtraHosts":null,"GroupAdd":null,
"IpcMode":"private","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,
"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":67108864,"Runtime":"runc","ConsoleSize":[0,0],
"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":null,
"BlkioDeviceReadBps":null,"BlkioDeviceWriteBps":null,"BlkioDeviceReadIOps":null,"BlkioDeviceWriteIOps":null,"CpuPeriod":0,
"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":null,"DeviceCgroupRules":null,
"DeviceRequests":null,"KernelMemory":0,"KernelMemoryTCP":0,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":null,
"OomKillDisable":false,"PidsLimit":null,"Ulimits":null,"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,
"MaskedPaths":["/proc/asound","/proc/acpi","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/timer_list","/proc/timer_stats",
"/proc/sched_debug","/proc/scsi","/sys/firmware"],
"ReadonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}`)

// optionalHostConfig are fields that are shown only when they were given, with the API version that knows them.
var optionalHostConfig = map[string]string{
	"Mounts": "1.25", "StorageOpt": "1.24", "Tmpfs": "1.24", "Sysctls": "1.24", "Init": "1.25", "Annotations": "1.43",
}

// hostConfigJSON lays what the client sent over the defaults. Fields that the engine does not know vanish.
func (c *container) hostConfigJSON() json.RawMessage {
	merged, err := mergeObjects(defaultHostConfig, nil)
	if err != nil {
		panic(fmt.Sprintf("dockertest: default HostConfig: %v", err))
	}
	m, sent := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	mustUnmarshal(merged, &m)
	if len(c.rawHost) > 0 {
		mustUnmarshal(c.rawHost, &sent)
	}
	canonical := map[string]string{}
	for k := range m {
		canonical[strings.ToLower(k)] = k
	}
	for k, since := range optionalHostConfig {
		if c.d.speaks(since) {
			canonical[strings.ToLower(k)] = k
		}
	}
	for k, v := range sent {
		name, known := canonical[strings.ToLower(k)]
		if known && !unset(v) {
			m[name] = v
		}
	}
	if c.host.PortBindings != nil {
		m["PortBindings"] = mustMarshal(c.host.PortBindings)
	}
	if c.host.Memory > 0 && string(m["MemorySwap"]) == "0" {
		m["MemorySwap"] = json.RawMessage(fmt.Sprint(2 * c.host.Memory))
	}
	return mustMarshal(m)
}

// unset says whether a client's value leaves the daemon's default in place.
func unset(v json.RawMessage) bool {
	return slices.Contains([]string{"null", `""`, "0"}, string(v))
}

func mustUnmarshal(raw []byte, v any) {
	if err := json.Unmarshal(raw, v); err != nil {
		panic(fmt.Sprintf("dockertest: decode %T: %v", v, err))
	}
}

func mustMarshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("dockertest: encode %T: %v", v, err))
	}
	return raw
}

// summary is one row of the list.
type summary struct {
	ID              string `json:"Id"`
	Names           []string
	Image           string
	ImageID         string
	Command         string
	Created         int64
	Ports           []portJSON
	SizeRw          int64 `json:",omitempty"`
	SizeRootFs      int64 `json:",omitempty"`
	Labels          map[string]string
	State           string
	Status          string
	HostConfig      struct{ NetworkMode string }
	NetworkSettings struct {
		Networks map[string]endpointSettings
	}
	Mounts []mountPoint
}

func (c *container) summary(size bool) summary {
	s := summary{
		ID: c.id, Names: c.names(), Image: c.shownImage(), ImageID: c.imageID, Command: quoteCommand(c.command()),
		Created: c.created.Unix(), Ports: c.portList(), Labels: c.config.Labels, State: c.status, Status: c.statusText(time.Now()),
		Mounts: c.mounts,
	}
	s.HostConfig.NetworkMode = c.host.NetworkMode
	s.NetworkSettings.Networks = c.endpointMap()
	for name, e := range s.NetworkSettings.Networks {
		e.Aliases, e.Links, e.IPAMConfig, e.DriverOpts = nil, nil, nil, nil // the list does without
		s.NetworkSettings.Networks[name] = e
	}
	if s.Mounts == nil {
		s.Mounts = []mountPoint{}
	}
	if c.status == "exited" && time.Since(c.finishedAt) < c.d.opt.SlowCleanup {
		s.State, s.Status = "running", "Up 1 second"
	}
	if size {
		s.SizeRootFs = c.d.images[c.imageID].size
	}
	return s
}

// shownImage is the reference the client used, or the image's ID if that has come to mean another image.
func (c *container) shownImage() string {
	if c.imageTag != "" && c.d.tags[c.imageTag] != c.imageID {
		return c.imageID
	}
	return c.imageRef
}

// quoteCommand is the command as ps shows it: arguments with spaces in quotes.
func quoteCommand(cmd []string) string {
	quoted := slices.Clone(cmd)
	for i, a := range quoted {
		if i > 0 && strings.Contains(a, " ") {
			quoted[i] = "'" + a + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// statusText is the human column of ps.
func (c *container) statusText(now time.Time) string {
	switch c.status {
	case "created":
		return "Created"
	case "restarting":
		return fmt.Sprintf("Restarting (%d) %s ago", c.exitCode, units.HumanDuration(now.Sub(c.finishedAt)))
	case "exited":
		return fmt.Sprintf("Exited (%d) %s ago", c.exitCode, units.HumanDuration(now.Sub(c.finishedAt)))
	}
	up := "Up " + units.HumanDuration(now.Sub(c.startedAt))
	switch {
	case c.status == "paused":
		return up + " (Paused)"
	case c.health == "starting":
		return up + " (health: starting)"
	case c.health != "":
		return up + " (" + c.health + ")"
	}
	return up
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// names are the container's own and those that links to it give it. Called with d.mu.
func (c *container) names() []string {
	names := []string{"/" + c.name}
	for _, o := range c.d.order {
		for _, l := range o.host.Links {
			ref, alias, given := strings.Cut(l, ":")
			if to, err := c.d.findContainer(ref); err == nil && to == c {
				if !given {
					alias = c.name
				}
				names = append(names, "/"+o.name+"/"+alias)
			}
		}
	}
	return names
}
