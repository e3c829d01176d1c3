package dockertest

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// startContainer answers POST /containers/{id}/start.
func (d *Daemon) startContainer(w http.ResponseWriter, r *request) error {
	if r.ContentLength > 2 {
		return fail(http.StatusBadRequest, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	switch {
	case c.status == "paused":
		return fail(http.StatusConflict, "cannot start a paused container, try unpause instead")
	case c.running():
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if err := c.start(); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// start runs the container. A failure is remembered in its state, and takes an auto-removed container away. Called with d.mu.
func (c *container) start() error {
	c.restart.stop()
	if err := c.tryStart(); err != nil {
		c.err = err.Error()
		c.status = "created"
		c.releaseNetwork()
		if c.host.AutoRemove {
			c.remove(true)
		}
		return err
	}
	return nil
}

func (c *container) tryStart() error {
	d := c.d
	c.exitCode = 128 // what a failed start leaves behind
	if err := c.connectAll(); err != nil {
		return err
	}
	c.prepared = true
	cmd := c.command()
	if len(cmd) == 0 {
		return fail(http.StatusBadRequest, "No command specified")
	}
	steps, ok := compile(cmd)
	if !ok {
		c.exitCode = 127
		return fail(http.StatusBadRequest, "failed to create shim task: OCI runtime create failed: runc create failed: unable to start "+
			"container process: exec: %q: executable file not found in $PATH: unknown", cmd[0])
	}
	for _, m := range c.mounts {
		m.emit(d, c, "mount")
	}
	d.lastPid++
	c.status, c.err, c.exitCode, c.pid = "running", "", 0, d.lastPid
	c.startedAt, c.stopped = d.now(), false
	if c.health != "" {
		c.health = "starting"
	}
	c.proc = c.newProcess(steps, c.out, c.config.Tty, c.exited)
	c.proc.input, c.proc.eof = c.pending, c.pendingEOF || !c.config.OpenStdin
	c.pending, c.pendingEOF = nil, false
	c.emit("start")
	c.proc.run()
	return nil
}

func (c *container) newProcess(steps []step, out *output, tty bool, onExit func(int)) *process {
	return &process{
		d: c.d, steps: steps, out: out, tty: tty, hostname: c.config.Hostname, env: c.config.Env, readFile: c.readFile, onExit: onExit,
	}
}

// exited is what follows the end of the main process: events, then whoever waits, then restart or removal.
func (c *container) exited(code int) {
	c.status, c.exitCode, c.pid, c.finishedAt = "exited", code, 0, c.d.now()
	for _, e := range c.execs {
		e.kill()
		e.over = true
	}
	c.emit("die", "exitCode", strconv.Itoa(code))
	c.releaseNetwork()
	for _, m := range c.mounts {
		m.emit(c.d, c, "unmount")
	}
	again := c.wantsRestart(code)
	if again {
		c.status = "restarting"
		delay := min(100*time.Millisecond<<min(c.restarts, 10), time.Minute)
		c.restart = c.d.after(delay, c.startAgain)
	}
	c.notify(exited)
	wake(&c.ended)
	if !again && c.host.AutoRemove {
		c.remove(true)
	}
}

// wantsRestart applies the restart policy.
func (c *container) wantsRestart(code int) bool {
	if c.stopped || c.d.closed {
		return false
	}
	switch p := c.host.RestartPolicy; p.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return code != 0 && (p.MaximumRetryCount == 0 || c.restarts < p.MaximumRetryCount)
	}
	return false
}

// startAgain is the restart policy's turn. Its failure is in the container's state; nobody else is told, as on an engine.
func (c *container) startAgain() {
	c.restarts++
	_ = c.start()
}

// kill sends a signal and its event. Called with d.mu.
func (c *container) kill(n int) {
	if n == 9 || deadly[n] {
		c.stopped = true
	}
	if c.status == "restarting" {
		c.restart.stop()
		c.status = "exited"
		return
	}
	c.emit("kill", "signal", strconv.Itoa(n))
	if c.status == "paused" && n != 9 {
		c.unpause()
	}
	c.proc.signal(n, deadly[n] || n == c.stopSignal())
}

func (c *container) stopSignal() int {
	if n, ok := parseSignal(c.config.StopSignal); ok {
		return n
	}
	return 15
}

// killContainer answers POST /containers/{id}/kill.
func (d *Daemon) killContainer(w http.ResponseWriter, r *request) error {
	n := 9
	if s := r.param("signal"); s != "" {
		var ok bool
		if n, ok = parseSignal(s); !ok {
			return fail(http.StatusBadRequest, "Invalid signal: %s", s)
		}
	}
	c, err := d.lockContainer(r)
	if err != nil {
		return fail(http.StatusNotFound, "Cannot kill container: %s: %s", r.name, err)
	}
	defer d.mu.Unlock()
	if !c.running() && c.status != "restarting" {
		return fail(http.StatusConflict, "Cannot kill container: %s: %s", r.name, c.notRunning())
	}
	if d.opt.SlowDeath > 0 {
		d.after(d.opt.SlowDeath, func() { c.kill(n) })
	} else {
		c.kill(n)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// stopContainer answers POST /containers/{id}/stop.
func (d *Daemon) stopContainer(w http.ResponseWriter, r *request) error {
	timeout, err := r.number("t", -2, http.StatusInternalServerError)
	if err != nil {
		return err
	}
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	if !c.running() && c.status != "restarting" {
		d.mu.Unlock()
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	n := c.stopSignal()
	if s, ok := parseSignal(r.param("signal")); ok {
		n = s
	}
	err = d.stop(c, n, timeout, r)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// stop asks the process to end and kills it if it has not done so within the timeout in seconds; -2 is the container's own
// timeout, -1 for ever. Called with d.mu, which it releases while it waits.
func (d *Daemon) stop(c *container, n, timeout int, r *request) error {
	if timeout == -2 {
		timeout = 10
		if c.config.StopTimeout != nil {
			timeout = *c.config.StopTimeout
		}
	}
	c.stopped = true
	ended := waitFor(&c.ended)
	if timeout == 0 && c.status != "restarting" {
		// There is no time to obey: the process sees the signal and is killed.
		c.emit("kill", "signal", strconv.Itoa(n))
		c.kill(9)
	} else {
		c.kill(n)
	}
	if c.running() {
		if !d.await(ended, timeout, r) {
			return fail(http.StatusInternalServerError, "context canceled")
		}
		if c.running() {
			c.kill(9)
		}
	}
	c.emit("stop")
	return nil
}

// await releases the lock until ended is closed or the seconds are over. It reports whether the client is still there.
func (d *Daemon) await(ended <-chan struct{}, seconds int, r *request) bool {
	d.mu.Unlock()
	defer d.mu.Lock()
	var over <-chan time.Time
	if seconds >= 0 {
		timer := time.NewTimer(time.Duration(seconds) * time.Second)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ended:
	case <-over:
	case <-r.Context().Done():
		return false
	case <-d.quit:
		return false
	}
	return true
}

// restartContainer answers POST /containers/{id}/restart.
func (d *Daemon) restartContainer(w http.ResponseWriter, r *request) error {
	timeout, err := r.number("t", -2, http.StatusInternalServerError)
	if err != nil {
		return err
	}
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if c.running() || c.status == "restarting" {
		// An auto-removed container survives a restart.
		auto := c.host.AutoRemove
		c.host.AutoRemove = false
		err := d.stop(c, c.stopSignal(), timeout, r)
		c.host.AutoRemove = auto
		if err != nil {
			return err
		}
	}
	if err := c.start(); err != nil {
		return fail(statusOf(err), "Cannot restart container %s: %s", r.name, err)
	}
	c.emit("restart")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// pauseContainer answers POST /containers/{id}/pause.
func (d *Daemon) pauseContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	switch c.status {
	case "running":
	case "paused":
		return fail(http.StatusConflict, "Container %s is already paused", c.id)
	default:
		return c.notRunning()
	}
	c.pause()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *container) pause() {
	c.status = "paused"
	c.proc.freeze()
	c.emit("pause")
}

// unpauseContainer answers POST /containers/{id}/unpause.
func (d *Daemon) unpauseContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if c.status != "paused" {
		return fail(http.StatusInternalServerError, "Container %s is not paused", c.id)
	}
	c.unpause()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *container) unpause() {
	c.status = "running"
	c.emit("unpause")
	c.proc.thaw()
}

// occasion is what a waiter can wait for.
type occasion int

const (
	exited  occasion = iota // the next exit
	removed                 // removal, after an exit
)

// waiter is one open POST …/wait.
type waiter struct {
	what occasion
	code chan int // has room for one
}

// notify tells the waiters for an occasion; a removal ends all waits. Called with d.mu.
func (c *container) notify(what occasion) {
	var rest []*waiter
	for _, w := range c.waiters {
		if w.what == what || what == removed {
			w.code <- c.exitCode
		} else {
			rest = append(rest, w)
		}
	}
	c.waiters = rest
}

// waitContainer answers POST /containers/{id}/wait: the head at once, the body at the exit.
func (d *Daemon) waitContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	wt := &waiter{what: exited, code: make(chan int, 1)}
	switch r.param("condition") {
	case "", "not-running":
		if !c.running() && c.status != "restarting" {
			wt.code <- c.exitCode
		}
	case "removed":
		wt.what = removed
	case "next-exit":
	default:
		if d.speaks("1.42") {
			d.mu.Unlock()
			return fail(http.StatusBadRequest, "invalid condition: %q", r.param("condition"))
		}
	}
	if len(wt.code) == 0 {
		c.waiters = append(c.waiters, wt)
	}
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush(w)
	select {
	case code := <-wt.code:
		text := `{"Error":null,"StatusCode":` + strconv.Itoa(code) + "}\n"
		if d.speaks("1.42") {
			text = strings.Replace(text, `"Error":null,`, "", 1)
		}
		_, _ = w.Write([]byte(text)) // a client that has gone needs no answer
	case <-r.Context().Done():
		d.forget(c, wt)
	case <-d.quit:
	}
	return nil
}

func (d *Daemon) forget(c *container, wt *waiter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, o := range c.waiters {
		if o == wt {
			c.waiters = append(c.waiters[:i:i], c.waiters[i+1:]...)
			return
		}
	}
}

// statusOf is the HTTP status of an error.
func statusOf(err error) int {
	if api, ok := err.(*apiError); ok { //nolint:errorlint // handlers do not wrap
		return api.status
	}
	return http.StatusInternalServerError
}
