package dockertest

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listContainers answers GET /containers/json, newest first.
func (d *Daemon) listContainers(w http.ResponseWriter, r *request) error {
	limit, err := r.number("limit", 0, http.StatusInternalServerError)
	if err != nil {
		return err
	}
	f, err := r.filters("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
		"publish", "since", "status", "volume")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	match, err := d.containerFilter(r, f)
	if err != nil {
		return err
	}
	all := r.flag("all") || limit > 0 || f.has("status")
	rows := []summary{}
	for _, c := range slices.Backward(d.order) {
		if (all || c.running() || c.status == "restarting") && match(c) {
			rows = append(rows, c.summary(r.flag("size")))
		}
		if limit > 0 && len(rows) == limit {
			break
		}
	}
	writeJSON(w, http.StatusOK, rows)
	return nil
}

// containerFilter checks the filters' values and turns them into one predicate. Called with d.mu.
func (d *Daemon) containerFilter(r *request, f filters) (func(*container) bool, error) {
	var exits []int
	for _, v := range f["exited"] {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, fail(d.badFilterStatus(), "strconv.Atoi: parsing %q: invalid syntax", v)
		}
		exits = append(exits, n)
	}
	for _, v := range f["status"] {
		if !slices.Contains([]string{"paused", "restarting", "removing", "running", "dead", "created", "exited"}, v) {
			return nil, r.invalidFilter("status=" + v)
		}
	}
	for _, v := range f["health"] {
		if !slices.Contains([]string{"starting", "healthy", "unhealthy", "none"}, v) {
			return nil, fail(http.StatusBadRequest, "Unrecognised filter value for health: %s", v)
		}
	}
	before, err := d.birthOf(f["before"])
	if err != nil {
		return nil, err
	}
	since, err := d.birthOf(f["since"])
	if err != nil {
		return nil, err
	}
	return func(c *container) bool {
		return f.any("id", func(v string) bool { return strings.HasPrefix(c.id, v) }) &&
			f.any("name", c.matchName) && f.labels(c.config.Labels) &&
			f.any("status", func(v string) bool { return v == c.status }) &&
			(exits == nil || c.status == "exited" && slices.Contains(exits, c.exitCode)) &&
			f.any("health", func(v string) bool { return v == c.health || v == "none" && c.health == "" }) &&
			(before.IsZero() || c.created.Before(before)) && c.created.After(since) &&
			f.any("ancestor", c.descends) && f.any("network", c.onNetwork) && f.any("volume", c.usesVolume) &&
			f.any("publish", func(v string) bool { return c.matchPort(v, true) }) &&
			f.any("expose", func(v string) bool { return c.matchPort(v, false) }) &&
			f.any("is-task", func(v string) bool { return !truthy(v) })
	}, nil
}

// badFilterStatus is how the engine answers a filter value that it cannot use.
func (d *Daemon) badFilterStatus() int {
	if d.speaks("1.42") {
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// birthOf is when the container that before or since names was created; zero if none is named.
func (d *Daemon) birthOf(refs []string) (time.Time, error) {
	if len(refs) == 0 {
		return time.Time{}, nil
	}
	c, err := d.findContainer(refs[0])
	switch {
	case err == nil:
		return c.created, nil
	case d.speaks("1.42"):
		return time.Time{}, err
	}
	return time.Time{}, fail(http.StatusInternalServerError, "no such container %s", refs[0])
}

// matchName takes the filter as a regular expression on the name, with or without its slash. A broken one matches nothing.
func (c *container) matchName(v string) bool {
	if v == c.name || v == "/"+c.name {
		return true
	}
	re, err := regexp.Compile(v)
	return err == nil && (re.MatchString(c.name) || re.MatchString("/"+c.name))
}

// descends says whether the image or one of its ancestors is v.
func (c *container) descends(v string) bool {
	img, err := c.d.findImage(v)
	if err != nil {
		return false
	}
	for id := c.imageID; id != ""; {
		if id == img.id {
			return true
		}
		parent := c.d.images[id]
		if parent == nil {
			return false
		}
		id = parent.parent
	}
	return false
}

func (c *container) onNetwork(v string) bool {
	return slices.ContainsFunc(c.endpoints, func(e *endpoint) bool {
		return e.name == v || e.network != nil && strings.HasPrefix(e.network.ID, v)
	})
}

func (c *container) usesVolume(v string) bool {
	return slices.ContainsFunc(c.mounts, func(m mountPoint) bool { return m.Name == v || m.Destination == v || m.Source == v })
}

// matchPort compares with PORT, PORT/PROTO or FROM-TO of either the published or the exposed ports.
func (c *container) matchPort(v string, published bool) bool {
	span, proto, _ := strings.Cut(v, "/")
	setDefault(&proto, "tcp")
	from, to, isRange := strings.Cut(span, "-")
	low, err := strconv.Atoi(from)
	if err != nil {
		return false
	}
	high := low
	if isRange {
		if high, err = strconv.Atoi(to); err != nil {
			return false
		}
	}
	return slices.ContainsFunc(c.portList(), func(p portJSON) bool {
		n := p.PrivatePort
		if published {
			n = p.PublicPort
		}
		return p.Type == proto && n >= low && n <= high
	})
}
