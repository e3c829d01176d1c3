// Package metrics counts what the manager does, and shows it in prometheus' form.
//
// What is counted while it happens costs an atomic addition: every counter is found once, when the program starts. What the
// fleet is like is read from the snapshot when somebody asks. There are no labels for single nodes and containers: a fleet
// has thousands of them, and docker info and docker events tell of each.
package metrics

import (
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// Source is what is read when somebody asks.
type Source interface {
	Snapshot() *fleet.Snapshot
	// Changed is when the snapshot was replaced last.
	ChangedAt() time.Time
	// EventReaders tells how many follow the events, how far the slowest is behind, and how many were cut off.
	EventReaders() (readers, behind, cut int)
}

// Metrics are the counters of one manager.
type Metrics struct {
	registry *prometheus.Registry

	placing  prometheus.Observer
	placed   prometheus.Counter
	refused  map[string]prometheus.Counter // by filter
	others   prometheus.Counter            // refusals that no filter made
	calls    map[string]prometheus.Observer
	failures map[string]prometheus.Counter
}

// kinds of calls to engines, as package engine names them.
var kinds = []string{"background", "request", "forward"}

// New makes the counters. streams tells how many streams are open.
func New(version string, streams func() int) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), refused: map[string]prometheus.Counter{},
		calls: map[string]prometheus.Observer{}, failures: map[string]prometheus.Counter{},
	}
	placing := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "berth_placement_seconds", Help: "Time that the scheduler took to choose a node.", Buckets: prometheus.ExponentialBuckets(5e-6, 2, 12),
	})
	placed := prometheus.NewCounter(prometheus.CounterOpts{Name: "berth_placements_total", Help: "Containers for which a node was chosen."})
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "berth_refusals_total", Help: "Creates for which no node fitted, by the filter that refused the nodes which came furthest.",
	}, []string{"filter"})
	calls := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "berth_engine_call_seconds", Help: "Time until an engine answered: background calls, requests that berth makes for a client, and requests handed on.",
		Buckets: prometheus.ExponentialBuckets(1e-3, 4, 9),
	}, []string{"kind"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_engine_call_failures_total", Help: "Calls that an engine did not answer."}, []string{"kind"})
	m.placing, m.placed = placing, placed
	for _, f := range append(schedule.DefaultPolicy().Filters, otherFilter) {
		m.refused[f] = refusals.WithLabelValues(f)
	}
	m.others = m.refused[otherFilter]
	for _, k := range kinds {
		m.calls[k], m.failures[k] = calls.WithLabelValues(k), failures.WithLabelValues(k)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "berth_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "berth_streams_open", Help: "Attached and exec streams that are open."}, func() float64 { return float64(streams()) })
	m.registry.MustRegister(placing, placed, refusals, calls, failures, build, open,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

const otherFilter = "other"

// Follow adds what is read from the fleet.
func (m *Metrics) Follow(s Source) { m.registry.MustRegister(&collector{s}) }

// Handler is the page.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Placed counts one decision of the scheduler.
func (m *Metrics) Placed(took time.Duration, err error) {
	m.placing.Observe(took.Seconds())
	if err == nil {
		m.placed.Inc()
		return
	}
	var no *schedule.NoFit
	if errors.As(err, &no) && len(no.Reasons) > 0 {
		if c, known := m.refused[no.Reasons[0].Filter]; known {
			c.Inc()
			return
		}
	}
	m.others.Inc()
}

// Called counts one call to an engine.
func (m *Metrics) Called(kind string, took time.Duration, err error) {
	if err != nil {
		m.failures[kind].Inc()
		return
	}
	m.calls[kind].Observe(took.Seconds())
}
