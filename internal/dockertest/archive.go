package dockertest

import (
	"archive/tar"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// file is a file or directory of a container.
type file struct {
	mode    fs.FileMode
	data    []byte
	modTime time.Time
	target  string // of a symbolic link
	uid     int
	gid     int
	changed bool // since the create
}

// fileTree is the container's files by absolute path, made when first asked for. Called with d.mu.
func (c *container) fileTree() map[string]*file {
	if c.files == nil {
		c.files = map[string]*file{}
		for _, dir := range []string{"/", "/bin", "/etc", "/tmp", "/root", "/var"} {
			c.files[dir] = &file{mode: fs.ModeDir | 0o755, modTime: c.created}
		}
		c.files["/bin/sh"] = &file{mode: 0o755, data: []byte("#!\n"), modTime: c.created}
		c.files["/etc/hostname"] = &file{mode: 0o644, data: []byte(c.config.Hostname + "\n"), modTime: c.created}
	}
	return c.files
}

// volumeAt tells which volume a path lies in, and where in it.
func (c *container) volumeAt(name string) (v *volume, rel string) {
	longest := ""
	for _, m := range c.mounts {
		if m.Type == "volume" && len(m.Destination) > len(longest) && (name == m.Destination || strings.HasPrefix(name, m.Destination+"/")) {
			v, longest = c.d.volumes[m.Name], m.Destination
		}
	}
	return v, path.Clean("/" + strings.TrimPrefix(name, longest))
}

// tree is the volume's files by path. Called with d.mu.
func (v *volume) tree() map[string]*file {
	if v.files == nil {
		v.files = map[string]*file{"/": {mode: fs.ModeDir | 0o755}}
	}
	return v.files
}

// file is what a path of the container is, in its own files or in a volume.
func (c *container) file(name string) *file {
	if v, rel := c.volumeAt(name); v != nil {
		return v.tree()[rel]
	}
	return c.fileTree()[name]
}

// put makes a path be a file.
func (c *container) put(name string, f *file) {
	if v, rel := c.volumeAt(name); v != nil {
		v.tree()[rel] = f
		return
	}
	c.fileTree()[name] = f
}

// view is all that the container sees: its files, and over them its volumes.
func (c *container) view() map[string]*file {
	all := map[string]*file{}
	for name, f := range c.fileTree() {
		if v, _ := c.volumeAt(name); v == nil {
			all[name] = f
		}
	}
	for _, m := range c.mounts {
		if v := c.d.volumes[m.Name]; m.Type == "volume" && v != nil {
			for rel, f := range v.tree() {
				all[path.Clean(m.Destination+rel)] = f
			}
		}
	}
	return all
}

func (c *container) readFile(name string) ([]byte, bool) {
	f := c.file(path.Clean("/" + name))
	if f == nil || f.mode.IsDir() {
		return nil, false
	}
	return f.data, true
}

// lookUp resolves the request's path parameter in its container. Called with d.mu.
func (c *container) lookUp(r *request) (string, *file, error) {
	p := r.param("path")
	if p == "" {
		return "", nil, fail(http.StatusBadRequest, "bad parameter: pathcannot be empty")
	}
	name := path.Clean("/" + p)
	f := c.file(name)
	if f == nil {
		return "", nil, fail(http.StatusNotFound, "Could not find the file %s in container %s", p, r.name)
	}
	return name, f, nil
}

// statHeader is what the client learns about the path before the tar comes.
func statHeader(name string, f *file) string {
	return base64.StdEncoding.EncodeToString(mustMarshal(struct {
		Name       string      `json:"name"`
		Size       int64       `json:"size"`
		Mode       fs.FileMode `json:"mode"`
		Mtime      time.Time   `json:"mtime"`
		LinkTarget string      `json:"linkTarget"`
	}{path.Base(name), int64(len(f.data)), f.mode, f.modTime, f.target}))
}

// statArchive answers HEAD /containers/{id}/archive.
func (d *Daemon) statArchive(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	name, f, err := c.lookUp(r)
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", statHeader(name, f))
	c.emit("archive-path")
	w.WriteHeader(http.StatusOK)
	return nil
}

// getArchive answers GET /containers/{id}/archive.
func (d *Daemon) getArchive(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	name, f, err := c.lookUp(r)
	if err != nil {
		d.mu.Unlock()
		return err
	}
	stat, tree := statHeader(name, f), c.copyTree(name)
	c.emit("archive-path")
	d.mu.Unlock()
	w.Header().Set("X-Docker-Container-Path-Stat", stat)
	base := path.Dir(name)
	if strings.HasSuffix(r.param("path"), "/.") {
		base = name // its contents
	}
	return sendTar(w, tree, base)
}

// copyTree is what lies at and below dir. Files are never changed in place, so the copy may be read without the lock.
func (c *container) copyTree(dir string) map[string]*file {
	tree := map[string]*file{}
	for name, f := range c.view() {
		if name == dir || dir == "/" || strings.HasPrefix(name, dir+"/") {
			tree[name] = f
		}
	}
	return tree
}

// sendTar writes the tree with names relative to base. Once the head is out an error can only cut the stream.
func sendTar(w http.ResponseWriter, tree map[string]*file, base string) error {
	w.Header().Set("Content-Type", "application/x-tar")
	w.WriteHeader(http.StatusOK)
	if err := writeTar(w, tree, base); err != nil {
		return errAnswered
	}
	return nil
}

func writeTar(w io.Writer, tree map[string]*file, base string) error {
	tw := tar.NewWriter(w)
	for _, name := range sortedKeys(tree) {
		f := tree[name]
		h, err := tar.FileInfoHeader(fileInfo{path.Base(name), f}, f.target)
		if err != nil {
			return err
		}
		h.Name, h.Uid, h.Gid = strings.TrimPrefix(strings.TrimPrefix(name, base), "/"), f.uid, f.gid
		if h.Name == "" {
			h.Name = "."
		}
		if f.mode.IsDir() {
			h.Name += "/"
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(f.data); err != nil {
			return err
		}
	}
	return tw.Close()
}

// fileInfo shows a file to archive/tar.
type fileInfo struct {
	name string
	*file
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return int64(len(i.data)) }
func (i fileInfo) Mode() fs.FileMode  { return i.mode }
func (i fileInfo) ModTime() time.Time { return i.modTime }
func (i fileInfo) IsDir() bool        { return i.mode.IsDir() }
func (i fileInfo) Sys() any           { return nil }

// putArchive answers PUT /containers/{id}/archive: it unpacks the body into the directory.
func (d *Daemon) putArchive(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	dir, f, err := c.lookUp(r)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if !f.mode.IsDir() {
		return fail(http.StatusBadRequest, "extraction point is not a directory")
	}
	files, err := readTar(r.Body, dir)
	if err != nil {
		return fail(http.StatusInternalServerError, "Error processing tar file(exit status 1): %s", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.flag("noOverwriteDirNonDir") {
		for name, f := range files {
			if old := c.file(name); old != nil && old.mode.IsDir() != f.mode.IsDir() {
				return fail(http.StatusInternalServerError, "cannot overwrite %s", overwrite(old, name))
			}
		}
	}
	for name, f := range files {
		c.put(name, f)
	}
	c.emit("extract-to-dir")
	w.WriteHeader(http.StatusOK)
	return nil
}

func overwrite(old *file, name string) string {
	if old.mode.IsDir() {
		return "directory \"" + name + "\" with non-directory"
	}
	return "non-directory \"" + name + "\" with directory"
}

// readTar reads a whole tar into memory; names cannot leave dir.
func readTar(r io.Reader, dir string) (map[string]*file, error) {
	files := map[string]*file{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // padding behind the end
			return files, err
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		name := path.Join(dir, path.Clean("/"+h.Name))
		files[name] = &file{mode: h.FileInfo().Mode(), data: data, modTime: h.ModTime.UTC(), target: h.Linkname, uid: h.Uid, gid: h.Gid, changed: true}
	}
}

// changesContainer answers GET /containers/{id}/changes: what was copied in, and the directories around it.
func (d *Daemon) changesContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	type change struct {
		Path string
		Kind int // 0 modified, 1 added
	}
	kinds := map[string]int{}
	for name, f := range c.fileTree() {
		if f.changed {
			kinds[name] = 1
			for p := path.Dir(name); p != "/"; p = path.Dir(p) {
				if _, seen := kinds[p]; !seen {
					kinds[p] = 0
				}
			}
		}
	}
	var changes []change
	for _, p := range sortedKeys(kinds) {
		changes = append(changes, change{p, kinds[p]})
	}
	writeJSON(w, http.StatusOK, changes)
	return nil
}

// exportContainer answers GET /containers/{id}/export.
func (d *Daemon) exportContainer(w http.ResponseWriter, r *request) error {
	c, err := d.lockContainer(r)
	if err != nil {
		return err
	}
	tree := c.copyTree("/")
	delete(tree, "/")
	c.emit("export")
	d.mu.Unlock()
	return sendTar(w, tree, "/")
}
