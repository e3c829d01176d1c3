// Package tracing tells an OpenTelemetry collector how a create went: the choice of a node, the engines' answers, and what
// was tried elsewhere. It is set up by OpenTelemetry's own environment variables, and costs nothing without them.
package tracing

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const scope = "berth"

// Tracing is a connection to a collector. The nil one does nothing.
type Tracing struct {
	provider *sdk.TracerProvider

	mu      sync.Mutex
	creates int           // those whose span has not ended
	closing bool          // no more are traced
	idle    chan struct{} // closed when closing and none is left
}

// New reads the environment (OTEL_EXPORTER_OTLP_ENDPOINT and the others of the OpenTelemetry specification). Without an
// endpoint, or with OTEL_SDK_DISABLED=true, it returns nil. The spans are sent by HTTP. What is wrong in the environment, or
// with the collector, is told to log and is no reason not to serve: what is right holds.
func New(ctx context.Context, version string, log *slog.Logger) *Tracing {
	if !wanted(log) {
		return nil
	}
	hear(log)
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		log.Warn("creates are not traced", "error", err)
		return nil
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", scope), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil {
		log.Warn("OTEL_RESOURCE_ATTRIBUTES holds for the parts that are key=value", "error", err)
	}
	return &Tracing{
		provider: sdk.NewTracerProvider(sdk.WithBatcher(&said{SpanExporter: exporter, log: log}), sdk.WithResource(about)),
		idle:     make(chan struct{}),
	}
}

// Close sends what is left. Creates that are still at it have until ctx ends; what has ended is sent before they are waited for.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	err := t.provider.ForceFlush(ctx)
	select {
	case <-t.refuse():
	case <-ctx.Done():
	}
	return errors.Join(err, t.provider.Shutdown(ctx))
}

// refuse lets no create begin a span any more, and tells when the last that did has ended it.
func (t *Tracing) refuse() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closing && t.creates == 0 {
		close(t.idle)
	}
	t.closing = true
	return t.idle
}

func (t *Tracing) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return false
	}
	t.creates++
	return true
}

func (t *Tracing) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.creates--; t.closing && t.creates == 0 {
		close(t.idle)
	}
}

// Handler makes a span of each create of a container, as a part of the client's own if it sends a traceparent.
func (t *Tracing) Handler(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	tracer := t.provider.Tracer(scope)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/containers/create") || !t.begin() {
			next.ServeHTTP(w, r)
			return
		}
		defer t.end()
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, "POST /containers/create", trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("berth.container", plain(r.URL.Query().Get("name")))))
		defer span.End()
		seen := &status{ResponseWriter: w}
		next.ServeHTTP(seen, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", seen.code))
		if seen.code >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
	})
}

// textLimit bounds what others have written and a span shows.
const textLimit = 256

// plain is the first line of a text, as the collector's protocol can carry it: one byte that is not UTF-8 would cost all
// spans that are sent together.
func plain(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if len(text) > textLimit {
		text = text[:textLimit]
	}
	return strings.ToValidUTF8(text, "")
}

// status notes an answer's status.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Step is one part of what the context's span is about; end tells how it went. Without a span it does nothing.
func Step(ctx context.Context, name string, about ...string) (inside context.Context, end func(error)) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, func(error) {}
	}
	attributes := make([]attribute.KeyValue, 0, len(about)/2)
	for i := 0; i+1 < len(about); i += 2 {
		attributes = append(attributes, attribute.String("berth."+about[i], plain(about[i+1])))
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithAttributes(attributes...))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, plain(err.Error()))
		}
		span.End()
	}
}

// Tell notes something of the context's span.
func Tell(ctx context.Context, key, value string) {
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("berth."+key, plain(value)))
}

// Inject passes the trace on to an engine, which may have something to add.
func Inject(ctx context.Context, h http.Header) {
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
}
