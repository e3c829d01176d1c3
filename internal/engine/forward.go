package engine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"berth/internal/proxy"
	"berth/internal/tracing"
)

// Do sends one request to the engine and returns its answer, whatever its status. r.URL is the path with its version and the
// query; ctx ends the call, its body included. An engine that stops answering meanwhile ends it too. The body of an answer
// 101 is the stream itself, an io.ReadWriteCloser, which only Close ends.
func (e *Engine) Do(ctx context.Context, r *http.Request) (*http.Response, error) {
	waits, release, err := e.whileAnswering(ctx)
	if err != nil {
		return nil, err
	}
	ctx = waits
	to := *r.URL
	to.Scheme, to.Host = "http", "docker"
	r = r.WithContext(ctx)
	r.URL, r.Host, r.RequestURI = &to, "docker", ""
	ended := func(error) {}
	if tracing.On(ctx) {
		var trip context.Context
		trip, ended = tracing.Step(ctx, r.Method+" "+route(r.URL.Path), "node", e.Node().Name)
		r.Header = r.Header.Clone()
		tracing.Inject(trip, r.Header)
	}
	told := e.observed(r.Method, r.URL.Path)
	res, err := e.tr.RoundTrip(r)
	waits.begun()
	ended(err)
	if err != nil {
		told(ctx, 0, err)
		if !proxy.NotSent(err) {
			err = &proxy.NoAnswerError{Node: e.ep.Addr, Err: cause(ctx, err)}
		}
		err = e.explain(ctx, err)
		release()
		return nil, err
	}
	told(ctx, res.StatusCode, nil)
	e.hear()
	if stream, ok := res.Body.(io.ReadWriteCloser); ok {
		res.Body = &releasingStream{stream, release}
	} else {
		res.Body = &releasing{res.Body, release}
	}
	return res, nil
}

// releasing frees a call's context with its body.
type releasing struct {
	io.ReadCloser
	release func()
}

func (r *releasing) Close() error {
	err := r.ReadCloser.Close()
	r.release()
	return err
}

// releasingStream is releasing for what follows a 101.
type releasingStream struct {
	io.ReadWriteCloser
	release func()
}

func (r *releasingStream) Close() error {
	err := r.ReadWriteCloser.Close()
	r.release()
	return err
}

// Forward hands a client's request, already rewritten for this engine, to it. See proxy.Forward.
func (e *Engine) Forward(w http.ResponseWriter, r *http.Request, o proxy.Options) error {
	ctx, release, err := e.whileAnswering(r.Context())
	if err != nil {
		return err
	}
	defer release()
	modify, told := o.Modify, e.observed(r.Method, r.URL.Path)
	o.Modify = func(res *http.Response) error {
		e.hear()
		told(ctx, res.StatusCode, nil)
		ctx.answered()
		if modify != nil {
			return modify(res)
		}
		return nil
	}
	o.Tunnels = e.o.Tunnels
	r = r.WithContext(ctx)
	r.Host = "docker"
	e.mu.Lock()
	t := e.target
	e.mu.Unlock()
	if err := proxy.Forward(w, r, t, o); err != nil {
		if ctx.Err() != nil || silent(err) {
			told(ctx, 0, err)
		}
		return e.explain(ctx, err)
	}
	return nil
}

// answering is a request's context that also ends when the engine is lost before it has answered. Streams that have begun
// are left alone: they go on if the engine comes back to its senses. A request that waits for an answer is a reason to ask
// for a sign of life: so pings can be rare where nobody waits.
type answering struct {
	context.Context        //nolint:containedctx // it is a context, with one thing added
	begun           func() // when its answer has
	unhook          func() bool
}

func (a *answering) answered() {
	a.begun()
	a.unhook()
}

func (e *Engine) whileAnswering(parent context.Context) (*answering, func(), error) {
	e.mu.Lock()
	lost := e.lost
	e.mu.Unlock()
	if lost.Err() != nil {
		u := *e.unreachable(context.Cause(lost))
		u.Sent = false
		return nil, nil, &u
	}
	ctx, cancel := context.WithCancelCause(parent)
	unhook := context.AfterFunc(lost, func() { cancel(context.Cause(lost)) })
	late := time.AfterFunc(e.o.Timing.Patience, e.Suspect)
	served := e.o.Courtesy.begin()
	a := &answering{Context: ctx, begun: func() {
		late.Stop()
		served()
	}, unhook: unhook}
	return a, func() {
		a.answered()
		cancel(nil)
	}, nil
}

// explain turns what went wrong on the way to the engine into an error that names the node, and asks for a sign of life.
// A client that went away, and answers that o.Modify refused, are left as they are.
func (e *Engine) explain(ctx context.Context, err error) error {
	var u *UnreachableError
	if errors.As(context.Cause(ctx), &u) {
		return u
	}
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	if ctx.Err() == nil && !silent(err) {
		return err
	}
	e.Suspect()
	return e.unreachable(err)
}

// silent tells whether an error of package proxy is about an engine that said nothing.
func silent(err error) bool {
	return errors.As(err, new(*proxy.NotSentError)) || errors.As(err, new(*proxy.NoAnswerError))
}
