// Package dockertest is an in-process Docker daemon for tests: lists, events, hijack, faults on demand.
//
// A Daemon listens where a real one would and keeps containers, images, networks and volumes in memory; answers, statuses,
// texts and events are those of Engine 20.10 (API 1.41), or of a newer API if Options say so. Nothing runs: a container's
// command is played by a small interpreter (see process.go) that knows sleep, cat, echo, sh -c and a few more. What a
// daemon does when it is ill can be had on demand (see fault.go). It knows nothing of berth.
package dockertest

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Options describe a daemon. The zero value is a 2-CPU, 4-GiB Engine 20.10 on a loopback port.
type Options struct {
	Name     string // host name, default "node"
	ID       string // engine ID, default random
	Labels   []string
	NCPU     int
	MemTotal int64

	APIVersion    string // newest API it speaks, default 1.41
	MinAPIVersion string // default 1.12
	ServerVersion string // default 20.10.24

	// Network is "tcp" (default: 127.0.0.1, a free port), "unix", or "mem": no file descriptors, reached through Dial alone,
	// and usable inside a testing/synctest bubble.
	Network string
	// Path is the unix socket, default a temporary one.
	Path string
	// TLS, if set, is served instead of plain text.
	TLS *tls.Config

	// Images are there from the start, Pullable can be pulled (AddPullable adds more).
	Images   []string
	Pullable []string
	// Containers is how many running containers were there before the daemon started: c1, c2, … of image "app:1", each
	// with a label n=<number>, without events of their own.
	Containers int
	// ContainerdStore stores images as newer engines do: an ID is the sum of an image's manifest, not of its configuration.
	ContainerdStore bool
	// SlowDeath is how long a container lives on after a kill was answered, as with new engines.
	SlowDeath time.Duration
	// SlowCleanup is how long lists show a container as running after the event of its end: engines unmount and unplug it in between.
	SlowCleanup time.Duration
	// NoRequestLog leaves Requests empty; RequestCount still counts.
	NoRequestLog bool
}

// Daemon is one running fake. Its methods may be called from any goroutine.
type Daemon struct {
	opt     Options
	id      string
	started time.Time
	routes  map[string][]route

	net      *wire
	server   *http.Server
	handlers sync.WaitGroup
	timers   sync.WaitGroup
	quit     chan struct{} // closed by Close
	once     sync.Once
	tempDir  string

	requests atomic.Int64
	gone     atomic.Bool // closed, for those who hold other locks
	faults   faults

	mu         sync.Mutex // guards everything below, and the containers, processes and networks reached through it
	closed     bool
	lastNano   int64
	containers map[string]*container // by ID
	order      []*container          // oldest first
	execs      map[string]*exec
	images     map[string]*image // by ID
	tags       map[string]string // reference → image ID
	pullable   map[string]bool
	networks   []*network
	volumes    map[string]*volume
	events     eventLog
	ports      map[string]*container // "80/tcp" → who holds it
	lastPort   int
	lastPid    int
	swarm      *cluster // that it is in
	swarmNode  string   // its ID there
}

// New starts a daemon. With a t it is closed when the test ends; t may be nil, then the caller closes it. It panics if it
// cannot listen: there is nothing a test could do about that.
func New(t testing.TB, o Options) *Daemon {
	d := &Daemon{
		opt: o.withDefaults(), started: time.Now().UTC(), quit: make(chan struct{}),
		containers: map[string]*container{}, execs: map[string]*exec{}, images: map[string]*image{}, tags: map[string]string{},
		pullable: map[string]bool{}, volumes: map[string]*volume{}, ports: map[string]*container{}, lastPort: 32767, lastPid: 1000,
	}
	d.id = d.opt.ID
	if d.id == "" {
		d.id = engineID()
	}
	d.routes = routeTable()
	d.addPredefinedNetworks()
	for _, ref := range d.opt.Images {
		d.AddImage(ref)
	}
	d.AddPullable(d.opt.Pullable...)
	d.populate(d.opt.Containers)
	d.serve()
	if t != nil {
		t.Cleanup(d.Close)
	}
	return d
}

func (o Options) withDefaults() Options {
	setDefault(&o.Name, "node")
	setDefault(&o.NCPU, 2)
	setDefault(&o.MemTotal, 4<<30)
	setDefault(&o.APIVersion, "1.41")
	setDefault(&o.MinAPIVersion, "1.12")
	setDefault(&o.ServerVersion, "20.10.24")
	setDefault(&o.Network, "tcp")
	if o.Labels == nil {
		o.Labels = []string{}
	}
	return o
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// serve opens the listener and answers on it until Close.
func (d *Daemon) serve() {
	if d.opt.Network == "unix" && d.opt.Path == "" {
		dir, err := os.MkdirTemp("", "dockertest")
		if err != nil {
			panic(fmt.Sprintf("dockertest: %v", err))
		}
		d.tempDir, d.opt.Path = dir, dir+"/docker.sock"
	}
	d.net = newWire(d.opt, d.quit)
	if err := d.net.listen(); err != nil {
		panic(fmt.Sprintf("dockertest: %v", err))
	}
	d.server = &http.Server{Handler: d, ReadHeaderTimeout: 5 * time.Minute}
	d.handlers.Go(func() {
		// The listener outlives Refuse and Listen, so this returns only at Close, with ErrServerClosed.
		if err := d.server.Serve(d.net.listener()); err != http.ErrServerClosed { //nolint:errorlint // never wrapped
			panic(fmt.Sprintf("dockertest: serve: %v", err))
		}
	})
}

// Close ends every connection and waits for everything that the daemon started. It may be called more than once.
func (d *Daemon) Close() {
	d.once.Do(func() {
		d.gone.Store(true)
		d.mu.Lock()
		d.closed = true
		for _, c := range d.order {
			c.halt()
		}
		for _, e := range d.execs {
			e.halt()
		}
		d.mu.Unlock()
		close(d.quit)
		// Close's error would be that of a listener or connection that is being thrown away.
		_ = d.server.Close()
		d.net.close()
		d.handlers.Wait()
		d.timers.Wait()
		if d.tempDir != "" {
			_ = os.RemoveAll(d.tempDir)
		}
	})
}

// ID is the engine ID that /info shows.
func (d *Daemon) ID() string { return d.id }

// Name is the host name that /info shows.
func (d *Daemon) Name() string { return d.opt.Name }

// now is the time in UTC, strictly increasing from call to call so that no two events share a timeNano. Called with d.mu.
func (d *Daemon) now() time.Time {
	n := max(time.Now().UnixNano(), d.lastNano+1)
	d.lastNano = n
	return time.Unix(0, n).UTC()
}

// after runs f with d.mu held once dur has passed, unless the timer is stopped or the daemon closed before.
func (d *Daemon) after(dur time.Duration, f func()) *timer {
	t := &timer{d: d}
	d.timers.Add(1)
	t.t = time.AfterFunc(dur, func() {
		defer d.timers.Done()
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.closed && !t.stopped {
			f()
		}
	})
	return t
}

// timer is a time.AfterFunc that Close can wait for.
type timer struct {
	d       *Daemon
	t       *time.Timer
	stopped bool // guarded by d.mu
}

// stop is called with d.mu held; the function will not run any more. A nil timer is stopped.
func (t *timer) stop() {
	if t == nil || t.stopped {
		return
	}
	t.stopped = true
	if t.t.Stop() {
		t.d.timers.Done()
	}
}
