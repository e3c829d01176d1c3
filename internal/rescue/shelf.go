package rescue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/internal/atomicfile"
)

// shelf is a directory with a file for each container, named by its ID, and one that tells which nodes did not answer last. The
// files have the containers' environments, and so secrets.
type shelf struct{ dir string }

// document is what a container's file holds.
type document struct {
	Version    int
	Record     *record
	Inspection json.RawMessage
}

const documentVersion = 1

// nodesFile is no container's: those are named by hexadecimal digits.
const nodesFile = "nodes.json"

const extension = ".json"

func (s shelf) path(id string) string { return filepath.Join(s.dir, id+extension) }

// put keeps a container.
func (s shelf) put(r *record, inspection []byte) error {
	if !isID(r.ID) {
		return fmt.Errorf("%.80q is no container's ID", r.ID)
	}
	return s.write(r.ID+extension, document{documentVersion, r, inspection})
}

// isID keeps what engines say from becoming a path.
func isID(id string) bool { return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" }

func (s shelf) write(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(s.dir, name), b, 0o600)
}

func (s shelf) get(id string) (document, error) {
	var d document
	b, err := os.ReadFile(s.path(id))
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("%s: %w", s.path(id), err)
	}
	if d.Version != documentVersion || d.Record == nil || d.Record.ID != id {
		return d, fmt.Errorf("%s is not what this berth writes", s.path(id))
	}
	return d, nil
}

// drop forgets a container.
func (s shelf) drop(id string) error {
	if err := os.Remove(s.path(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// all reads every container's record. A file that cannot be read costs only itself.
func (s shelf) all() (records []*record, unwell []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var failed error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			failed = errors.Join(failed, s.sweep(e))
			continue
		}
		id, is := strings.CutSuffix(e.Name(), extension)
		if !is || !isID(id) {
			continue
		}
		d, err := s.get(id)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		records = append(records, d.Record)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, nodesFile))
	if err == nil {
		err = json.Unmarshal(b, &unwell)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = errors.Join(failed, err)
	}
	return records, unwell, failed
}

// sweep removes a file that a crash left half written; another manager's may be about to be whole.
func (s shelf) sweep(e fs.DirEntry) error {
	info, err := e.Info()
	if err == nil && time.Since(info.ModTime()) > time.Hour {
		err = os.Remove(filepath.Join(s.dir, e.Name()))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
