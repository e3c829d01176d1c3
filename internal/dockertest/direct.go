package dockertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Container is a container as tests make and see them.
type Container struct {
	ID, Name string
	Image    string // default "app:1", added if it is not there
	Cmd      []string
	Env      []string
	Labels   map[string]string
	// State is created, running (the default), paused or exited.
	State string
	// Health is "", starting, healthy or unhealthy.
	Health   string
	ExitCode int
	Memory   int64
	NanoCPUs int64
	// Ports are published ones as [ip:]host:container[/proto].
	Ports []string
	// NetworkMode and HostConfig: the first is a shorthand, the second is laid over everything above.
	NetworkMode string
	HostConfig  map[string]any
}

// AddContainer makes a container as a client would, events and all, and returns its ID. It panics if the daemon refuses.
func (d *Daemon) AddContainer(want Container) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	setDefault(&want.Image, "app:1")
	if _, err := d.findImage(want.Image); err != nil {
		d.addImage(want.Image)
	}
	req := &createRequest{config: config{Image: want.Image, Cmd: want.Cmd, Env: want.Env, Labels: want.Labels}}
	if len(want.Cmd) == 0 {
		req.Cmd = words{"sleep", "infinity"}
	}
	host := map[string]any{"Memory": want.Memory, "NanoCpus": want.NanoCPUs}
	if want.NetworkMode != "" {
		host["NetworkMode"] = want.NetworkMode
	}
	if len(want.Ports) > 0 {
		req.ExposedPorts, host["PortBindings"] = portSpecs(want.Ports)
	}
	maps.Copy(host, want.HostConfig)
	req.HostConfig = mustMarshal(host)
	c, err := d.create(want.Name, req, true)
	if err != nil {
		panic(fmt.Sprintf("dockertest: add container %q: %v", want.Name, err))
	}
	if want.Health != "" {
		c.config.Healthcheck = json.RawMessage(`{"Test":["CMD","true"]}`)
	}
	c.bring(want)
	return c.id
}

// bring takes a new container to the state that was asked for.
func (c *container) bring(want Container) {
	if want.State == "created" {
		return
	}
	if err := c.start(); err != nil {
		panic(fmt.Sprintf("dockertest: start container %q: %v", c.name, err))
	}
	if want.Health != "" {
		c.setHealth(want.Health)
	}
	switch want.State {
	case "paused":
		c.pause()
	case "exited":
		c.stopped = true
		c.proc.exit(want.ExitCode)
	}
}

// portSpecs reads publish specifications.
func portSpecs(specs []string) (map[string]struct{}, map[string][]portBinding) {
	exposed, bound := map[string]struct{}{}, map[string][]portBinding{}
	for _, s := range specs {
		parts := strings.Split(s, ":")
		private := parts[len(parts)-1]
		if !strings.Contains(private, "/") {
			private += "/tcp"
		}
		exposed[private] = struct{}{}
		b := portBinding{}
		if len(parts) > 1 {
			b.HostPort = parts[len(parts)-2]
		}
		if len(parts) > 2 {
			b.HostIP = parts[0]
		}
		bound[private] = append(bound[private], b)
	}
	return exposed, bound
}

// Containers is all there are, newest first.
func (d *Daemon) Containers() []Container {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Container, 0, len(d.order))
	for _, c := range slices.Backward(d.order) {
		list = append(list, Container{
			ID: c.id, Name: c.name, Image: c.imageRef, Cmd: c.command(), Env: slices.Clone(c.config.Env), Labels: maps.Clone(c.config.Labels),
			State: c.status, Health: c.health, ExitCode: c.exitCode, Memory: c.host.Memory, NanoCPUs: c.host.NanoCpus, NetworkMode: c.host.NetworkMode,
		})
	}
	return list
}

// Find is the container of that name or ID; ok is false if there is none.
func (d *Daemon) Find(ref string) (_ Container, ok bool) {
	for _, c := range d.Containers() {
		if c.Name == ref || c.ID == ref {
			return c, true
		}
	}
	return Container{}, false
}

// SetHealth makes a container with a health check starting, healthy or unhealthy, with the event. It panics if there is no
// such container.
func (d *Daemon) SetHealth(ref, status string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.findContainer(ref)
	if err != nil {
		panic(fmt.Sprintf("dockertest: set health: %v", err))
	}
	c.setHealth(status)
}

func (c *container) setHealth(status string) {
	c.health = status
	c.emit("health_status: " + status)
}

// Exit ends a running container's command with the code, as if it had ended by itself. It panics if it does not run.
func (d *Daemon) Exit(ref string, code int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.findContainer(ref)
	if err != nil || !c.running() {
		panic(fmt.Sprintf("dockertest: exit %s: not running (%v)", ref, err))
	}
	c.proc.exit(code)
}

// Print writes a line to a running container's standard output. It panics if there is no such container.
func (d *Daemon) Print(ref, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.findContainer(ref)
	if err != nil {
		panic(fmt.Sprintf("dockertest: print: %v", err))
	}
	c.out.write(d.now(), stdout, []byte(text+"\n"))
}

// AddImage makes an image of that reference, equal on every daemon, and returns its ID. It panics at a bad reference.
func (d *Daemon) AddImage(ref string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addImage(ref)
}

func (d *Daemon) addImage(ref string) string {
	name, err := normalize(ref)
	if err != nil {
		panic(fmt.Sprintf("dockertest: image %q: %v", ref, err))
	}
	img := standardImage(name)
	d.keep(img, name)
	return img.id
}

// AddPullable makes references available to pulls. It panics at a bad one.
func (d *Daemon) AddPullable(refs ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ref := range refs {
		name, err := normalize(ref)
		if err != nil {
			panic(fmt.Sprintf("dockertest: image %q: %v", ref, err))
		}
		d.pullable[name] = true
	}
}

// Images is the ID of every reference.
func (d *Daemon) Images() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.tags)
}

// populate makes n running containers that were there before the daemon.
func (d *Daemon) populate(n int) {
	for i := range n {
		d.AddContainer(Container{Name: "c" + strconv.Itoa(i+1), Labels: map[string]string{"n": strconv.Itoa(i + 1)}})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events.ring = nil
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// randomID is 64 hex digits.
func randomID() string {
	return fmt.Sprintf("%016x%016x%016x%016x", rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64())
}

// engineID is twelve groups of four letters, as old engines name themselves.
func engineID() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	groups := make([]string, 12)
	for i := range groups {
		b := make([]byte, 4)
		for j := range b {
			b[j] = letters[rand.IntN(len(letters))]
		}
		groups[i] = string(b)
	}
	return strings.Join(groups, ":")
}

// inventName is a name for a container that was given none, taken from its ID so that it is free.
func (d *Daemon) inventName(id string) string {
	adjectives := []string{"brave", "calm", "eager", "gentle", "happy", "keen", "quiet", "swift"}
	birds := []string{"crane", "finch", "heron", "kite", "lark", "owl", "raven", "wren"}
	n, err := strconv.ParseUint(id[:4], 16, 32)
	if err != nil {
		panic(fmt.Sprintf("dockertest: id %q: %v", id, err))
	}
	return adjectives[n%8] + "_" + birds[n/8%8] + "_" + id[4:10]
}
