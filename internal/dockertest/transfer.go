package dockertest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// progress is one line of a pull, load or build.
type progress struct {
	Stream         string          `json:"stream,omitempty"`
	Status         string          `json:"status,omitempty"`
	ProgressDetail *progressDetail `json:"progressDetail,omitempty"`
	ID             string          `json:"id,omitempty"`
	Aux            any             `json:"aux,omitempty"`
	ErrorDetail    *errorDetail    `json:"errorDetail,omitempty"`
	Error          string          `json:"error,omitempty"`
}

type progressDetail struct {
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
}

type errorDetail struct {
	Message string `json:"message"`
}

// progressWriter sends the lines, each at once. The head goes with the first.
type progressWriter struct{ w http.ResponseWriter }

func (p progressWriter) send(l progress) {
	p.w.Header().Set("Content-Type", "application/json")
	// A client that has gone misses the rest.
	_, _ = p.w.Write(append(mustMarshal(l), '\r', '\n'))
	flush(p.w)
}

// fail tells an error in the stream, where it can only be told once the head is out.
func (p progressWriter) fail(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	p.send(progress{ErrorDetail: &errorDetail{text}, Error: text})
	return errAnswered
}

// pullImage answers POST /images/create: a pull, or an import with fromSrc=-.
func (d *Daemon) pullImage(w http.ResponseWriter, r *request) error {
	if r.param("fromSrc") != "" {
		return d.importImage(w, r)
	}
	ref, tag := r.param("fromImage"), r.param("tag")
	if tag != "" {
		sep := ":"
		if strings.Contains(tag, ":") {
			sep = "@"
		}
		ref += sep + tag
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fail(http.StatusBadRequest, "invalid reference format")
	}
	named = reference.TagNameOnly(named)
	name := reference.FamiliarString(named)
	img := standardImage(name)
	d.mu.Lock()
	known := d.pullable[name]
	have := d.tags[name] == img.id
	d.mu.Unlock()
	if !known {
		return d.pullRefused(named)
	}
	p := progressWriter{w}
	p.send(progress{Status: "Pulling from " + repository(named), ID: name[strings.LastIndexByte(name, ':')+1:]})
	if !have {
		short := shortID(img.layers[0].diffID)
		for _, status := range []string{"Pulling fs layer", "Downloading", "Download complete", "Extracting", "Pull complete"} {
			detail := &progressDetail{}
			if strings.HasSuffix(status, "ing") {
				detail = &progressDetail{img.size, img.size}
			}
			p.send(progress{Status: status, ProgressDetail: detail, ID: short})
		}
	}
	digest := digest([]byte("manifest " + img.id))
	p.send(progress{Status: "Digest: " + digest})
	d.mu.Lock()
	d.keep(img, name)
	img = d.images[img.id]
	if rd := reference.FamiliarName(named) + "@" + digest; !slices.Contains(img.digests, rd) {
		img.digests = append(img.digests, rd)
	}
	d.emit("image", "pull", name, attributes(img.config.Labels, "name", reference.FamiliarName(named)))
	d.mu.Unlock()
	outcome := "Downloaded newer image for "
	if have {
		outcome = "Image is up to date for "
	}
	p.send(progress{Status: "Status: " + outcome + name})
	return nil
}

// repository is the path within its registry, as the first line of a pull shows it.
func repository(named reference.Named) string { return reference.Path(named) }

// pullRefused is how registries say no: the hub hides what you may not see, others have no such manifest.
func (d *Daemon) pullRefused(named reference.Named) error {
	if reference.Domain(named) == "docker.io" {
		return fail(http.StatusNotFound, "pull access denied for %s, repository does not exist or may require 'docker login': "+
			"denied: requested access to the resource is denied", reference.FamiliarName(named))
	}
	return fail(http.StatusNotFound, "manifest for %s not found: manifest unknown: manifest unknown", named.String())
}

// keep adds an image, if it is new, and points the tag at it. Called with d.mu.
func (d *Daemon) keep(img *image, tag string) {
	if d.opt.ContainerdStore {
		img.id = digest(append([]byte("manifest of "), img.raw...))
	}
	if d.images[img.id] == nil {
		d.images[img.id] = img
	}
	if tag != "" {
		d.tags[tag] = img.id
	}
}

// importImage makes an image of a file system tar.
func (d *Daemon) importImage(w http.ResponseWriter, r *request) error {
	if r.param("fromSrc") != "-" {
		return fail(http.StatusBadRequest, "import from a URL is not simulated")
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return fail(http.StatusInternalServerError, "%s", err)
	}
	ref := ""
	if repo := r.param("repo"); repo != "" {
		if ref, err = targetRef(repo, r.param("tag")); err != nil {
			return fail(http.StatusBadRequest, "%s", err)
		}
	}
	d.mu.Lock()
	now := d.now()
	img := newImage(&config{}, now, []layer{{digest(data), data}}, []historyLine{{Created: timestamp(now), Comment: "Imported from -"}})
	d.keep(img, ref)
	d.emitImage("import", img, img.id)
	d.mu.Unlock()
	progressWriter{w}.send(progress{Status: img.id})
	return nil
}

// manifest is an entry of manifest.json in an image archive.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// saveImages answers GET /images/{name}/get and /images/get?names=: a tar that load understands, here and on an engine.
func (d *Daemon) saveImages(w http.ResponseWriter, r *request) error {
	names := r.URL.Query()["names"]
	if r.name != "" {
		names = []string{r.name}
	}
	d.mu.Lock()
	var images []*image
	var manifests []manifest
	repositories := map[string]map[string]string{}
	for _, name := range names {
		img, err := d.findImage(name)
		if err != nil {
			d.mu.Unlock()
			return fail(statusOf(err), "No such image: %s", name)
		}
		m := manifest{Config: hexOf(img.id) + ".json"}
		if ref, err := normalize(name); err == nil && d.tags[ref] == img.id {
			m.RepoTags = []string{ref}
			repo, tag := stripTag(ref), ref[strings.LastIndexByte(ref, ':')+1:]
			if repositories[repo] == nil {
				repositories[repo] = map[string]string{}
			}
			repositories[repo][tag] = hexOf(img.layers[len(img.layers)-1].diffID)
		}
		for _, l := range img.layers {
			m.Layers = append(m.Layers, hexOf(l.diffID)+"/layer.tar")
		}
		images, manifests = append(images, img), append(manifests, m)
		d.emitImage("save", img, img.id)
	}
	d.mu.Unlock()
	return sendTar(w, imageArchive(images, manifests, repositories), "/")
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// imageArchive lays out a docker-archive.
func imageArchive(images []*image, manifests []manifest, repositories map[string]map[string]string) map[string]*file {
	tree := map[string]*file{}
	add := func(name string, data []byte) {
		tree["/"+name] = &file{mode: 0o644, data: data, modTime: time.Unix(0, 0)}
	}
	for _, img := range images {
		add(hexOf(img.id)+".json", img.raw)
		for _, l := range img.layers {
			add(hexOf(l.diffID)+"/layer.tar", l.data)
		}
	}
	add("manifest.json", mustMarshal(manifests))
	add("repositories", mustMarshal(repositories))
	return tree
}

// loadImages answers POST /images/load. What is wrong with the archive is told in the stream.
func (d *Daemon) loadImages(w http.ResponseWriter, r *request) error {
	p := progressWriter{w}
	files, err := readTar(r.Body, "/")
	if err != nil {
		return p.fail("Error processing tar file(exit status 1): %s", err)
	}
	var manifests []manifest
	if f := files["/manifest.json"]; f == nil || json.Unmarshal(f.data, &manifests) != nil {
		return p.fail("open /var/lib/docker/tmp/docker-import/repositories: no such file or directory")
	}
	for _, m := range manifests {
		img, err := unpackImage(m, files)
		if err != nil {
			return p.fail("%s", err)
		}
		d.mu.Lock()
		d.keep(img, "")
		for _, t := range m.RepoTags {
			d.tags[t] = img.id
		}
		d.emitImage("load", img, img.id)
		d.mu.Unlock()
		for _, t := range m.RepoTags {
			p.send(progress{Stream: "Loaded image: " + t + "\n"})
		}
		if len(m.RepoTags) == 0 {
			p.send(progress{Stream: "Loaded image ID: " + img.id + "\n"})
		}
	}
	return nil
}

// unpackImage reads one image of an archive.
func unpackImage(m manifest, files map[string]*file) (*image, error) {
	raw := files["/"+m.Config]
	if raw == nil {
		return nil, fmt.Errorf("invalid manifest, no config %q in the archive", m.Config)
	}
	var f imageFile
	if err := json.Unmarshal(raw.data, &f); err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	if len(f.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("invalid manifest, layers length mismatch: expected %d, got %d", len(f.RootFS.DiffIDs), len(m.Layers))
	}
	img := &image{id: digest(raw.data), raw: raw.data, config: f.Config, history: f.History}
	if img.config == nil {
		img.config = &config{}
	}
	if created, err := time.Parse(time.RFC3339Nano, f.Created); err == nil {
		img.created = created
	}
	for i, name := range m.Layers {
		l := files["/"+name]
		if l == nil || digest(l.data) != f.RootFS.DiffIDs[i] {
			return nil, fmt.Errorf("invalid diffID for layer %d: expected %q", i, f.RootFS.DiffIDs[i])
		}
		img.layers = append(img.layers, layer{f.RootFS.DiffIDs[i], l.data})
		img.size += int64(len(l.data))
	}
	return img, nil
}

// tarOf is a tar of one file.
func tarOf(name string, data []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// A bytes.Buffer takes everything, so none of these fails.
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg})
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}
