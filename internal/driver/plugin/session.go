package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"sync"
	"time"

	"berth/internal/machine"
)

// pace is how long a plugin may take for what needs nothing but itself, and how often it is told that somebody is there: it ends
// when it hears nothing for 10 seconds.
type pace struct {
	start  time.Duration // until it answers at all
	answer time.Duration // what it knows by itself, and its sign of life
	close  time.Duration // its answer to Close
	end    time.Duration // its end after that
	beat   time.Duration
	calm   time.Duration // the rest of a create that was interrupted, see session.create
}

func usualPace() pace {
	return pace{
		start: 10 * time.Second, answer: 10 * time.Second, close: 2 * time.Second, end: 5 * time.Second, beat: 5 * time.Second,
		calm: 15 * time.Second,
	}
}

// session is a plugin at work on one machine. It is one goroutine's.
type session struct {
	driver  string
	pace    pace
	proc    *process
	client  *rpc.Client
	service string
	debug   func(string)

	stopBeat context.CancelFunc
	beating  sync.WaitGroup
	silent   chan struct{} // closed when the plugin gives no sign of life
}

// serverError is what a plugin answers, in its own words.
type serverError struct{ text string }

func (e *serverError) Error() string { return e.text }

// cutError is a call that nobody waits for any more, since its context has ended.
type cutError struct {
	step  string
	cause error // why the context ended
	ended error // what contexts say of that
}

func cut(ctx context.Context, step string) error {
	return &cutError{step, context.Cause(ctx), ctx.Err()}
}

func (e *cutError) Error() string        { return e.step + ": " + e.cause.Error() }
func (e *cutError) Unwrap() error        { return e.cause }
func (e *cutError) Is(target error) bool { return errors.Is(e.ended, target) }

var errSilent = errors.New("it gives no sign of life any more")

// open starts the plugin and gives it the machine's JSON. Info is for what it says to the user.
func (d *Driver) open(ctx context.Context, name string, config []byte, info func(string)) (*session, error) {
	s, err := d.start(ctx, info, func(line string) { d.log.Debug(name, line) })
	if err != nil {
		return nil, fmt.Errorf("driver %s: start the plugin %s: %w", d.name, d.path, err)
	}
	if err := s.ask(ctx, "SetConfigRaw", config, &struct{}{}); err != nil {
		s.close(ctx)
		return nil, err
	}
	return s, nil
}

func (d *Driver) start(ctx context.Context, info, debug func(string)) (*session, error) {
	registerNames()
	late := fmt.Errorf("no answer within %s", d.pace.start)
	ctx, cancel := context.WithTimeoutCause(ctx, d.pace.start, late)
	defer cancel()
	if ctx.Err() != nil {
		return nil, cut(ctx, "begin")
	}
	proc, err := d.spawn(info, debug)
	if err != nil {
		return nil, err
	}
	s := &session{driver: d.name, pace: d.pace, proc: proc, service: serviceV1, debug: debug, silent: make(chan struct{})}
	err = s.connect(ctx)
	if err == nil {
		err = s.agree(ctx)
	}
	if err == nil {
		s.beat(ctx)
		return s, nil
	}
	if ctx.Err() != nil {
		err = cut(ctx, "get in touch with it")
		if words := proc.words.String(); words != "" {
			err = fmt.Errorf("%w: %s", err, words)
		}
	}
	if s.client != nil {
		_ = s.client.Close() // nothing is asked of it any more
	}
	proc.stop(0)
	return nil, err
}

// connect waits for the plugin's address and dials it.
func (s *session) connect(ctx context.Context) error {
	var line string
	var said bool
	select {
	case line, said = <-s.proc.address:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !said {
		<-s.proc.exited
		return s.proc.ended()
	}
	address, err := parseAddress(line)
	if err != nil {
		return err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	s.client, err = handshake(conn)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// handshake turns a connection to a plugin's HTTP server into one of Go's RPC.
func handshake(conn net.Conn) (*rpc.Client, error) {
	if _, err := io.WriteString(conn, "CONNECT "+rpc.DefaultRPCPath+" HTTP/1.0\n\n"); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // what follows is the connection
	if err != nil {
		return nil, fmt.Errorf("what listens there does not speak docker-machine's protocol: %w", err)
	}
	if resp.Status != "200 Connected to Go RPC" {
		return nil, fmt.Errorf("what listens there does not speak docker-machine's protocol: %.100q", resp.Status)
	}
	return rpc.NewClient(&bufferedConn{conn, r}), nil
}

// bufferedConn is a connection of which some was read already.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// agree finds the name of the plugin's service and checks its version.
func (s *session) agree(ctx context.Context) error {
	version := 0
	err := s.await(ctx, "GetVersion", s.send("GetVersion", struct{}{}, &version))
	var refused *serverError
	if errors.As(err, &refused) { // docker-machine before 0.5.1 called the service so
		s.service = serviceV0
		err = s.await(ctx, "GetVersion", s.send("GetVersion", struct{}{}, &version))
	}
	if err != nil {
		return err
	}
	if version != apiVersion {
		return fmt.Errorf("Driver binary uses an incompatible API version (%d): berth speaks %d", version, apiVersion) //nolint:staticcheck,revive // docker-machine's text
	}
	return nil
}

// beat keeps telling the plugin that somebody is there, until close and whatever becomes of ctx.
func (s *session) beat(ctx context.Context) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopBeat = stop
	s.beating.Go(func() {
		tick := time.NewTicker(s.pace.beat)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			late, cancel := context.WithTimeout(ctx, s.pace.answer)
			err := s.await(late, "Heartbeat", s.send("Heartbeat", struct{}{}, &struct{}{}))
			cancel()
			var refused *serverError
			if err != nil && !errors.As(err, &refused) { // to refuse is a sign of life
				close(s.silent)
				return
			}
		}
	})
}

// call asks the plugin to do something, for as long as that takes.
func (s *session) call(ctx context.Context, method string) error {
	return s.await(ctx, method, s.send(method, struct{}{}, &struct{}{}))
}

// ask is for what the plugin knows by itself. The answer may be looked at only if there is no error.
func (s *session) ask(ctx context.Context, method string, arg, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.pace.answer, fmt.Errorf("no answer within %s", s.pace.answer))
	defer cancel()
	return s.await(ctx, method, s.send(method, arg, answer))
}

func (s *session) send(method string, arg, answer any) *rpc.Call {
	return s.client.Go(s.service+"."+method, arg, answer, make(chan *rpc.Call, 1))
}

// await waits for the answer to a call, for as long as ctx and the plugin live.
func (s *session) await(ctx context.Context, method string, call *rpc.Call) error {
	var err error
	select {
	case <-call.Done:
		err = call.Error
	case <-ctx.Done():
		return cut(ctx, "driver "+s.driver+": "+method)
	case <-s.silent:
		err = errSilent
	}
	var refused rpc.ServerError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return s.refusal(string(refused))
	}
	return s.broken(method, err)
}

// broken is the error of a call that the connection's end cut off. How the plugin ended says more about it.
func (s *session) broken(method string, err error) error {
	timer := time.NewTimer(pipeTime + 500*time.Millisecond)
	defer timer.Stop()
	select {
	case <-s.proc.exited:
		err = s.proc.ended()
	case <-timer.C:
	}
	return fmt.Errorf("driver %s: the plugin broke off at %s: %w", s.driver, method, err)
}

// close ends the plugin: it is asked to, and made to if it does not. That takes time also after ctx has ended.
func (s *session) close(ctx context.Context) {
	s.stopBeat()
	s.beating.Wait()
	grace := time.Duration(0)
	s.proc.quiet.Store(true) // Rancher's plugins tell the user that they close
	if s.alive() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pace.close)
		err := s.await(ctx, "Close", s.send("Close", struct{}{}, &struct{}{}))
		cancel()
		// It may be gone before it has answered. One that does not listen need not be waited for.
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			grace = s.pace.end
		}
	}
	_ = s.client.Close() // broken or not, it is over
	s.proc.stop(grace)
}

func (s *session) alive() bool {
	select {
	case <-s.silent:
		return false
	case <-s.proc.exited:
		return false
	default:
		return true
	}
}

// abandon makes close kill the plugin: it is in the middle of something that nobody waits for.
func (s *session) abandon() { s.proc.stop(0) }

// state asks for the machine's state.
func (s *session) state(ctx context.Context) (machine.State, error) {
	n := 0
	if err := s.await(ctx, "GetState", s.send("GetState", struct{}{}, &n)); err != nil {
		return machine.StateNone, err
	}
	return fromWireState(n)
}

// flags are the plugin's flags for create.
func (s *session) flags(ctx context.Context) ([]machine.Flag, error) {
	var wire []any
	if err := s.ask(ctx, "GetCreateFlags", struct{}{}, &wire); err != nil {
		return nil, err
	}
	flags, err := fromWires(wire)
	if err != nil {
		return nil, fmt.Errorf("driver %s: the plugin offers %w", s.driver, err)
	}
	return flags, nil
}
