package engine

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// Call is one call to an engine, as observers are told of it.
type Call struct {
	Operation Operation
	Outcome   Outcome
	Took      time.Duration // until the answer began, or until it was clear that none would
}

// Operation is what a call is for: one of a few, so that calls can be counted by it.
type Operation uint8

// The operations.
const (
	OpPing     Operation = iota
	OpVersion            // GET /version
	OpInfo               // GET /info
	OpList               // containers, images, networks or volumes listed
	OpInspect            // one object read
	OpEvents             // the event stream opened
	OpCreate             // a container created
	OpStart              // a container started
	OpStop               // a container stopped or restarted, which takes as long as the container takes
	OpChange             // anything else that changes objects
	OpTransfer           // pull, push, load, save, build, commit, export, cp
	OpStream             // attach, exec, logs, stats, wait, BuildKit's sessions: until they began
	OpOther
	operations
)

var operationNames = [operations]string{
	"ping", "version", "info", "list", "inspect", "events", "create", "start", "stop", "change", "transfer", "stream", "other",
}

// Operations returns all of them, in the order of their values.
func Operations() []Operation {
	all := make([]Operation, operations)
	for i := range all {
		all[i] = Operation(i)
	}
	return all
}

func (o Operation) String() string { return operationNames[o] }

// Outcome is how a call went.
type Outcome uint8

// The outcomes.
const (
	OutcomeOK          Outcome = iota // a status below 400
	OutcomeRefused                    // 4xx
	OutcomeFailed                     // 5xx
	OutcomeUnreachable                // no connection, or one that broke before the answer
	OutcomeTimeout                    // no answer within the time it was given
	OutcomeCanceled                   // who asked went away, or the engine is not followed any more
	outcomes
)

var outcomeNames = [outcomes]string{"ok", "4xx", "5xx", "unreachable", "timeout", "canceled"}

// Outcomes returns all of them, in the order of their values.
func Outcomes() []Outcome {
	all := make([]Outcome, outcomes)
	for i := range all {
		all[i] = Outcome(i)
	}
	return all
}

func (o Outcome) String() string { return outcomeNames[o] }

// Answered tells whether the engine said something.
func (o Outcome) Answered() bool { return o <= OutcomeFailed }

// observed begins to watch a call. done is told how it ended; only the first time counts.
func (e *Engine) observed(method, path string) (done func(ctx context.Context, status int, err error)) {
	if e.o.Observe == nil {
		return func(context.Context, int, error) {}
	}
	began, told := time.Now(), false
	return func(ctx context.Context, status int, err error) {
		if told {
			return
		}
		told = true
		e.o.Observe(Call{operation(method, path), outcome(ctx, status, err), time.Since(began)})
	}
}

func outcome(ctx context.Context, status int, err error) Outcome {
	switch {
	case err != nil:
		return silence(ctx, err)
	case status >= http.StatusInternalServerError:
		return OutcomeFailed
	case status >= http.StatusBadRequest:
		return OutcomeRefused
	}
	return OutcomeOK
}

// silence is the outcome of a call without an answer.
func silence(ctx context.Context, err error) Outcome {
	err = cause(ctx, err)
	var late interface{ Timeout() bool }
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return OutcomeTimeout
	case ctx.Err() != nil && !errors.As(err, new(*UnreachableError)):
		return OutcomeCanceled
	}
	return OutcomeUnreachable
}

// lateError says that a time of ours is up.
type lateError struct {
	what  string // "no answer"
	limit time.Duration
}

func (l *lateError) Error() string { return l.what + " within " + l.limit.String() }

// Timeout is net.Error's.
func (l *lateError) Timeout() bool { return true }

// segments cuts a path, and leaves out its version.
func segments(path string) []string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if strings.HasPrefix(parts[0], "v1.") {
		parts = parts[1:]
	}
	return parts
}

// operation sorts a request.
func operation(method, path string) Operation {
	parts := segments(path)
	if len(parts) == 0 {
		return OpOther
	}
	rest := parts[1:]
	switch parts[0] {
	case "_ping":
		return OpPing
	case "version":
		return OpVersion
	case "info":
		return OpInfo
	case "events":
		return OpEvents
	case "session", "grpc":
		return OpStream
	case "commit":
		return OpTransfer
	case "build":
		if len(rest) == 0 {
			return OpTransfer
		}
	case "containers":
		return containerOperation(method, rest)
	case "exec":
		if len(rest) > 1 && rest[1] == "start" {
			return OpStream
		}
	case "images":
		if o, known := imageOperation(method, rest); known {
			return o
		}
	case "networks", "volumes":
		if method == http.MethodGet && len(rest) == 0 {
			return OpList
		}
	default:
		if strings.Contains(parts[0], ".") { // gRPC: /moby.buildkit.v1.Control/Solve
			return OpStream
		}
		return OpOther
	}
	return readOrChange(method)
}

func readOrChange(method string) Operation {
	if method == http.MethodGet || method == http.MethodHead {
		return OpInspect
	}
	return OpChange
}

// containerOperation sorts what comes behind /containers.
func containerOperation(method string, rest []string) Operation {
	switch {
	case len(rest) == 1 && rest[0] == "json":
		return OpList
	case len(rest) == 1 && rest[0] == "create":
		return OpCreate
	case len(rest) > 1:
		switch rest[1] {
		case "start":
			return OpStart
		case "stop", "restart":
			return OpStop
		case "attach", "logs", "stats", "wait":
			return OpStream
		case "archive", "export", "copy":
			return OpTransfer
		}
	}
	return readOrChange(method)
}

// imageOperation sorts what comes behind /images, if it is more than reading or changing one. Names have slashes.
func imageOperation(method string, rest []string) (o Operation, known bool) {
	if len(rest) == 0 || method == http.MethodDelete {
		return 0, false
	}
	switch verb := rest[len(rest)-1]; {
	case len(rest) == 1 && verb == "json":
		return OpList, true
	case len(rest) == 1 && verb == "search":
		return OpOther, true
	case len(rest) == 1 && (verb == "create" || verb == "load"), verb == "get", verb == "push":
		return OpTransfer, true
	}
	return 0, false
}

// route is a path without its version and without the names of objects: there are few routes, and many names.
func route(path string) string {
	parts := segments(path)
	if len(parts) < 2 {
		return "/" + strings.Join(parts, "/")
	}
	if len(parts) == 2 {
		switch parts[1] {
		case "json", "create", "prune", "load", "get", "search":
			return "/" + strings.Join(parts, "/")
		}
	}
	switch parts[0] {
	case "images", "distribution", "plugins": // whose names have slashes
		switch verb := parts[len(parts)-1]; verb {
		case "json", "history", "get", "push", "tag":
			return "/" + parts[0] + "/{id}/" + verb
		}
		return "/" + parts[0] + "/{id}"
	}
	parts[1] = "{id}"
	return "/" + strings.Join(parts, "/")
}
