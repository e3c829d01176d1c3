package dockertest

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// topContainer answers GET /containers/{id}/top with the one process there is, and those of running execs.
func (d *Daemon) topContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if !c.running() {
		return c.notRunning()
	}
	row := func(pid int, cmd []string) []string {
		return []string{"root", strconv.Itoa(pid), "1", "0", c.startedAt.Format("15:04"), "?", "00:00:00", strings.Join(cmd, " ")}
	}
	rows := [][]string{row(c.pid, c.command())}
	for _, e := range c.execs {
		if e.started && e.code == nil {
			rows = append(rows, row(e.pid, e.req.Cmd))
		}
	}
	c.emit("top")
	writeJSON(w, http.StatusOK, struct {
		Processes [][]string
		Titles    []string
	}{rows, []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}})
	return nil
}

// statsInterval is how often an engine samples.
const statsInterval = time.Second

// statsContainer answers GET /containers/{id}/stats: one line, or one per second.
func (d *Daemon) statsContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	d.mu.Unlock()
	stream := r.param("stream") == "" || r.flag("stream")
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	w.Header().Set("Content-Type", "application/json")
	for {
		d.mu.Lock()
		line := append(mustMarshal(c.stats()), '\n')
		gone := d.containers[c.id] == nil
		d.mu.Unlock()
		if gone {
			return nil
		}
		if _, err := w.Write(line); err != nil || !stream {
			return nil //nolint:nilerr // the client has gone
		}
		flush(w)
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		case <-d.quit:
			return nil
		}
	}
}

// stats is a sample: all zero when stopped, else a process that does a little.
func (c *container) stats() map[string]any {
	now := c.d.now()
	s := map[string]any{
		"read": timestamp(now), "preread": timestamp(now.Add(-statsInterval)), "num_procs": 0, "name": "/" + c.name, "id": c.id,
		"pids_stats": map[string]any{}, "blkio_stats": map[string]any{"io_service_bytes_recursive": nil}, "storage_stats": map[string]any{},
		"cpu_stats": map[string]any{"cpu_usage": map[string]any{"total_usage": 0}}, "precpu_stats": map[string]any{"cpu_usage": map[string]any{"total_usage": 0}},
		"memory_stats": map[string]any{},
	}
	if !c.running() {
		return s
	}
	limit := c.d.opt.MemTotal
	if c.host.Memory > 0 {
		limit = c.host.Memory
	}
	cpu := func(at time.Time) map[string]any {
		up := at.Sub(c.startedAt).Nanoseconds()
		return map[string]any{
			"cpu_usage":        map[string]any{"total_usage": max(0, up/100), "usage_in_kernelmode": 0, "usage_in_usermode": 0},
			"system_cpu_usage": at.Sub(c.d.started).Nanoseconds() * int64(c.d.opt.NCPU), "online_cpus": c.d.opt.NCPU,
			"throttling_data": map[string]any{"periods": 0, "throttled_periods": 0, "throttled_time": 0},
		}
	}
	s["cpu_stats"], s["precpu_stats"] = cpu(now), cpu(now.Add(-statsInterval))
	s["memory_stats"] = map[string]any{"usage": 417792, "max_usage": 3817472, "stats": map[string]any{"cache": 0}, "limit": limit}
	s["pids_stats"] = map[string]any{"current": 1}
	s["networks"] = map[string]any{"eth0": map[string]any{"rx_bytes": 0, "rx_packets": 0, "tx_bytes": 0, "tx_packets": 0}}
	return s
}
