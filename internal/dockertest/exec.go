package dockertest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// exec is one exec instance. Guarded by Daemon.mu.
type exec struct {
	id   string
	c    *container
	req  execRequest
	proc *process // nil until it is started
	out  *output
	// started is false until the start, code nil until the end.
	started bool
	code    *int
	over    bool // no longer shown by its container's inspect
	pid     int
	ended   chan struct{}
}

// execRequest is the body of an exec create.
type execRequest struct {
	User                                    string
	Privileged, Tty                         bool
	AttachStdin, AttachStdout, AttachStderr bool
	DetachKeys                              string
	Env                                     []string
	WorkingDir                              string
	Cmd                                     words
}

// createExec answers POST /containers/{id}/exec.
func (d *Daemon) createExec(w http.ResponseWriter, r *request) error {
	var req execRequest
	if err := r.decode(&req, http.StatusBadRequest, "EOF"); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return fail(http.StatusBadRequest, "No exec command specified")
	}
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	switch c.status {
	case "running":
	case "paused":
		return fail(http.StatusConflict, "Container %s is paused, unpause the container before exec", r.name)
	default:
		return c.notRunning()
	}
	e := &exec{id: randomID(), c: c, req: req, out: &output{}, ended: make(chan struct{})}
	d.execs[e.id] = e
	c.execs = append(c.execs, e)
	e.emit("exec_create: " + e.label())
	writeJSON(w, http.StatusCreated, struct {
		ID string `json:"Id"`
	}{e.id})
	return nil
}

// label is the command in the events; the engine leaves a space where there are no arguments.
func (e *exec) label() string {
	return e.req.Cmd[0] + " " + strings.Join(e.req.Cmd[1:], " ")
}

func (e *exec) emit(action string, pairs ...string) {
	e.c.emit(action, append(pairs, "execID", e.id)...)
}

func (d *Daemon) findExec(id string) (*exec, error) {
	if e := d.execs[id]; e != nil {
		return e, nil
	}
	return nil, fail(http.StatusNotFound, "No such exec instance: %s", id)
}

// startExec answers POST /exec/{id}/start: a hijacked stream, or nothing with Detach.
func (d *Daemon) startExec(w http.ResponseWriter, r *request) error {
	var req struct{ Detach, Tty bool }
	if err := r.decode(&req, http.StatusBadRequest, "EOF"); err != nil {
		return err
	}
	d.mu.Lock()
	e, err := d.findExec(r.name)
	if err == nil && !e.c.running() {
		err = e.c.notRunning()
	}
	if err != nil {
		d.mu.Unlock()
		return err
	}
	if req.Detach {
		defer d.mu.Unlock()
		if err := e.begin(); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	s := &stream{
		reader: e.out.open(true), ended: e.ended,
		frames: frames{tty: e.req.Tty, only: map[byte]bool{stdout: e.req.AttachStdout, stderr: e.req.AttachStderr}},
	}
	if e.req.AttachStdin {
		s.feed, s.closeInput = e.feed, e.closeInput
	}
	if e.req.Tty {
		s.detachKeys = []byte{16, 17}
	}
	d.mu.Unlock()
	defer d.closeReader(s.reader)

	if s.hijack, err = takeOver(w, r, rawOrMultiplexed(r, e.req.Tty), "Api-Version", "Docker-Experimental", "Ostype", "Server"); err != nil {
		return err
	}
	d.runExec(e, s)
	return nil
}

// runExec begins the command behind the head and streams. A start that fails now can only be told in the stream.
func (d *Daemon) runExec(e *exec, s *stream) {
	d.mu.Lock()
	if err := e.begin(); err != nil {
		s.frames.only[stdout] = true
		e.out.write(d.now(), stdout, []byte(err.Error()+"\r\n"))
		s.ended = closed()
	}
	d.mu.Unlock()
	if d.run(s) {
		d.mu.Lock()
		e.emit("exec_detach")
		d.mu.Unlock()
	}
}

// closed is a channel that is closed already.
func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (e *exec) startable() error {
	switch {
	case e.code != nil:
		return fail(http.StatusConflict, "Error: Exec command %s has already run", e.id)
	case e.started:
		return fail(http.StatusConflict, "Error: Exec command %s is already running", e.id)
	case !e.c.running():
		return e.c.notRunning()
	}
	return nil
}

// begin starts the command.
func (e *exec) begin() error {
	if err := e.startable(); err != nil {
		return err
	}
	e.started = true
	e.emit("exec_start: " + e.label())
	steps, ok := compile(e.req.Cmd)
	if !ok {
		code := 126
		e.code, e.over = &code, true
		close(e.ended)
		return fail(http.StatusBadRequest, "OCI runtime exec failed: exec failed: unable to start container process: exec: %q: "+
			"executable file not found in $PATH: unknown", e.req.Cmd[0])
	}
	e.c.d.lastPid++
	e.pid = e.c.d.lastPid
	e.proc = e.c.newProcess(steps, e.out, e.req.Tty, e.exited)
	e.proc.env = append(slices.Clone(e.proc.env), e.req.Env...)
	e.proc.eof = !e.req.AttachStdin
	e.proc.run()
	return nil
}

func (e *exec) exited(code int) {
	e.code, e.over = &code, true
	e.emit("exec_die", "exitCode", strconv.Itoa(code))
	close(e.ended)
}

func (e *exec) feed(data []byte) {
	if e.proc != nil {
		e.proc.feed(data)
	}
}

func (e *exec) closeInput() {
	if e.proc != nil {
		e.proc.closeInput()
	}
}

// kill ends the command together with its container.
func (e *exec) kill() {
	if e.proc != nil {
		e.proc.signal(9, true)
	}
}

// halt ends it silently.
func (e *exec) halt() {
	if e.proc != nil && !e.proc.done {
		e.proc.halt()
		close(e.ended)
	}
}

// inspectExec answers GET /exec/{id}/json.
func (d *Daemon) inspectExec(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, err := d.findExec(r.name)
	if err != nil {
		return err
	}
	type processConfig struct {
		Tty        bool     `json:"tty"`
		Entrypoint string   `json:"entrypoint"`
		Arguments  []string `json:"arguments"`
		Privileged bool     `json:"privileged"`
		User       string   `json:"user,omitempty"`
	}
	writeJSON(w, http.StatusOK, struct {
		ID            string
		Running       bool
		ExitCode      *int
		ProcessConfig processConfig
		OpenStdin     bool
		OpenStderr    bool
		OpenStdout    bool
		CanRemove     bool
		ContainerID   string
		DetachKeys    string
		Pid           int
	}{
		e.id, e.started && e.code == nil, e.code,
		processConfig{e.req.Tty, e.req.Cmd[0], append([]string{}, e.req.Cmd[1:]...), e.req.Privileged, e.req.User},
		e.req.AttachStdin, e.req.AttachStderr, e.req.AttachStdout, false, e.c.id, e.req.DetachKeys, e.pid,
	})
	return nil
}

// resizeExec answers POST /exec/{id}/resize.
func (d *Daemon) resizeExec(w http.ResponseWriter, r *request) error {
	if err := r.size(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.execs[r.name]
	if e == nil {
		return fail(http.StatusNotFound, "No such exec instance: %s", r.name)
	}
	if !e.started || e.code != nil {
		return fail(http.StatusNotFound, "no such exec")
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// size checks the two parameters of a resize.
func (r *request) size() error {
	for _, key := range []string{"h", "w"} {
		if _, err := strconv.Atoi(r.param(key)); err != nil {
			return fail(http.StatusBadRequest, "strconv.Atoi: parsing %q: invalid syntax", r.param(key))
		}
	}
	return nil
}

// resizeContainer answers POST /containers/{id}/resize.
func (d *Daemon) resizeContainer(w http.ResponseWriter, r *request) error {
	if err := r.size(); err != nil {
		return err
	}
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if !c.running() {
		return c.notRunning()
	}
	c.emit("resize", "height", r.param("h"), "width", r.param("w"))
	w.WriteHeader(http.StatusOK)
	return nil
}
