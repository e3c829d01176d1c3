package tracing

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

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
	tr, err := New(t.Context(), "1")
	if err != nil || tr == nil {
		t.Fatal(tr, err)
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
	tr, err := New(t.Context(), "1")
	if err != nil || tr != nil {
		t.Fatalf("New = %v, %v", tr, err)
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
	if tr, err := New(t.Context(), "1"); err != nil || tr != nil {
		t.Errorf("disabled: %v, %v", tr, err)
	}
}
