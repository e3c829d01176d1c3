package dockertest

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Request is one line of the request log. Path has no version prefix and no query.
type Request struct {
	Method, Path string
}

// faults are the illnesses that strike single requests.
type faults struct {
	mu    sync.Mutex
	delay time.Duration
	next  []*fault
	log   []Request
}

// fault strikes the next request that matches, once.
type fault struct {
	method, prefix string
	status         int // answer this instead of handling
	message        string
	drop           bool          // close the connection
	handleFirst    bool          // … after the effect
	reached        chan struct{} // closed when the request is there
	release        chan struct{} // handled once this is closed
}

// match takes the first pending fault for the request out of the list, and says how long to delay.
func (f *faults) match(method, path string) (*fault, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, n := range f.next {
		if (n.method == "" || n.method == method) && strings.HasPrefix(path, n.prefix) {
			f.next = append(f.next[:i:i], f.next[i+1:]...)
			return n, f.delay
		}
	}
	return nil, f.delay
}

func (f *faults) add(n *fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = append(f.next, n)
}

func (f *faults) record(method, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, Request{method, path})
}

// Hang makes the daemon stand still as SIGSTOP does: connections are accepted, nothing is answered, streams go silent.
func (d *Daemon) Hang() { d.net.hang(true) }

// Resume ends Hang; what was waiting goes on.
func (d *Daemon) Resume() { d.net.hang(false) }

// Refuse makes the address refuse connections and resets the open ones, as when the daemon was killed; containers live on.
func (d *Daemon) Refuse() { d.net.refuse() }

// Listen ends Refuse, on the same address.
func (d *Daemon) Listen() error { return d.net.listen() }

// Restart is Refuse and Listen, with the events forgotten as real daemons do.
func (d *Daemon) Restart() error {
	d.Refuse()
	d.mu.Lock()
	d.events.ring = nil
	d.mu.Unlock()
	return d.Listen()
}

// Delay makes every request wait before it is handled; 0 ends it.
func (d *Daemon) Delay(dur time.Duration) {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.delay = dur
}

// FailNext answers the next request whose path, without version, starts with pathPrefix, and does nothing else. An empty
// method matches all. Faults are used up in the order they were made.
func (d *Daemon) FailNext(method, pathPrefix string, status int, message string) {
	d.faults.add(&fault{method: method, prefix: pathPrefix, status: status, message: message})
}

// DropNext closes the connection instead of answering the next matching request, before or after it took effect.
func (d *Daemon) DropNext(method, pathPrefix string, afterHandling bool) {
	d.faults.add(&fault{method: method, prefix: pathPrefix, drop: true, handleFirst: afterHandling})
}

// HoldNext keeps the next matching request from being handled until release is called (once). reached is closed when the
// request has arrived.
func (d *Daemon) HoldNext(method, pathPrefix string) (reached <-chan struct{}, release func()) {
	f := &fault{method: method, prefix: pathPrefix, reached: make(chan struct{}), release: make(chan struct{})}
	d.faults.add(f)
	return f.reached, sync.OnceFunc(func() { close(f.release) })
}

// Requests is the log of all requests so far.
func (d *Daemon) Requests() []Request {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	return append([]Request(nil), d.faults.log...)
}

// ResetRequests empties the log and sets the count to 0.
func (d *Daemon) ResetRequests() {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.log = nil
	d.requests.Store(0)
}

// RequestCount is how many requests there were, log or no log.
func (d *Daemon) RequestCount() int64 { return d.requests.Load() }

// Addr is the daemon's address in DOCKER_HOST's form: tcp://127.0.0.1:4711, unix:///path, mem://name.
func (d *Daemon) Addr() string { return d.opt.Network + "://" + d.HostPort() }

// HostPort is the address without its scheme.
func (d *Daemon) HostPort() string {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	return d.net.addr
}

// Dial connects to the daemon whatever the arguments say, so that it fits http.Transport.DialContext. With TLS the result
// is still the bare connection.
func (d *Daemon) Dial(ctx context.Context, _, _ string) (net.Conn, error) { return d.net.dial(ctx) }

// strike lets the faults act on a request. It returns the writer to handle it with, or nil when it is answered already.
// after must be called when the handler has returned.
func (d *Daemon) strike(w http.ResponseWriter, r *http.Request, path string) (_ http.ResponseWriter, after func()) {
	f, delay := d.faults.match(r.Method, path)
	if delay > 0 {
		pause(d, r, time.After(delay))
	}
	switch {
	case f == nil:
		return w, func() {}
	case f.release != nil:
		close(f.reached)
		pause(d, r, f.release)
		return w, func() {}
	case f.drop && f.handleFirst:
		return &discard{header: http.Header{}}, func() { panic(http.ErrAbortHandler) }
	case f.drop:
		panic(http.ErrAbortHandler)
	default:
		d.writeError(w, &apiError{f.status, f.message})
		return nil, nil
	}
}

// pause waits for c; a request whose client or daemon has gone meanwhile is not handled at all.
func pause[T any](d *Daemon, r *http.Request, c <-chan T) {
	select {
	case <-c:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-d.quit:
		panic(http.ErrAbortHandler)
	}
}

// discard takes an answer that nobody will see.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Flush()                      {}
