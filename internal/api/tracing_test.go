package api

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"berth/internal/tracing"
)

// A create's trace has the choice of the node, the engine's part, and what was read back.
func TestATraceOfACreate(t *testing.T) {
	var mu sync.Mutex
	var got strings.Builder
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		b := make([]byte, r.ContentLength)
		n, _ := r.Body.Read(b) // names are text in it; an answer that is cut lacks them
		got.Write(b[:n])
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tr := tracing.New(t.Context(), "1", slog.Default())
	f := newFleet(t, 1)
	r := httptest.NewRequest(http.MethodPost, "/v1.41/containers/create?name=web", strings.NewReader(`{"Image":"busybox"}`))
	w := httptest.NewRecorder()
	if tr.Handler(f.api).ServeHTTP(w, r); w.Code != http.StatusCreated {
		t.Fatalf("create: %d %s", w.Code, w.Body)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"place", "POST /containers/create", "read back", "berth.node"} {
		if !strings.Contains(got.String(), name) {
			t.Errorf("the trace lacks %q", name)
		}
	}
}
