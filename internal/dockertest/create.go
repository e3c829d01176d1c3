package dockertest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// createRequest is the body of a create.
type createRequest struct {
	config
	HostConfig       json.RawMessage
	NetworkingConfig struct {
		EndpointsConfig map[string]*endpointSettings
	}
}

// createContainer answers POST /containers/create.
func (d *Daemon) createContainer(w http.ResponseWriter, r *request) error {
	var req *createRequest
	if err := r.decode(&req, http.StatusInternalServerError, "EOF"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.create(r.param("name"), req, r.atLeast("1.44"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, struct {
		ID       string `json:"Id"`
		Warnings []string
	}{c.id, []string{}})
	return nil
}

// create makes a container. Called with d.mu.
func (d *Daemon) create(name string, req *createRequest, manyEndpoints bool) (*container, error) {
	if req == nil || req.Image == "" {
		return nil, fail(http.StatusBadRequest, "Config cannot be empty in order to create a container")
	}
	host, err := d.checkHostConfig(req, manyEndpoints)
	if err != nil {
		return nil, err
	}
	img, err := d.findImage(req.Image)
	if err != nil {
		return nil, err
	}
	id := randomID()
	if name, err = d.reserveName(name, id); err != nil {
		return nil, err
	}
	if err := d.checkOthers(host); err != nil {
		return nil, err
	}
	cfg := req.config
	cfg.inherit(img.config)
	setDefault(&cfg.Hostname, id[:12])
	c := &container{
		d: d, id: id, name: name, created: d.now(), imageRef: req.Image, imageID: img.id, config: &cfg,
		rawHost: slices.Clone(req.HostConfig), host: host, status: "created", out: &output{},
	}
	if cfg.Healthcheck != nil && string(cfg.Healthcheck) != "null" {
		c.health = "starting"
	}
	if tag, err := normalize(req.Image); err == nil && d.tags[tag] == img.id {
		c.imageTag = tag
	}
	c.planEndpoints(req.NetworkingConfig.EndpointsConfig)
	d.planMounts(c)
	d.containers[id] = c
	d.order = append(d.order, c)
	c.emit("create")
	return c, nil
}

// inherit fills in what the image has and the client did not say.
func (c *config) inherit(img *config) {
	for _, e := range img.Env {
		key, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(c.Env, func(have string) bool { return have == key || strings.HasPrefix(have, key+"=") }) {
			c.Env = append(c.Env, e)
		}
	}
	if c.Env == nil {
		c.Env = []string{}
	}
	c.Labels = attributes(img.Labels, flatten(c.Labels)...)
	if len(c.Entrypoint) == 0 {
		c.Entrypoint = img.Entrypoint
		if len(c.Cmd) == 0 {
			c.Cmd = img.Cmd
		}
	}
	for p := range img.ExposedPorts {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		c.ExposedPorts[p] = struct{}{}
	}
	setDefault(&c.WorkingDir, img.WorkingDir)
	setDefault(&c.User, img.User)
	setDefault(&c.StopSignal, img.StopSignal)
}

func flatten(m map[string]string) []string {
	pairs := make([]string, 0, 2*len(m))
	for k, v := range m {
		pairs = append(pairs, k, v)
	}
	return pairs
}

// checkHostConfig refuses what the engine refuses before it looks at anything else.
func (d *Daemon) checkHostConfig(req *createRequest, manyEndpoints bool) (*hostConfig, error) {
	host := &hostConfig{}
	if len(req.HostConfig) > 0 {
		if err := json.Unmarshal(req.HostConfig, host); err != nil {
			return nil, fail(http.StatusBadRequest, "%s", err)
		}
	}
	setDefault(&host.NetworkMode, "default")
	if n := len(req.NetworkingConfig.EndpointsConfig); n > 1 && !manyEndpoints {
		return nil, fail(http.StatusBadRequest, "Container cannot be connected to network endpoints: %s",
			strings.Join(sortedKeys(req.NetworkingConfig.EndpointsConfig), ", "))
	}
	if host.Memory > 0 && host.Memory < 6<<20 {
		return nil, fail(http.StatusBadRequest, "Minimum memory limit allowed is 6MB")
	}
	if host.NanoCpus < 0 || host.NanoCpus > int64(d.opt.NCPU)*1e9 {
		return nil, fail(http.StatusBadRequest, "Range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", d.opt.NCPU, d.opt.NCPU)
	}
	switch host.RestartPolicy.Name {
	case "", "no", "always", "unless-stopped", "on-failure":
	default:
		return nil, fail(http.StatusBadRequest, "invalid restart policy '%s'", host.RestartPolicy.Name)
	}
	return host, nil
}

// checkOthers refuses a container that leans on one that is not there. A network namespace is looked for at start only.
func (d *Daemon) checkOthers(h *hostConfig) error {
	if ref, ok := strings.CutPrefix(h.IpcMode, "container:"); ok {
		if _, err := d.findContainer(ref); err != nil {
			return fail(http.StatusBadRequest, "%s", err)
		}
	}
	for _, link := range h.Links {
		ref, _, _ := strings.Cut(link, ":")
		if _, err := d.findContainer(ref); err != nil {
			return fail(http.StatusBadRequest, "could not get container for %s: %s", ref, err)
		}
	}
	for _, from := range h.VolumesFrom {
		ref, _, _ := strings.Cut(from, ":")
		if _, err := d.findContainer(ref); err != nil {
			return fail(http.StatusBadRequest, "%s", err)
		}
	}
	return nil
}

// reserveName checks a name against the engine's rules and its other containers; an empty one is made up.
func (d *Daemon) reserveName(name, id string) (string, error) {
	name = strings.TrimPrefix(name, "/")
	if name == "" {
		return d.inventName(id), nil
	}
	if !validName.MatchString(name) {
		return "", fail(http.StatusBadRequest, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	for _, c := range d.order {
		if c.name == name {
			return "", fail(http.StatusConflict, "Conflict. The container name \"/%s\" is already in use by container \"%s\". "+
				"You have to remove (or rename) that container to be able to reuse that name.", name, c.id)
		}
	}
	return name, nil
}
