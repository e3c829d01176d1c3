package tracing

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collect is an OpenTelemetry collector that keeps what it is sent.
func collect(t *testing.T) (seen func() map[string]*spans.Span) {
	t.Helper()
	var mu sync.Mutex
	all := map[string]*spans.Span{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var sent collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(b, &sent) != nil {
			t.Errorf("the collector got %d bytes at %s, %v", len(b), r.URL.Path, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range sent.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, span := range ss.Spans {
					all[span.Name] = span
				}
			}
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	return func() map[string]*spans.Span {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func TestACreateIsTold(t *testing.T) {
	seen := collect(t)
	tr := New(t.Context(), "1", slog.Default())
	if tr == nil {
		t.Fatal("nothing is traced")
	}
	sent := http.Header{}
	h := tr.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := Step(r.Context(), "place", "node", "n1")
		Inject(ctx, sent)
		end(errors.New("no node fits"))
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	r := httptest.NewRequest(http.MethodPost, "/v1.41/containers/create?name=web", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	h.ServeHTTP(httptest.NewRecorder(), r)
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1.41/containers/json", nil))
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := seen()
	root, place := all["POST /containers/create"], all["place"]
	if len(all) != 2 || root == nil || place == nil {
		t.Fatalf("spans are %v", all)
	}
	if string(place.ParentSpanId) != string(root.SpanId) || string(place.TraceId) != string(root.TraceId) {
		t.Error("the step is no part of the create")
	}
	if root.TraceId[0] != 0x0a || root.ParentSpanId[0] != 0xb7 {
		t.Error("the create is no part of the client's trace")
	}
	if place.Status.GetCode() != spans.Status_STATUS_CODE_ERROR || root.Status.GetCode() != spans.Status_STATUS_CODE_ERROR {
		t.Errorf("failures are told as %v and %v", place.Status, root.Status)
	}
	if got := sent.Get("Traceparent"); len(got) < 35 || got[:35] != "00-0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("engines are sent the traceparent %q", got)
	}
}

func TestNothingIsToldUnlessAsked(t *testing.T) {
	tr := New(t.Context(), "1", slog.Default())
	if tr != nil {
		t.Fatalf("New = %v", tr)
	}
	next := http.NotFoundHandler()
	if tr.Handler(next) == nil || tr.Close(t.Context()) != nil {
		t.Error("a nil Tracing does something")
	}
	ctx, end := Step(context.Background(), "place")
	end(nil)
	h := http.Header{}
	if Inject(ctx, h); len(h) != 0 {
		t.Errorf("headers %v", h)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if tr := New(t.Context(), "1", slog.Default()); tr != nil {
		t.Errorf("disabled: %v", tr)
	}
}

// A name that is no UTF-8 is what the collector's protocol cannot carry; it must not take the other spans with it.
func TestABadNameCostsNoSpan(t *testing.T) {
	seen := collect(t)
	tr := New(t.Context(), "1", slog.Default())
	h := tr.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, end := Step(r.Context(), "place", "node", "n\xff1")
		Tell(r.Context(), "node", "n\xff1")
		end(errors.New("no node fits \xff\nand what is said to scripts"))
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/containers/create?name=%ff"+strings.Repeat("w", 1000), nil))
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := seen()
	if len(all) != 2 {
		t.Fatalf("spans are %v", all)
	}
	if got := all["place"].Status.Message; got != "no node fits " {
		t.Errorf("the failure is told as %q", got)
	}
	for _, a := range all["POST /containers/create"].Attributes {
		if text := a.Value.GetStringValue(); len(text) > textLimit {
			t.Errorf("%s has %d bytes", a.Key, len(text))
		}
	}
}

// A create that is under way when the manager stops is told as well.
func TestCloseWaitsForCreates(t *testing.T) {
	seen := collect(t)
	tr := New(t.Context(), "1", slog.Default())
	reached, release := make(chan struct{}), make(chan struct{})
	h := tr.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(reached)
		<-release
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/containers/create", nil))
	})
	<-reached
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if all := seen(); all["POST /containers/create"] == nil {
		t.Errorf("spans are %v", all)
	}
	// Whoever comes later is served without.
	wg.Go(func() {
		tr.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/containers/create", nil))
	})
	wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = tr.Close(ctx) // twice is harmless
}

// One collector that is away is told once, and so is its return.
func TestTheCollectorsAbsenceIsToldOnce(t *testing.T) {
	var away atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	var text bytes.Buffer
	tr := New(t.Context(), "1", slog.New(slog.NewTextHandler(&text, nil)))
	h := tr.Handler(http.NotFoundHandler())
	for _, gone := range []bool{false, true, true, false, false} {
		away.Store(gone)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/containers/create", nil))
		if err := tr.provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lost, back := strings.Count(text.String(), "do not reach"), strings.Count(text.String(), "again"); lost != 1 || back != 1 {
		t.Errorf("told %d and %d times:\n%s", lost, back, text.String())
	}
}
