package dockertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// postBuild answers POST /build, the classic builder: it reads the context, plays FROM, LABEL, ENV, CMD, ENTRYPOINT, EXPOSE,
// USER and WORKDIR, and lets every other instruction do nothing but be a layer in the history.
func (d *Daemon) postBuild(w http.ResponseWriter, r *request) error {
	files, err := readTar(r.Body, "/")
	if err != nil {
		return fail(http.StatusInternalServerError, "%s", err)
	}
	name := r.param("dockerfile")
	setDefault(&name, "Dockerfile")
	dockerfile := files["/"+strings.TrimPrefix(name, "/")]
	if dockerfile == nil {
		return fail(http.StatusInternalServerError, "Cannot locate specified Dockerfile: %s", name)
	}
	steps := instructions(string(dockerfile.data))
	if len(steps) == 0 || !strings.EqualFold(steps[0][0], "FROM") {
		return fail(http.StatusBadRequest, "dockerfile parse error: no build stage in current context")
	}
	b := &builder{d: d, progressWriter: progressWriter{w}, quiet: r.flag("q")}
	return b.build(steps, r.URL.Query()["t"])
}

// instructions are the lines of a Dockerfile, each as its word and the rest.
func instructions(text string) [][2]string {
	var steps [][2]string
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			word, rest, _ := strings.Cut(line, " ")
			steps = append(steps, [2]string{word, strings.TrimSpace(rest)})
		}
	}
	return steps
}

type builder struct {
	progressWriter
	d     *Daemon
	quiet bool
	base  *image
	cfg   config
	img   *image
}

func (b *builder) say(format string, args ...any) {
	if !b.quiet {
		b.send(progress{Stream: fmt.Sprintf(format, args...)})
	}
}

func (b *builder) build(steps [][2]string, tags []string) error {
	for i, s := range steps {
		b.say("Step %d/%d : %s", i+1, len(steps), strings.TrimSpace(s[0]+" "+s[1]))
		b.say("\n")
		if strings.EqualFold(s[0], "FROM") {
			if err := b.from(s[1]); err != nil {
				return b.fail("%s", err)
			}
		} else {
			b.step(s)
		}
		b.say(" ---> %s\n", shortID(b.img.id))
	}
	b.d.mu.Lock()
	b.d.keep(b.img, "")
	b.d.mu.Unlock()
	if b.quiet {
		b.send(progress{Stream: b.img.id + "\n"})
	} else {
		b.send(progress{Aux: map[string]string{"ID": b.img.id}})
		b.say("Successfully built %s\n", shortID(b.img.id))
	}
	for _, t := range tags {
		ref, err := normalize(t)
		if err != nil {
			return b.fail("invalid reference format")
		}
		b.d.mu.Lock()
		b.d.keep(b.img, ref)
		b.d.emitImage("tag", b.img, ref)
		b.d.mu.Unlock()
		b.say("Successfully tagged %s\n", ref)
	}
	return nil
}

func (b *builder) from(ref string) error {
	ref, _, _ = strings.Cut(ref, " ")
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	img, err := b.d.findImage(ref)
	if err != nil {
		named, nerr := normalize(ref)
		if nerr != nil || !b.d.pullable[named] {
			return fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': "+
				"denied: requested access to the resource is denied", stripTag(ref))
		}
		img = standardImage(named)
		b.d.keep(img, named)
	}
	b.base, b.img, b.cfg = img, img, *img.config
	return nil
}

// step applies one instruction and makes the image that it leads to.
func (b *builder) step(s [2]string) {
	rest := s[1]
	switch strings.ToUpper(s[0]) {
	case "LABEL":
		b.cfg.Labels = attributes(b.cfg.Labels, pairs(rest)...)
	case "ENV":
		kv := pairs(rest)
		for i := 0; i+1 < len(kv); i += 2 {
			b.cfg.Env = append(append([]string{}, b.cfg.Env...), kv[i]+"="+kv[i+1])
		}
	case "CMD":
		b.cfg.Cmd = commandOf(rest)
	case "ENTRYPOINT":
		b.cfg.Entrypoint = commandOf(rest)
	case "EXPOSE":
		port := rest
		if !strings.Contains(port, "/") {
			port += "/tcp"
		}
		b.cfg.ExposedPorts = map[string]struct{}{port: {}}
	case "USER":
		b.cfg.User = rest
	case "WORKDIR":
		b.cfg.WorkingDir = rest
	}
	cfg := b.cfg
	line := historyLine{Created: timestamp(b.base.created), CreatedBy: "/bin/sh -c #(nop)  " + s[0] + " " + rest, Empty: true}
	img := newImage(&cfg, b.base.created, b.base.layers, append(b.img.history[:len(b.img.history):len(b.img.history)], line))
	img.parent = b.base.id
	b.img = img
}

// pairs reads k=v k2="v 2", or the old form "k v".
func pairs(rest string) []string {
	if k, v, ok := strings.Cut(rest, " "); ok && !strings.Contains(k, "=") {
		return []string{k, v}
	}
	var out []string
	for _, w := range shellWords(rest) {
		k, v, _ := strings.Cut(w, "=")
		out = append(out, k, v)
	}
	return out
}

// commandOf reads the JSON form or wraps the shell form.
func commandOf(rest string) words {
	var list []string
	if json.Unmarshal([]byte(rest), &list) == nil {
		return list
	}
	return words{"/bin/sh", "-c", rest}
}

// postBuildPrune answers POST /build/prune; there never is a cache.
func (d *Daemon) postBuildPrune(w http.ResponseWriter, _ *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.emit("builder", "prune", "", map[string]string{"reclaimed": "0"})
	writeJSON(w, http.StatusOK, struct {
		CachesDeleted  []string
		SpaceReclaimed int64
	}{})
	return nil
}

// postCommit answers POST /commit.
func (d *Daemon) postCommit(w http.ResponseWriter, r *request) error {
	ref := ""
	if repo := r.param("repo"); repo != "" {
		var err error
		if ref, err = targetRef(repo, r.param("tag")); err != nil {
			return fail(http.StatusBadRequest, "%s", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.findContainer(r.param("container"))
	if err != nil {
		return err
	}
	if c.status == "running" && (r.param("pause") == "" || r.flag("pause")) {
		c.pause()
		defer c.unpause()
	}
	base := d.images[c.imageID]
	cfg := *c.config
	cfg.Hostname = ""
	line := historyLine{Created: timestamp(d.now()), CreatedBy: strings.Join(c.command(), " "), Comment: r.param("comment"), Empty: true}
	img := newImage(&cfg, d.now(), base.layers, append(base.history[:len(base.history):len(base.history)], line))
	img.parent = base.id
	d.keep(img, ref)
	if ref != "" {
		d.emitImage("tag", img, ref)
	}
	c.emit("commit", "comment", r.param("comment"), "imageID", img.id, "imageRef", ref)
	writeJSON(w, http.StatusCreated, struct {
		ID string `json:"Id"`
	}{img.id})
	return nil
}
