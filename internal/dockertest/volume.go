package dockertest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// volume is one volume, in the engine's order of fields. Guarded by Daemon.mu.
type volume struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
	anonymous  bool
	files      map[string]*file // nil until someone asks
}

// mountPoint is a mount of a container, in the engine's order.
type mountPoint struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

// mountRequest is an entry of HostConfig.Mounts.
type mountRequest struct {
	Type     string
	Source   string
	Target   string
	ReadOnly bool
}

// planMounts makes the volumes that a new container wants. Called with d.mu.
func (d *Daemon) planMounts(c *container) {
	have := map[string]bool{}
	add := func(m mountPoint, name string) {
		if have[m.Destination] {
			return
		}
		have[m.Destination] = true
		if m.Type == "volume" {
			v := d.makeVolume(name, "", nil, nil)
			m.Name, m.Driver = v.Name, v.Driver
			m.Source = v.Mountpoint
		}
		c.mounts = append(c.mounts, m)
	}
	for _, b := range c.host.Binds {
		parts := strings.SplitN(b, ":", 3)
		if len(parts) == 1 {
			add(mountPoint{Type: "volume", Destination: parts[0], RW: true}, "")
			continue
		}
		mode := strings.Join(parts[2:], "")
		m := mountPoint{Type: "volume", Destination: parts[1], Mode: mode, RW: !strings.Contains(mode, "ro")}
		if strings.HasPrefix(parts[0], "/") {
			m.Type, m.Source, m.Propagation = "bind", parts[0], "rprivate"
		} else if mode == "" {
			m.Mode = "z"
		}
		add(m, parts[0])
	}
	for _, w := range c.host.Mounts {
		m := mountPoint{Type: w.Type, Destination: w.Target, RW: !w.ReadOnly, Mode: "z"}
		if w.Type != "volume" {
			m.Source, m.Mode = w.Source, ""
		}
		add(m, w.Source)
	}
	for _, path := range sortedKeys(c.config.Volumes) {
		add(mountPoint{Type: "volume", Destination: path, RW: true}, "")
	}
	d.shareMounts(c, add)
}

// shareMounts adds what --volumes-from names.
func (d *Daemon) shareMounts(c *container, add func(mountPoint, string)) {
	for _, from := range c.host.VolumesFrom {
		ref, mode, _ := strings.Cut(from, ":")
		other, err := d.findContainer(ref)
		if err != nil {
			continue // checked by checkOthers
		}
		for _, m := range other.mounts {
			m.RW = m.RW && mode != "ro"
			add(m, m.Name)
		}
	}
}

// emit sends the mount or unmount event of a volume.
func (m mountPoint) emit(d *Daemon, c *container, action string) {
	if m.Type != "volume" {
		return
	}
	pairs := []string{"container", c.id, "driver", m.Driver}
	if action == "mount" {
		pairs = append(pairs, "destination", m.Destination, "propagation", m.Propagation, "read/write", fmt.Sprint(m.RW))
	}
	d.emit("volume", action, m.Name, attributes(nil, pairs...))
}

// makeVolume returns the volume of that name, made if need be; an empty name is anonymous. Called with d.mu.
func (d *Daemon) makeVolume(name, driver string, options, labels map[string]string) *volume {
	anonymous := name == ""
	if anonymous {
		name = randomID()
	}
	v := d.volumes[name]
	if v == nil {
		setDefault(&driver, "local")
		v = &volume{
			CreatedAt: d.now().Format(time.RFC3339), Driver: driver, Labels: labels, Name: name, Options: options, Scope: "local",
			Mountpoint: "/var/lib/docker/volumes/" + name + "/_data", anonymous: anonymous,
		}
		d.volumes[name] = v
	}
	// The engine tells of a create even if the volume was there.
	d.emit("volume", "create", v.Name, map[string]string{"driver": v.Driver})
	return v
}

func (d *Daemon) dropVolume(v *volume) {
	delete(d.volumes, v.Name)
	d.emit("volume", "destroy", v.Name, map[string]string{"driver": v.Driver})
}

// removeAnonymous takes a removed container's nameless volumes away, unless another container shares them.
func (d *Daemon) removeAnonymous(c *container) {
	for _, m := range c.mounts {
		if v := d.volumes[m.Name]; m.Type == "volume" && v != nil && v.anonymous && len(d.volumeUsers(v)) == 0 {
			d.dropVolume(v)
		}
	}
}

// volumeUsers are the IDs of the containers, running or not, that mount v.
func (d *Daemon) volumeUsers(v *volume) []string {
	var ids []string
	for _, c := range d.order {
		if slices.ContainsFunc(c.mounts, func(m mountPoint) bool { return m.Type == "volume" && m.Name == v.Name }) {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// listVolumes answers GET /volumes.
func (d *Daemon) listVolumes(w http.ResponseWriter, r *request) error {
	f, err := r.filters("dangling", "driver", "label", "label!", "name")
	if err != nil {
		return err
	}
	dangling, withDangling, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	rows := []*volume{}
	for _, name := range sortedKeys(d.volumes) {
		v := d.volumes[name]
		if f.any("driver", func(s string) bool { return s == v.Driver }) && f.any("name", func(s string) bool { return strings.Contains(v.Name, s) }) &&
			f.labels(v.Labels) && (!withDangling || dangling == (len(d.volumeUsers(v)) == 0)) {
			rows = append(rows, v)
		}
	}
	writeJSON(w, http.StatusOK, struct {
		Volumes  []*volume
		Warnings []string
	}{rows, nil})
	return nil
}

func (d *Daemon) findVolume(name string) (*volume, error) {
	if v := d.volumes[name]; v != nil {
		return v, nil
	}
	return nil, fail(http.StatusNotFound, "get %s: no such volume", name)
}

// inspectVolume answers GET /volumes/{name}.
func (d *Daemon) inspectVolume(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.findVolume(r.name)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

// createVolume answers POST /volumes/create; one that is there already is returned as it is.
func (d *Daemon) createVolume(w http.ResponseWriter, r *request) error {
	var req struct {
		Name, Driver       string
		DriverOpts, Labels map[string]string
	}
	if err := r.decode(&req, http.StatusBadRequest, "got EOF while reading request body"); err != nil {
		return err
	}
	switch {
	case len(req.Name) == 1:
		return fail(http.StatusBadRequest, "create %s: volume name is too short, names should be at least two alphanumeric characters", req.Name)
	case req.Name != "" && !validName.MatchString(req.Name):
		return fail(http.StatusBadRequest, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" "+
			"are allowed. If you intended to pass a host directory, use absolute path", req.Name, req.Name)
	case req.Driver != "" && req.Driver != "local":
		return fail(http.StatusNotFound, "create %s: error looking up volume plugin %s: plugin %q not found", req.Name, req.Driver, req.Driver)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	writeJSON(w, http.StatusCreated, d.makeVolume(req.Name, req.Driver, req.DriverOpts, req.Labels))
	return nil
}

// removeVolume answers DELETE /volumes/{name}.
func (d *Daemon) removeVolume(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.findVolume(r.name)
	if err != nil {
		if !r.flag("force") {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if users := d.volumeUsers(v); len(users) > 0 {
		return fail(http.StatusConflict, "remove %s: volume is in use - [%s]", v.Name, strings.Join(users, ", "))
	}
	d.dropVolume(v)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// pruneVolumes answers POST /volumes/prune: before API 1.42 all that nobody uses, since then the anonymous ones unless all.
func (d *Daemon) pruneVolumes(w http.ResponseWriter, r *request) error {
	f, err := r.filters("all", "label", "label!")
	if err != nil {
		return err
	}
	all, _, err := f.boolean("all")
	if err != nil {
		return err
	}
	all = all || !r.atLeast("1.42")
	d.mu.Lock()
	defer d.mu.Unlock()
	deleted := []string{}
	for _, name := range sortedKeys(d.volumes) {
		v := d.volumes[name]
		if (all || v.anonymous) && f.labels(v.Labels) && len(d.volumeUsers(v)) == 0 {
			d.dropVolume(v)
			deleted = append(deleted, name)
		}
	}
	d.emit("volume", "prune", "", map[string]string{"reclaimed": "0"})
	writeJSON(w, http.StatusOK, struct {
		VolumesDeleted []string
		SpaceReclaimed int64
	}{deleted, 0})
	return nil
}
