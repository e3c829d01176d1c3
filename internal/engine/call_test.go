package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/internal/proxy"
)

func TestOperation(t *testing.T) {
	for request, want := range map[string]string{
		"GET /_ping": "ping", "HEAD /v1.41/_ping": "ping", "GET /version": "version", "GET /v1.41/info": "info", "GET /v1.41/events": "events",
		"GET /v1.41/containers/json": "list", "GET /images/json": "list", "GET /v1.41/networks": "list", "GET /volumes": "list",
		"GET /v1.41/containers/abc/json": "inspect", "GET /containers/json/json": "inspect", "GET /images/a/b/c:1/json": "inspect",
		"GET /images/a/history": "inspect", "GET /networks/x": "inspect", "GET /volumes/v": "inspect", "GET /exec/x/json": "inspect",
		"GET /containers/abc/top": "inspect", "GET /containers/abc/changes": "inspect",
		"POST /v1.41/containers/create": "create", "POST /containers/create/start": "start", "POST /containers/abc/start": "start",
		"POST /containers/abc/stop": "stop", "POST /containers/abc/restart": "stop", "POST /containers/abc/kill": "change",
		"DELETE /containers/start": "change", "DELETE /images/a/b/get": "change", "POST /images/a/b/tag": "change", "POST /networks/create": "change",
		"POST /volumes/prune": "change", "POST /containers/abc/exec": "change", "POST /exec/x/resize": "change", "POST /build/prune": "change",
		"POST /containers/abc/attach": "stream", "GET /containers/abc/attach/ws": "stream", "GET /containers/abc/logs": "stream",
		"GET /containers/abc/stats": "stream", "POST /containers/abc/wait": "stream", "POST /exec/x/start": "stream", "POST /session": "stream",
		"POST /moby.buildkit.v1.Control/Solve": "stream",
		"POST /images/create":                  "transfer", "POST /images/load": "transfer", "GET /images/get": "transfer", "GET /images/a/b/get": "transfer",
		"POST /images/a/b/push": "transfer", "POST /build": "transfer", "POST /commit": "transfer", "GET /containers/abc/export": "transfer",
		"PUT /containers/abc/archive": "transfer", "HEAD /containers/abc/archive": "transfer",
		"GET /images/search": "other", "POST /auth": "other", "GET /system/df": "other", "GET /": "other", "GET /v1.41": "other", "GET /v1.41/": "other",
		"GET /\xff\n": "other", "GET /distribution/a/b/json": "other",
	} {
		method, path, _ := strings.Cut(request, " ")
		if got := operation(method, path).String(); got != want {
			t.Errorf("%s is %s, want %s", request, got, want)
		}
	}
}

func TestRouteNamesNoObject(t *testing.T) {
	for path, want := range map[string]string{
		"/v1.41/containers/create": "/containers/create", "/v1.41/containers/web/json": "/containers/{id}/json", "/containers/web": "/containers/{id}",
		"/images/registry:5000/team/app:1/json": "/images/{id}/json", "/images/registry:5000/team/app:1": "/images/{id}", "/images/app": "/images/{id}",
		"/networks/prune": "/networks/prune", "/networks/n/connect": "/networks/{id}/connect", "/_ping": "/_ping", "/v1.41/info": "/info", "/": "/",
	} {
		if got := route(path); got != want {
			t.Errorf("route(%s) = %s, want %s", path, got, want)
		}
	}
}

func TestOutcome(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	late := &lateError{"no answer to a ping", time.Second}
	ended := func(cause error) context.Context {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		return ctx
	}
	expired, cancel := context.WithTimeoutCause(t.Context(), 0, errors.New("some words"))
	defer cancel()
	<-expired.Done()
	for name, tt := range map[string]struct {
		ctx    context.Context //nolint:containedctx // a test's case
		status int
		err    error
		want   Outcome
	}{
		"created":                   {t.Context(), 201, nil, OutcomeOK},
		"a stream":                  {t.Context(), 101, nil, OutcomeOK},
		"already so":                {t.Context(), 304, nil, OutcomeOK},
		"a conflict":                {t.Context(), 409, nil, OutcomeRefused},
		"a failure":                 {t.Context(), 503, nil, OutcomeFailed},
		"refused":                   {t.Context(), 0, &proxy.NotSentError{Node: "n", Err: refused}, OutcomeUnreachable},
		"broken":                    {t.Context(), 0, &proxy.NoAnswerError{Node: "n", Err: syscall.ECONNRESET}, OutcomeUnreachable},
		"no connection in time":     {t.Context(), 0, &proxy.NotSentError{Node: "n", Err: &lateError{"no connection", time.Second}}, OutcomeTimeout},
		"a deadline":                {expired, 0, errors.New("context deadline exceeded"), OutcomeTimeout},
		"hung":                      {ended(&UnreachableError{Node: "n", Err: &hungError{late}}), 0, context.Canceled, OutcomeTimeout},
		"lost":                      {ended(&UnreachableError{Node: "n", Err: refused}), 0, context.Canceled, OutcomeUnreachable},
		"the client went away":      {ended(nil), 0, context.Canceled, OutcomeCanceled},
		"the manager stops":         {ended(errNotRunning), 0, context.Canceled, OutcomeCanceled},
		"the event stream is stuck": {ended(&hungError{late}), 0, context.Canceled, OutcomeTimeout},
	} {
		if got := outcome(tt.ctx, tt.status, tt.err); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
