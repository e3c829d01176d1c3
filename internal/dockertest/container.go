package dockertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// container is one container. Guarded by Daemon.mu.
type container struct {
	d        *Daemon
	id, name string
	created  time.Time
	imageRef string // as the client wrote it
	imageTag string // the tag that stood for, "" if it was an ID
	imageID  string
	config   *config
	rawHost  json.RawMessage // HostConfig as the client sent it, for inspect
	host     *hostConfig

	status     string // created, running, paused, restarting, exited
	exitCode   int
	err        string
	pid        int
	startedAt  time.Time
	finishedAt time.Time
	health     string // "" without a health check
	restarts   int
	stopped    bool // by a client, so that no restart policy applies
	prepared   bool // a start got as far as its files and network

	endpoints []*endpoint
	mounts    []mountPoint
	ports     []port // those held while it runs
	out       *output
	proc      *process
	// pending and pendingEOF are stdin that came before the start.
	pending    []byte
	pendingEOF bool
	execs      []*exec
	files      map[string]*file // nil until someone asks
	ended      chan struct{}    // closed and replaced at each exit and at removal; nil if nobody waits
	waiters    []*waiter
	restart    *timer
}

// config is the part of a container's configuration that does not depend on the host, in the engine's order.
type config struct {
	Hostname        string
	Domainname      string
	User            string
	AttachStdin     bool
	AttachStdout    bool
	AttachStderr    bool
	ExposedPorts    map[string]struct{} `json:",omitempty"`
	Tty             bool
	OpenStdin       bool
	StdinOnce       bool
	Env             []string
	Cmd             words
	Healthcheck     json.RawMessage `json:",omitempty"`
	ArgsEscaped     bool            `json:",omitempty"`
	Image           string
	Volumes         map[string]struct{}
	WorkingDir      string
	Entrypoint      words
	NetworkDisabled bool   `json:",omitempty"`
	MacAddress      string `json:",omitempty"`
	OnBuild         []string
	Labels          map[string]string
	StopSignal      string `json:",omitempty"`
	StopTimeout     *int   `json:",omitempty"`
	Shell           words  `json:",omitempty"`
}

// words is a command: a list, or a single string.
type words []string

// UnmarshalJSON accepts both forms.
func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*w = nil
		if string(b) != "null" {
			*w = words{one}
		}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// hostConfig is what the daemon itself needs of HostConfig.
type hostConfig struct {
	NetworkMode     string
	AutoRemove      bool
	PublishAllPorts bool
	Memory          int64
	NanoCpus        int64
	IpcMode         string
	Links           []string
	VolumesFrom     []string
	Binds           []string
	Mounts          []mountRequest
	PortBindings    map[string][]portBinding
	RestartPolicy   struct {
		Name              string
		MaximumRetryCount int
	}
}

type portBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// findContainer resolves a reference: full ID, name, then unique ID prefix. Called with d.mu.
func (d *Daemon) findContainer(ref string) (*container, error) {
	if c := d.containers[ref]; c != nil {
		return c, nil
	}
	name := strings.TrimPrefix(ref, "/")
	for _, c := range d.order {
		if c.name == name {
			return c, nil
		}
	}
	var found *container
	for _, c := range d.order {
		if ref == "" || !strings.HasPrefix(c.id, ref) {
			continue
		}
		if found != nil {
			return nil, fail(d.ambiguousStatus(), "Multiple IDs found with provided prefix: %s", ref)
		}
		found = c
	}
	if found == nil {
		return nil, fail(http.StatusNotFound, "No such container: %s", ref)
	}
	return found, nil
}

// ambiguousStatus is what an ambiguous prefix answers: a blunder of old engines, the client's fault for new ones.
func (d *Daemon) ambiguousStatus() int {
	if d.speaks("1.42") {
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// emit sends a container event. Called with d.mu.
func (c *container) emit(action string, pairs ...string) {
	c.d.emit("container", action, c.id, attributes(c.config.Labels, append(pairs, "image", c.imageRef, "name", c.name)...))
}

func (c *container) running() bool { return c.status == "running" || c.status == "paused" }

// command is entrypoint and arguments.
func (c *container) command() []string {
	return append(slices.Clone([]string(c.config.Entrypoint)), c.config.Cmd...)
}

func (c *container) notRunning() error {
	return fail(http.StatusConflict, "Container %s is not running", c.id)
}

// removeContainer answers DELETE /containers/{id}.
func (d *Daemon) removeContainer(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.findContainer(r.name)
	if err != nil {
		return err
	}
	if c.running() || c.status == "restarting" {
		if !r.flag("force") {
			return fail(http.StatusConflict, "You cannot remove a %s container %s. Stop the container before attempting removal or force remove",
				c.status, c.id)
		}
		c.kill(9)
	}
	c.remove(r.flag("v"))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// remove forgets a stopped container. Called with d.mu; harmless if an auto-remove was faster.
func (c *container) remove(volumes bool) {
	d := c.d
	if d.containers[c.id] == nil {
		return
	}
	c.halt()
	delete(d.containers, c.id)
	d.order = slices.DeleteFunc(d.order, func(o *container) bool { return o == c })
	for _, e := range c.execs {
		delete(d.execs, e.id)
	}
	if volumes {
		d.removeAnonymous(c)
	}
	c.emit("destroy")
	c.notify(removed)
	wake(&c.ended)
}

// halt stops everything that might still happen in the container, silently.
func (c *container) halt() {
	if c.proc != nil {
		c.proc.halt()
	}
	for _, e := range c.execs {
		e.halt()
	}
	c.restart.stop()
}

// pruneContainers answers POST /containers/prune.
func (d *Daemon) pruneContainers(w http.ResponseWriter, r *request) error {
	f, err := r.filters("label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.until()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var deleted []string
	for _, c := range slices.Clone(d.order) {
		if (c.status == "created" || c.status == "exited") && f.labels(c.config.Labels) && (until.IsZero() || c.created.Before(until)) {
			deleted = append(deleted, c.id)
			c.remove(false)
		}
	}
	d.emit("container", "prune", "", map[string]string{"reclaimed": "0"})
	writeJSON(w, http.StatusOK, struct {
		ContainersDeleted []string
		SpaceReclaimed    int64
	}{deleted, 0})
	return nil
}

// until reads the filter: a duration back from now, or a Unix time.
func (f filters) until() (time.Time, error) {
	if !f.has("until") {
		return time.Time{}, nil
	}
	if dur, err := time.ParseDuration(f["until"][0]); err == nil {
		return time.Now().Add(-dur), nil
	}
	return parseTimestamp(f["until"][0])
}

// lockContainer locks the daemon and resolves the request's container; the caller unlocks unless there is an error.
func (d *Daemon) lockContainer(r *request) (*container, error) {
	d.mu.Lock()
	c, err := d.findContainer(r.name)
	if err != nil {
		d.mu.Unlock()
		return nil, err
	}
	return c, nil
}

// renameContainer answers POST /containers/{id}/rename.
func (d *Daemon) renameContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	name := strings.TrimPrefix(r.param("name"), "/")
	switch {
	case name == "":
		return fail(http.StatusBadRequest, "Neither old nor new names may be empty")
	case name == c.name:
		return fail(http.StatusBadRequest, "Renaming a container with the same name as its current name")
	case !validName.MatchString(name):
		return fail(http.StatusBadRequest, "Error when allocating new name: Invalid container name (/%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	if _, err := d.reserveName(name, c.id); err != nil {
		return fail(http.StatusConflict, "Error when allocating new name: %s", err)
	}
	old := c.name
	c.name = name
	c.emit("rename", "oldName", "/"+old)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// updateContainer answers POST /containers/{id}/update: it merges the body into HostConfig.
func (d *Daemon) updateContainer(w http.ResponseWriter, r *request) error {
	var change json.RawMessage
	if err := r.decode(&change, http.StatusBadRequest, "got EOF while reading request body"); err != nil {
		return err
	}
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	merged, err := mergeObjects(c.rawHost, change)
	if err != nil {
		return fail(http.StatusBadRequest, "%s", err)
	}
	host := *c.host
	if err := json.Unmarshal(change, &host); err != nil {
		return fail(http.StatusBadRequest, "%s", err)
	}
	c.rawHost, c.host = merged, &host
	c.emit("update")
	writeJSON(w, http.StatusOK, struct{ Warnings []string }{})
	return nil
}

// mergeObjects lays one JSON object over another, key by key.
func mergeObjects(base, over json.RawMessage) (json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	for _, raw := range []json.RawMessage{base, over} {
		if len(raw) == 0 {
			continue
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("merge: %w", err)
		}
	}
	return json.Marshal(m)
}
