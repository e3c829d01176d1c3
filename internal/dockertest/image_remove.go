package dockertest

import (
	"fmt"
	"net/http"
	"slices"
)

type deletion struct {
	Untagged string `json:",omitempty"`
	Deleted  string `json:",omitempty"`
}

// removeImage answers DELETE /images/{name}.
func (d *Daemon) removeImage(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	img, err := d.findImage(r.name)
	if err != nil {
		return err
	}
	force := r.flag("force")
	tags := d.tagsOf(img)
	name, err := normalize(r.name)
	byName := err == nil && slices.Contains(tags, name)
	if byName {
		tags = []string{name}
	} else if len(tags) > 1 && !force {
		return fail(http.StatusConflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", shortID(img.id))
	}
	last := len(tags) == len(d.tagsOf(img))
	if err := d.removable(img, name, byName, last, force); err != nil {
		return err
	}
	var gone []deletion
	for _, t := range tags {
		delete(d.tags, t)
		d.emitImage("untag", img, img.id)
		gone = append(gone, deletion{Untagged: t})
		gone = append(gone, dropDigests(img, t)...)
	}
	if last && len(d.imageUsers(img)) == 0 {
		gone = append(gone, d.deleteImage(img)...)
	}
	writeJSON(w, http.StatusOK, gone)
	return nil
}

// dropDigests forgets the digests of the repository that a tag belonged to.
func dropDigests(img *image, tag string) []deletion {
	var gone []deletion
	img.digests = slices.DeleteFunc(img.digests, func(dg string) bool {
		if stripTag(dg) != stripTag(tag) {
			return false
		}
		gone = append(gone, deletion{Untagged: dg})
		return true
	})
	return gone
}

// removable refuses to take away an image that containers use.
func (d *Daemon) removable(img *image, name string, byName, last, force bool) error {
	if !last {
		return nil
	}
	for _, c := range d.imageUsers(img) {
		switch {
		case byName && !force:
			return fail(http.StatusConflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				name, c.id[:12], shortID(img.id))
		case byName:
		case c.running():
			return fail(http.StatusConflict, "conflict: unable to delete %s (cannot be forced) - image is being used by running container %s",
				shortID(img.id), c.id[:12])
		case !force:
			return fail(http.StatusConflict, "conflict: unable to delete %s (must be forced) - image is being used by stopped container %s",
				shortID(img.id), c.id[:12])
		}
	}
	return nil
}

func (d *Daemon) imageUsers(img *image) []*container {
	var users []*container
	for _, c := range d.order {
		if c.imageID == img.id {
			users = append(users, c)
		}
	}
	return users
}

func (d *Daemon) deleteImage(img *image) []deletion {
	delete(d.images, img.id)
	d.emit("image", "delete", img.id, map[string]string{"name": img.id})
	gone := []deletion{{Deleted: img.id}}
	for _, l := range img.layers {
		gone = append(gone, deletion{Deleted: l.diffID})
	}
	return gone
}

// pruneImages answers POST /images/prune: untagged ones, or all unused with dangling=false.
func (d *Daemon) pruneImages(w http.ResponseWriter, r *request) error {
	f, err := r.filters("dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	danglingOnly, given, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	danglingOnly = danglingOnly || !given
	d.mu.Lock()
	defer d.mu.Unlock()
	var gone []deletion
	size := int64(0)
	for _, img := range d.sortedImages() {
		tags := d.tagsOf(img)
		if len(tags) > 0 && danglingOnly || len(d.imageUsers(img)) > 0 || d.isParent(img) || !f.labels(img.config.Labels) {
			continue
		}
		for _, t := range tags {
			delete(d.tags, t)
			d.emitImage("untag", img, img.id)
			gone = append(gone, deletion{Untagged: t})
		}
		gone = append(gone, d.deleteImage(img)...)
		size += img.size
	}
	d.emit("image", "prune", "", map[string]string{"reclaimed": fmt.Sprint(size)})
	writeJSON(w, http.StatusOK, struct {
		ImagesDeleted  []deletion
		SpaceReclaimed int64
	}{gone, size})
	return nil
}
