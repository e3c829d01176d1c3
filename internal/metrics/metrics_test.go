package metrics

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"berth/internal/engine"
	"berth/internal/fleet"
	"berth/internal/schedule"
)

type source struct{ snap *fleet.Snapshot }

func (s source) Snapshot() *fleet.Snapshot                { return s.snap }
func (s source) ChangedAt() time.Time                     { return time.Now().Add(-3 * time.Second) }
func (s source) EventReaders() (readers, behind, cut int) { return 2, 40, 1 }

func twoNodes() *fleet.Snapshot {
	up := &fleet.Node{ID: "a", Name: "a", State: fleet.Healthy, Health: 100, Memory: 8 << 30, CPUs: 4, Containers: []*fleet.Container{
		{ID: "1", State: "running", Memory: 1 << 30, NanoCPUs: 5e8}, {ID: "2", State: "exited"},
	}}
	down := &fleet.Node{ID: "b", Name: "b", State: fleet.Unhealthy, Error: "no answer", Memory: 8 << 30, CPUs: 4}
	return new(fleet.Snapshot).Replace(up.Seal()).Replace(down.Seal())
}

func page(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestPage(t *testing.T) {
	m := New("1.2.3", func() int { return 7 })
	s := source{twoNodes()}
	m.Follow(s)
	m.Placed(20*time.Microsecond, nil)
	m.Placed(20*time.Microsecond, &schedule.NoFit{Nodes: 2, Reasons: []schedule.Reason{{Filter: "constraint", Count: 2}}})
	m.Placed(20*time.Microsecond, errors.New("something else"))
	m.Placed(20*time.Microsecond, &schedule.NoFit{})
	m.Placed(20*time.Microsecond, fmt.Errorf("place web: %w", &schedule.Contradiction{}))
	m.Called(engine.Call{Operation: engine.OpCreate, Outcome: engine.OutcomeOK, Took: 3 * time.Millisecond})
	m.Called(engine.Call{Operation: engine.OpList, Outcome: engine.OutcomeTimeout, Took: time.Second})
	m.Told("container")
	m.Told("of a newer engine")
	code, text := page(t, m.Mux(s, nil), "/metrics")
	if code != 200 {
		t.Fatalf("status %d: %s", code, text)
	}
	for _, line := range []string{
		`berth_nodes{state="healthy"} 1`, `berth_nodes{state="unhealthy"} 1`, `berth_nodes{state="pending"} 0`,
		`berth_containers{state="running"} 1`, `berth_containers{state="stopped"} 1`,
		`berth_memory_bytes{what="total"} 8.589934592e+09`, `berth_memory_bytes{what="reserved"} 1.073741824e+09`, `berth_cpus{what="reserved"} 0.5`,
		`berth_placements_total 1`, `berth_refusals_total{reason="constraint"} 1`, `berth_refusals_total{reason="other"} 1`, `berth_placement_seconds_count 5`,
		`berth_refusals_total{reason="no_nodes"} 1`, `berth_refusals_total{reason="contradiction"} 1`, `berth_refusals_total{reason="cpus"} 0`,
		`berth_engine_calls_total{operation="create",outcome="ok"} 1`, `berth_engine_call_seconds_count{operation="create"} 1`,
		`berth_engine_calls_total{operation="list",outcome="timeout"} 1`, `berth_engine_call_seconds_count{operation="list"} 0`,
		`berth_events_total{type="container"} 1`, `berth_events_total{type="other"} 1`, `berth_events_total{type="volume"} 0`,
		`berth_streams_open 7`, `berth_event_readers 2`, `berth_events_behind 40`, `berth_event_readers_cut_total 1`, `berth_build_info{version="1.2.3"} 1`,
		`go_goroutines `, `process_open_fds `,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("the page lacks %s", line)
		}
	}
	if problems, err := testutil.GatherAndLint(m.registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

func TestProbes(t *testing.T) {
	m := New("1", func() int { return 0 })
	looked := make(chan struct{})
	down := source{new(fleet.Snapshot).Replace((&fleet.Node{ID: "b", Name: "b", State: fleet.Unhealthy, Error: "no answer"}).Seal())}
	check := func(s source, path string, want int, text string) {
		t.Helper()
		if code, body := page(t, m.Mux(s, looked), path); code != want || !strings.Contains(body, text) {
			t.Errorf("%s = %d %s, want %d %s", path, code, body, want, text)
		}
	}
	check(source{twoNodes()}, "/healthz", 200, "ok")
	check(source{twoNodes()}, "/readyz", 503, "not all engines were tried yet")
	close(looked)
	check(source{twoNodes()}, "/readyz", 200, "ok")
	check(down, "/readyz", 503, "none of the 1 nodes answers; b: no answer")
	check(source{new(fleet.Snapshot)}, "/readyz", 503, "the fleet has no nodes")
}

// The dashboard asks for nothing that is not there.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile("../../docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) {
		t.Fatal("the dashboard is no JSON")
	}
	m := New("1", func() int { return 0 })
	s := source{twoNodes()}
	m.Follow(s)
	_, text := page(t, m.Mux(s, nil), "/metrics")
	expressions := regexp.MustCompile(`"expr": "(.*)"`).FindAllStringSubmatch(string(b), -1)
	if len(expressions) < 10 {
		t.Fatalf("the dashboard has %d expressions", len(expressions))
	}
	for _, e := range expressions {
		expr := strings.ReplaceAll(e[1], `\"`, `"`)
		names := regexp.MustCompile(`\b(berth|go|process)_[a-z_]+`).FindAllString(expr, -1)
		if len(names) == 0 {
			t.Errorf("%s asks for none of our metrics", expr)
		}
		for _, name := range names {
			line := regexp.MustCompile(`(?m)^` + name + `[{ ].*$`).FindString(text)
			if line == "" {
				t.Errorf("the dashboard asks for %s, which is not there", name)
			}
			// What it groups by and picks out must be labels of it.
			for _, labels := range regexp.MustCompile(`by \(([a-z_, ]+)\)|([a-z_]+)(?:=|!=|=~|!~)"`).FindAllStringSubmatch(expr, -1) {
				for _, label := range regexp.MustCompile(`[a-z_]+`).FindAllString(labels[1]+" "+labels[2], -1) {
					if !strings.Contains(line, label+`="`) {
						t.Errorf("%s: %s has no label %s", expr, name, label)
					}
				}
			}
		}
	}
}

// What the scheduler refuses is counted under what refused it, and not as something else.
func TestEveryCheckHasACounter(t *testing.T) {
	place := func(m *Metrics, s *fleet.Snapshot, r schedule.Request) {
		_, err := schedule.Place(schedule.View{Snapshot: s}, &r, schedule.DefaultPolicy())
		m.Placed(time.Microsecond, err)
	}
	for want, r := range map[string]schedule.Request{
		"memory":     {Memory: 1 << 40},
		"cpus":       {NanoCPUs: 64e9},
		"platform":   {Arch: "riscv64"},
		"api":        {NeedAPI: "9.9"},
		"overlay":    {Overlays: []string{"net"}},
		"tie":        {Ties: []schedule.Tie{{What: "volume v"}}},
		"exclude":    {Exclude: map[string]string{"a": "it did not answer"}},
		"dependency": {Links: []string{"db"}},
	} {
		m := New("1", func() int { return 0 })
		place(m, twoNodes().Without("b"), r)
		if got := testutil.ToFloat64(m.refused[want]); got != 1 {
			t.Errorf("refused by %s: %g", want, got)
		}
	}
	m := New("1", func() int { return 0 })
	place(m, twoNodes().Without("a"), schedule.Request{})
	place(m, new(fleet.Snapshot), schedule.Request{})
	if state, none := testutil.ToFloat64(m.refused["state"]), testutil.ToFloat64(m.refused[noNodes]); state != 1 || none != 1 {
		t.Errorf("state %g, no nodes %g", state, none)
	}
}

// Two managers in one process count for themselves.
func TestManagersCountApart(t *testing.T) {
	one, two := New("1", func() int { return 1 }), New("2", func() int { return 2 })
	one.Told("image")
	for _, tt := range []struct {
		m    *Metrics
		want []string
	}{{one, []string{`berth_events_total{type="image"} 1`, "berth_streams_open 1"}}, {two, []string{`berth_events_total{type="image"} 0`, "berth_streams_open 2"}}} {
		_, text := page(t, tt.m.Handler(), "/metrics")
		for _, line := range tt.want {
			if !strings.Contains(text, "\n"+line) {
				t.Errorf("the page lacks %s", line)
			}
		}
	}
}

// However large the fleet is and whatever clients ask for, the page has so many lines of ours.
func TestThePageIsBounded(t *testing.T) {
	m := New("1", func() int { return 0 })
	m.Follow(source{twoNodes()})
	_, text := page(t, m.Handler(), "/metrics")
	if n := strings.Count(text, "\nberth_"); n > 350 {
		t.Errorf("%d lines", n)
	}
}
