package api

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/containerd/errdefs"

	"berth/internal/engine"
	"berth/internal/fleet"
)

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{notFound("x"), 404},
		{fmt.Errorf("step: %w", conflict("x")), 409},
		{&fleet.NotFoundError{Kind: fleet.KindContainer, Ref: "x"}, 404},
		{&fleet.AmbiguousError{Kind: fleet.KindContainer, Ref: "x"}, 400},
		{&engine.UnreachableError{Node: "n1", Err: errors.New("refused")}, 503},
		{errdefs.ErrPermissionDenied, 403},
		{errdefs.ErrNotImplemented, 501},
		{errdefs.ErrAlreadyExists, 409},
		{fmt.Errorf("list: %w", context.DeadlineExceeded), 503},
		{errors.New("bug"), 500},
		{errors.Join(unavailable("a"), unavailable("b")), 503},
	} {
		if got := status(tt.err); got != tt.want {
			t.Errorf("status(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestWriteError(t *testing.T) {
	s := New(nil, Options{Log: quietLog()})
	write := func(ctx context.Context, err error) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.writeError(w, httptest.NewRequestWithContext(ctx, "GET", "/x", nil), err)
		return w
	}
	w := write(t.Context(), notFound(`No such container: <a>&"b"`))
	if want := `{"message":"No such container: <a>&\"b\""}` + "\n"; w.Body.String() != want || w.Code != 404 || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("error = %d %v %s, want 404, JSON, %s", w.Code, w.Header(), w.Body, want)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if w := write(gone, errors.New("x")); w.Body.Len() != 0 {
		t.Errorf("a client that has left is told %s", w.Body)
	}
}

func TestEngineMessage(t *testing.T) {
	for body, want := range map[string]string{
		`{"message":"no"}`: "no", `{"message":""}`: `{"message":""}`, "plain text\n": "plain text\n", "": "",
	} {
		if got := engineMessage([]byte(body)); got != want {
			t.Errorf("engineMessage(%q) = %q, want %q", body, got, want)
		}
	}
}
