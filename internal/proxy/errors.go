package proxy

import (
	"errors"
	"fmt"
)

// NotSentError says that the engine could not be reached: no byte of the request has left, so it may be tried elsewhere.
type NotSentError struct {
	Node string
	Err  error
}

func (e *NotSentError) Error() string {
	return fmt.Sprintf("node %s is unreachable: %v", e.Node, e.Err)
}
func (e *NotSentError) Unwrap() error { return e.Err }

// Unavailable makes this a 503 for whoever sorts errors by kind.
func (e *NotSentError) Unavailable() {}

// NotSent tells whether err guarantees that no byte of the request can have reached an engine.
func NotSent(err error) bool {
	var e *NotSentError
	return errors.As(err, &e)
}

// NoAnswerError says that the request went out, wholly or in part, and no usable answer came back. Whether the engine acted
// on it is unknown.
type NoAnswerError struct {
	Node string
	Err  error
}

func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("node %s gave no answer: %v", e.Node, e.Err)
}
func (e *NoAnswerError) Unwrap() error { return e.Err }

// Unavailable makes this a 503 for whoever sorts errors by kind.
func (e *NoAnswerError) Unavailable() {}

// requestError is a fault of the client's request: a 400.
type requestError struct {
	what string
	err  error
}

func (e *requestError) Error() string {
	if e.err == nil {
		return e.what
	}
	return e.what + ": " + e.err.Error()
}
func (e *requestError) Unwrap() error     { return e.err }
func (e *requestError) InvalidParameter() {}

var errHTTP2 = &requestError{what: "a stream with input needs HTTP/1.1: this connection is HTTP/2, which cannot be upgraded"}

var errNoHTTP2 = errors.New("it is not reached by HTTP/2")

// drainError refuses a stream that comes after Drain: a 503.
type drainError struct{}

func (drainError) Error() string { return "shutting down: no new streams" }
func (drainError) Unavailable()  {}
