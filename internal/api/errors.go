package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"

	"berth/internal/proxy"
	"berth/internal/rawjson"
)

// statusError is an answer with a status of its own.
type statusError struct {
	status  int
	message string
	plain   bool // text/plain, as engines answer clients that are too old
}

func (e *statusError) Error() string { return e.message }

func invalid(message string) error {
	return &statusError{status: http.StatusBadRequest, message: message}
}
func notFound(message string) error {
	return &statusError{status: http.StatusNotFound, message: message}
}
func conflict(message string) error {
	return &statusError{status: http.StatusConflict, message: message}
}
func unavailable(message string) error {
	return &statusError{status: http.StatusServiceUnavailable, message: message}
}

func invalidf(format string, args ...any) error { return invalid(fmt.Sprintf(format, args...)) }

// status is the one place that turns an error into a status. Kinds are told by errdefs' marker methods, never by text.
func status(err error) int {
	var own *statusError
	switch {
	case errors.As(err, &own):
		return own.status
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsInvalidArgument(err):
		return http.StatusBadRequest
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err):
		return http.StatusConflict
	case errdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case errdefs.IsNotImplemented(err):
		return http.StatusNotImplemented
	case errdefs.IsUnavailable(err), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// writeError answers with an error. A client that has left gets nothing.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return
	}
	code := status(err)
	if code == http.StatusInternalServerError {
		s.o.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if proxy.IsRPC(r) {
		writeRPCError(w, err)
		return
	}
	var own *statusError
	if errors.As(err, &own) && own.plain {
		http.Error(w, own.message, code)
		return
	}
	writeJSON(w, code, map[string]string{"message": err.Error()})
}

// writeJSON answers with a body of our own making.
func writeJSON(w http.ResponseWriter, code int, v any) {
	writeRaw(w, code, append(rawjson.Encode(v), '\n'))
}

func writeRaw(w http.ResponseWriter, code int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that is gone cannot be told
}

// engineMessage is the text of an engine's error answer.
func engineMessage(body []byte) string {
	var m struct{ Message string }
	if json.Unmarshal(body, &m) == nil && m.Message != "" {
		return m.Message
	}
	return string(body)
}
