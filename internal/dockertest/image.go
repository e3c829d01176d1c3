package dockertest

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// image is one image. What it is never changes; tags and digests come and go. Guarded by Daemon.mu.
type image struct {
	id      string // sha256: and the sum of raw
	raw     []byte // the configuration as archives hold it
	parent  string
	created time.Time
	size    int64
	config  *config
	layers  []layer
	history []historyLine
	digests []string
}

// layer is one layer of an image: its content as a tar.
type layer struct {
	diffID string
	data   []byte
}

type historyLine struct {
	Created   string `json:"created,omitempty"`
	CreatedBy string `json:"created_by,omitempty"`
	Comment   string `json:"comment,omitempty"`
	Empty     bool   `json:"empty_layer,omitempty"`
}

// imageFile is the JSON that names an image: the sum over it is the ID.
type imageFile struct {
	Architecture string        `json:"architecture"`
	Config       *config       `json:"config"`
	Created      string        `json:"created"`
	History      []historyLine `json:"history"`
	OS           string        `json:"os"`
	RootFS       rootFS        `json:"rootfs"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// newImage builds an image from its parts; equal parts give an equal ID on every daemon.
func newImage(cfg *config, created time.Time, layers []layer, history []historyLine) *image {
	f := imageFile{
		Architecture: "amd64", Config: cfg, Created: timestamp(created), History: history, OS: "linux", RootFS: rootFS{Type: "layers"},
	}
	size := int64(0)
	for _, l := range layers {
		f.RootFS.DiffIDs = append(f.RootFS.DiffIDs, l.diffID)
		size += int64(len(l.data))
	}
	raw := mustMarshal(f)
	return &image{id: digest(raw), raw: raw, created: created, size: size, config: cfg, layers: layers, history: history}
}

// standardImage is what a pull or AddImage of a reference gives: a shell, labelled with the reference.
func standardImage(ref string) *image {
	data := tarOf("etc/image", []byte(ref+"\n"))
	created := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	cfg := &config{Env: []string{"PATH=/bin"}, Cmd: words{"sh"}, Labels: map[string]string{"dockertest.image": ref}}
	history := []historyLine{{Created: timestamp(created), CreatedBy: "dockertest " + ref}}
	return newImage(cfg, created, []layer{{digest(data), data}}, history)
}

// normalize is a reference as the engine shows it: without docker.io/library, with a tag.
func normalize(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", err
	}
	return reference.FamiliarString(reference.TagNameOnly(named)), nil
}

// stripTag is a reference without tag or digest.
func stripTag(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarName(named)
}

var hexID = regexp.MustCompile(`^(sha256:)?[0-9a-f]+$`)

// findImage resolves a reference: ID, tag or digest, then ID prefix. Called with d.mu.
func (d *Daemon) findImage(ref string) (*image, error) {
	if img := d.images[ref]; img != nil {
		return img, nil
	}
	short := strings.TrimPrefix(ref, "sha256:")
	if img := d.images["sha256:"+short]; img != nil {
		return img, nil
	}
	name, err := normalize(ref)
	if err == nil {
		if id := d.tags[name]; id != "" {
			return d.images[id], nil
		}
		for _, img := range d.images {
			if slices.Contains(img.digests, name) {
				return img, nil
			}
		}
	}
	if hexID.MatchString(ref) {
		var found []*image
		for id, img := range d.images {
			if strings.HasPrefix(id, "sha256:"+short) {
				found = append(found, img)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		return nil, fail(http.StatusNotFound, "No such image: %s", showRef(ref, name))
	}
	if err != nil {
		return nil, fail(http.StatusBadRequest, "invalid reference format")
	}
	return nil, fail(http.StatusNotFound, "No such image: %s", name)
}

// showRef is how an error names what could be an ID or a name.
func showRef(ref, name string) string {
	if name != "" && !strings.HasPrefix(ref, "sha256:") {
		return name
	}
	return ref
}

// tagsOf is all tags of an image, sorted.
func (d *Daemon) tagsOf(img *image) []string {
	var tags []string
	for _, ref := range sortedKeys(d.tags) {
		if d.tags[ref] == img.id {
			tags = append(tags, ref)
		}
	}
	return tags
}

// emitImage sends an image event. Called with d.mu.
func (d *Daemon) emitImage(action string, img *image, name string) {
	d.emit("image", action, img.id, attributes(img.config.Labels, "name", name))
}

// imageSummary is one row of the list, in the engine's order.
type imageSummary struct {
	Containers  int64
	Created     int64
	ID          string `json:"Id"`
	Labels      map[string]string
	ParentID    string `json:"ParentId"`
	RepoDigests []string
	RepoTags    []string
	SharedSize  int64
	Size        int64
	VirtualSize int64 `json:",omitempty"`
}

func (d *Daemon) imageSummary(r *request, img *image) imageSummary {
	s := imageSummary{
		Containers: -1, Created: img.created.Unix(), ID: img.id, Labels: img.config.Labels, ParentID: img.parent,
		RepoDigests: slices.Clone(img.digests), RepoTags: d.tagsOf(img), SharedSize: -1, Size: img.size,
	}
	if !r.atLeast("1.44") {
		s.VirtualSize = img.size
	}
	if s.RepoTags == nil && !r.atLeast("1.43") {
		s.RepoTags = []string{"<none>:<none>"}
		if s.RepoDigests == nil {
			s.RepoDigests = []string{"<none>@<none>"}
		}
	}
	return s
}

// listImages answers GET /images/json, newest first.
func (d *Daemon) listImages(w http.ResponseWriter, r *request) error {
	f, err := r.filters("before", "dangling", "label", "label!", "reference", "since", "until")
	if err != nil {
		return err
	}
	dangling, withDangling, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var before, since *image
	if f.has("before") {
		if before, err = d.findImage(f["before"][0]); err != nil {
			return err
		}
	}
	if f.has("since") {
		if since, err = d.findImage(f["since"][0]); err != nil {
			return err
		}
	}
	rows := []imageSummary{}
	for _, img := range d.sortedImages() {
		row := d.imageSummary(r, img)
		untagged := len(d.tagsOf(img)) == 0
		if f.labels(img.config.Labels) && (!withDangling || dangling == untagged) && (before == nil || img.created.Before(before.created)) &&
			(since == nil || img.created.After(since.created)) && f.references(&row) && (r.flag("all") || !untagged || !d.isParent(img)) {
			rows = append(rows, row)
		}
	}
	writeJSON(w, http.StatusOK, rows)
	return nil
}

// references keeps the tags of a row that match the filter, and says whether there are any.
func (f filters) references(row *imageSummary) bool {
	if !f.has("reference") {
		return true
	}
	row.RepoTags = slices.DeleteFunc(row.RepoTags, func(tag string) bool {
		return !slices.ContainsFunc(f["reference"], func(pattern string) bool { return matchReference(pattern, tag) })
	})
	return len(row.RepoTags) > 0
}

func matchReference(pattern, tag string) bool {
	for _, name := range []string{tag, stripTag(tag)} {
		// A malformed pattern matches nothing.
		if ok, err := path.Match(pattern, name); err == nil && ok {
			return true
		}
	}
	return false
}

func (d *Daemon) isParent(img *image) bool {
	for _, o := range d.images {
		if o.parent == img.id {
			return true
		}
	}
	return false
}

// sortedImages is newest first, then by ID.
func (d *Daemon) sortedImages() []*image {
	var all []*image
	for _, id := range sortedKeys(d.images) {
		all = append(all, d.images[id])
	}
	slices.SortStableFunc(all, func(a, b *image) int { return b.created.Compare(a.created) })
	return all
}

// inspectImage answers GET /images/{name}/json.
func (d *Daemon) inspectImage(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	img, err := d.findImage(r.name)
	if err != nil {
		return fail(statusOf(err), "no such image: %s: %s", r.name, err)
	}
	v := map[string]any{
		"Id": img.id, "RepoTags": emptyIfNil(d.tagsOf(img)), "RepoDigests": emptyIfNil(img.digests), "Parent": img.parent,
		"Comment": "", "Created": timestamp(img.created), "DockerVersion": "", "Author": "", "Config": img.config,
		"Architecture": "amd64", "Os": "linux", "Size": img.size, "GraphDriver": map[string]any{"Name": "overlay2", "Data": map[string]string{}},
		"RootFS": map[string]any{"Type": "layers", "Layers": img.diffIDs()}, "Metadata": map[string]any{"LastTagTime": zeroTime},
	}
	if !r.atLeast("1.44") {
		v["VirtualSize"] = img.size
	}
	if !r.atLeast("1.45") {
		v["Container"], v["ContainerConfig"] = "", &config{}
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

func (i *image) diffIDs() []string {
	ids := []string{}
	for _, l := range i.layers {
		ids = append(ids, l.diffID)
	}
	return ids
}

func emptyIfNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// historyImage answers GET /images/{name}/history, the newest line first; only the top one has an ID.
func (d *Daemon) historyImage(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	img, err := d.findImage(r.name)
	if err != nil {
		return err
	}
	type line struct {
		Comment   string
		Created   int64
		CreatedBy string
		ID        string `json:"Id"`
		Size      int64
		Tags      []string
	}
	var lines []line
	next := 0
	for _, h := range img.history {
		l := line{Comment: h.Comment, Created: img.created.Unix(), CreatedBy: h.CreatedBy, ID: "<missing>"}
		if !h.Empty && next < len(img.layers) {
			l.Size = int64(len(img.layers[next].data))
			next++
		}
		lines = append(lines, l)
	}
	slices.Reverse(lines)
	if len(lines) > 0 {
		lines[0].ID, lines[0].Tags = img.id, d.tagsOf(img)
	}
	writeJSON(w, http.StatusOK, lines)
	return nil
}

// tagImage answers POST /images/{name}/tag.
func (d *Daemon) tagImage(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	img, err := d.findImage(r.name)
	if err != nil {
		return err
	}
	ref, err := targetRef(r.param("repo"), r.param("tag"))
	if err != nil {
		return fail(d.badFilterStatus(), "%s", err)
	}
	d.tags[ref] = img.id
	name := r.param("repo")
	if r.param("tag") != "" {
		name = ref
	}
	d.emitImage("tag", img, name)
	w.WriteHeader(http.StatusCreated)
	return nil
}

// targetRef joins the repo and tag parameters.
func targetRef(repo, tag string) (string, error) {
	if tag != "" {
		repo += ":" + tag
	}
	return normalize(repo)
}

func shortID(id string) string { return strings.TrimPrefix(id, "sha256:")[:12] }
