// Package metrics counts what the manager does, and shows it in prometheus' form.
//
// What is counted while it happens costs an atomic addition: every counter is made when the program starts, with all values
// that its labels can have. What the fleet is like is read from the snapshot when somebody asks. There are no labels for
// single nodes and containers: a fleet has thousands of them, and docker info and docker events tell of each. Nor does a
// label's value ever come from outside.
package metrics

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth/internal/engine"
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

	placing prometheus.Observer
	placed  prometheus.Counter
	refused map[string]prometheus.Counter // by reason
	calls   []call                        // by engine.Operation
	events  map[string]prometheus.Counter // by type
}

// call counts the calls of one operation.
type call struct {
	took     prometheus.Observer
	outcomes []prometheus.Counter // by engine.Outcome
}

// Reasons of refusals that are no check of the scheduler's.
const (
	noNodes       = "no_nodes"
	contradiction = "contradiction" // it uses two things that are on no node together
	other         = "other"
)

// eventTypes are those of engines; what a newer one may add counts as other.
var eventTypes = []string{"builder", "config", "container", "daemon", "image", "network", "node", "plugin", "secret", "service", "volume", other}

// New makes the counters. streams tells how many streams are open.
func New(version string, streams func() int) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), refused: map[string]prometheus.Counter{}, events: map[string]prometheus.Counter{}}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "berth_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": strings.ToValidUTF8(version, "")},
	})
	build.Set(1)
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "berth_streams_open", Help: "Attached and exec streams that are open."}, func() float64 { return float64(streams()) })
	m.registry.MustRegister(build, open)
	m.countPlacements()
	m.countCalls()
	events := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_events_total", Help: "Events of the engines and of the fleet itself, by their type."}, []string{"type"})
	m.registry.MustRegister(events)
	for _, t := range eventTypes {
		m.events[t] = events.WithLabelValues(t)
	}
	return m
}

func (m *Metrics) countPlacements() {
	placing := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "berth_placement_seconds", Help: "Time that the scheduler took to choose a node.", Buckets: prometheus.ExponentialBuckets(5e-6, 2, 12),
	})
	placed := prometheus.NewCounter(prometheus.CounterOpts{Name: "berth_placements_total", Help: "Containers for which a node was chosen."})
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "berth_refusals_total", Help: "Creates for which no node was found, by the check of the scheduler that refused the nodes which came furthest.",
	}, []string{"reason"})
	m.registry.MustRegister(placing, placed, refusals)
	m.placing, m.placed = placing, placed
	for _, reason := range append(schedule.Checks(), noNodes, contradiction, other) {
		m.refused[reason] = refusals.WithLabelValues(reason)
	}
}

func (m *Metrics) countCalls() {
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "berth_engine_call_seconds", Help: "Time until an engine began to answer, by what it was asked for.", Buckets: prometheus.ExponentialBuckets(1e-3, 4, 9),
	}, []string{"operation"})
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "berth_engine_calls_total", Help: "Calls to engines, by what was asked for and how it went: the status of the answer, or why there was none.",
	}, []string{"operation", "outcome"})
	m.registry.MustRegister(took, calls)
	for _, operation := range engine.Operations() {
		c := call{took: took.WithLabelValues(operation.String())}
		for _, outcome := range engine.Outcomes() {
			c.outcomes = append(c.outcomes, calls.WithLabelValues(operation.String(), outcome.String()))
		}
		m.calls = append(m.calls, c)
	}
}

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
	c, known := m.refused[reason(err)]
	if !known {
		c = m.refused[other]
	}
	c.Inc()
}

func reason(err error) string {
	var no *schedule.NoFit
	switch {
	case errors.As(err, &no) && len(no.Reasons) > 0:
		return no.Reasons[0].Filter
	case no != nil:
		return noNodes
	case errors.As(err, new(*schedule.Contradiction)):
		return contradiction
	}
	return other
}

// Called counts one call to an engine.
func (m *Metrics) Called(c engine.Call) {
	of := m.calls[c.Operation]
	of.outcomes[c.Outcome].Inc()
	if c.Outcome.Answered() {
		of.took.Observe(c.Took.Seconds())
	}
}

// Told counts one event.
func (m *Metrics) Told(kind string) {
	c, known := m.events[kind]
	if !known {
		c = m.events[other]
	}
	c.Inc()
}
