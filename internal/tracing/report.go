package tracing

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// hear takes what OpenTelemetry's SDK has to say to the log. The SDK has one ear for the whole process: of two managers in
// one, the later hears all.
func hear(log *slog.Logger) {
	otel.SetLogger(logr.New(sink{log}))
	otel.SetErrorHandler(&troubles{log: log})
}

// troubles are errors that nobody could be given. One that repeats is told once.
type troubles struct {
	log  *slog.Logger
	mu   sync.Mutex
	last string
}

// Handle is otel.ErrorHandler's.
func (t *troubles) Handle(err error) {
	if errors.Is(err, resource.ErrPartialResource) {
		return // New tells
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := err.Error(); text != t.last {
		t.last = text
		t.log.Warn("tracing", "error", err)
	}
}

// sink passes the SDK's own log on: errors, which are about the environment, as warnings.
type sink struct{ log *slog.Logger }

func (sink) Init(logr.RuntimeInfo)               {}
func (sink) Enabled(int) bool                    { return true }
func (s sink) WithValues(...any) logr.LogSink    { return s }
func (s sink) WithName(string) logr.LogSink      { return s }
func (s sink) Info(_ int, text string, _ ...any) { s.log.Debug("tracing: " + text) }

// Error leaves out the values that come with it, and what an error about an address quotes: both may hold secrets.
func (s sink) Error(err error, text string, _ ...any) {
	var address *url.Error
	if errors.As(err, &address) {
		err = address.Err
	}
	s.log.Warn("tracing: "+text, "error", err)
}

// said tells the log when spans begin to get lost, and when they arrive again: a collector that is away for an hour is one
// trouble, not hundreds.
type said struct {
	sdk.SpanExporter
	log *slog.Logger

	mu   sync.Mutex
	away bool
}

// ExportSpans is sdk.SpanExporter's.
func (s *said) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := s.SpanExporter.ExportSpans(ctx, spans)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil && !s.away:
		s.log.Warn("traces do not reach the collector; berth goes on without", "error", err)
	case err != nil:
		s.log.Debug("traces do not reach the collector", "error", err)
	case s.away:
		s.log.Info("traces reach the collector again")
	}
	s.away = err != nil
	return nil // it is told
}
