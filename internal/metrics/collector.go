package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/internal/fleet"
)

// collector reads the fleet.
type collector struct{ source Source }

var (
	nodesDesc      = describe("berth_nodes", "Nodes of the fleet.", "state")
	containersDesc = describe("berth_containers", "Containers of the fleet.", "state")
	memoryDesc     = describe("berth_memory_bytes", "Memory of the healthy nodes: what they have, and what containers may use of it.", "what")
	cpusDesc       = describe("berth_cpus", "CPUs of the healthy nodes: what they have, and what containers may use of them.", "what")
	versionDesc    = describe("berth_snapshot_changes_total", "Changes of the picture of the fleet.")
	ageDesc        = describe("berth_snapshot_age_seconds", "Time since the picture of the fleet changed last.")
	readersDesc    = describe("berth_event_readers", "Clients that follow the events.")
	behindDesc     = describe("berth_events_behind", "Events that the slowest of them has not taken yet.")
	cutDesc        = describe("berth_event_readers_cut_total", "Readers that were cut off because they fell too far behind.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe is prometheus.Collector's.
func (c *collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect is prometheus.Collector's.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	snap := c.source.Snapshot()
	states := map[fleet.State]int{fleet.Pending: 0, fleet.Healthy: 0, fleet.Unhealthy: 0}
	var sum fleet.Sum
	var memory, cpus int64
	for _, n := range snap.Nodes() {
		states[n.State]++
		sum.Running, sum.Paused, sum.Stopped = sum.Running+n.Sum.Running, sum.Paused+n.Sum.Paused, sum.Stopped+n.Sum.Stopped
		if n.State == fleet.Healthy {
			memory, cpus = memory+n.Memory, cpus+n.CPUs
			sum.Memory, sum.NanoCPUs = sum.Memory+n.Sum.Memory, sum.NanoCPUs+n.Sum.NanoCPUs
		}
	}
	for state, n := range states {
		gauge(nodesDesc, float64(n), strings.ToLower(state.String()))
	}
	gauge(containersDesc, float64(sum.Running), "running")
	gauge(containersDesc, float64(sum.Paused), "paused")
	gauge(containersDesc, float64(sum.Stopped), "stopped")
	gauge(memoryDesc, float64(memory), "total")
	gauge(memoryDesc, float64(sum.Memory), "reserved")
	gauge(cpusDesc, float64(cpus), "total")
	gauge(cpusDesc, float64(sum.NanoCPUs)/1e9, "reserved")
	gauge(ageDesc, time.Since(c.source.ChangedAt()).Seconds())
	readers, behind, cut := c.source.EventReaders()
	gauge(readersDesc, float64(readers))
	gauge(behindDesc, float64(behind))
	to <- prometheus.MustNewConstMetric(versionDesc, prometheus.CounterValue, float64(snap.Version()))
	to <- prometheus.MustNewConstMetric(cutDesc, prometheus.CounterValue, float64(cut))
}
