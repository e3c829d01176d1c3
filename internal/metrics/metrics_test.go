package metrics

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

type source struct{ snap *fleet.Snapshot }

func (s source) Snapshot() *fleet.Snapshot                { return s.snap }
func (s source) ChangedAt() time.Time                     { return time.Now().Add(-3 * time.Second) }
func (s source) EventReaders() (readers, behind, cut int) { return 2, 40, 1 }

func twoNodes() *fleet.Snapshot {
	up := &fleet.Node{ID: "a", Name: "a", State: fleet.Healthy, Memory: 8 << 30, CPUs: 4, Containers: []*fleet.Container{
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
	m.Called("forward", 3*time.Millisecond, nil)
	m.Called("background", time.Second, errors.New("refused"))
	code, text := page(t, m.Mux(s, nil), "/metrics")
	if code != 200 {
		t.Fatalf("status %d: %s", code, text)
	}
	for _, line := range []string{
		`berth_nodes{state="healthy"} 1`, `berth_nodes{state="unhealthy"} 1`, `berth_nodes{state="pending"} 0`,
		`berth_containers{state="running"} 1`, `berth_containers{state="stopped"} 1`,
		`berth_memory_bytes{what="total"} 8.589934592e+09`, `berth_memory_bytes{what="reserved"} 1.073741824e+09`, `berth_cpus{what="reserved"} 0.5`,
		`berth_placements_total 1`, `berth_refusals_total{filter="constraint"} 1`, `berth_refusals_total{filter="other"} 1`, `berth_placement_seconds_count 3`,
		`berth_engine_call_seconds_count{kind="forward"} 1`, `berth_engine_call_failures_total{kind="background"} 1`,
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
	names := regexp.MustCompile(`\b(berth|go|process)_[a-z_]+`).FindAllString(string(b), -1)
	if len(names) < 10 {
		t.Fatalf("the dashboard asks for %d metrics", len(names))
	}
	for _, name := range names {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("the dashboard asks for %s, which is not there", name)
		}
	}
}
