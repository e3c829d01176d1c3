// Package intents remembers what the operator wants of nodes: availability, added labels, removal.
//
// An intent is small, changes rarely, and must survive the manager, since no engine can hold it. The file here serves one
// manager, or several on one computer; whoever needs the intents declares an interface of its own, so that a key-value store
// can hold them for managers on several. It knows nothing of nodes beyond their IDs.
package intents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"berth/internal/fleet"
)

// StaleError says that an intent was changed since the version that an update was made from. Its text is dockerd's.
type StaleError struct{ ID string }

func (e *StaleError) Error() string { return "rpc error: code = Unknown desc = update out of sequence" }

// File keeps intents in one JSON file. Its methods may be called from any goroutine.
type File struct {
	path string

	mu    sync.Mutex
	all   map[string]fleet.Intent // by node object ID; replaced, never changed
	stamp stamp
}

// stamp tells one state of the file from another without reading it.
type stamp struct {
	modified time.Time
	size     int64
}

// document is what the file holds.
type document struct {
	Version int
	Nodes   map[string]fleet.Intent
}

const documentVersion = 1

// Open reads the intents; a file that is not there yet holds none.
func Open(path string) (*File, error) {
	f := &File{path: path}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

// All returns the intents by node ID. The map must not be changed.
func (f *File) All() map[string]fleet.Intent {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

// lockPatience is how long another manager on this computer may hold the file.
const lockPatience = 5 * time.Second

// Put changes one intent: edit gets what is there now and returns what shall be; a version other than what is there is a
// StaleError. What it returns is on disk.
func (f *File) Put(ctx context.Context, id string, version uint64, edit func(fleet.Intent) fleet.Intent) (fleet.Intent, error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return fleet.Intent{}, fmt.Errorf("intents: %w", err)
	}
	l := flock.New(f.path+".lock", flock.SetPermissions(0o600))
	if ok, err := l.TryLockContext(ctx, 10*time.Millisecond); err != nil || !ok {
		return fleet.Intent{}, fmt.Errorf("intents: lock %s: %w", f.path, err)
	}
	defer l.Unlock() //nolint:errcheck // closing the file, which cannot be helped if it fails, gives the lock up too
	if err := f.read(); err != nil {
		return fleet.Intent{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.all[id]
	if was.Version != version {
		return fleet.Intent{}, &StaleError{id}
	}
	next := edit(was)
	next.Version = was.Version + 1
	all := maps.Clone(f.all)
	if all == nil {
		all = map[string]fleet.Intent{}
	}
	all[id] = next
	data, err := json.MarshalIndent(document{documentVersion, all}, "", "  ")
	if err != nil {
		return fleet.Intent{}, fmt.Errorf("intents: %w", err)
	}
	if err := replaceFile(f.path, append(data, '\n')); err != nil {
		return fleet.Intent{}, fmt.Errorf("intents: %w", err)
	}
	f.all = all
	f.stamp = f.look()
	return next, nil
}

// Follow calls changed after another manager has changed the file, until ctx ends.
func (f *File) Follow(ctx context.Context, every time.Duration, changed func(), failed func(error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		f.mu.Lock()
		same := f.stamp == f.look()
		f.mu.Unlock()
		if same {
			continue
		}
		if err := f.read(); err != nil {
			failed(err)
			continue
		}
		changed()
	}
}

func (f *File) look() stamp {
	i, err := os.Stat(f.path)
	if err != nil {
		return stamp{} // not there yet; read tells of anything else
	}
	return stamp{i.ModTime(), i.Size()}
}

func (f *File) read() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.look()
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		f.all, f.stamp = nil, stamp{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("intents: %w", err)
	}
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("intents: %s: %w", f.path, err)
	}
	if d.Version != documentVersion {
		return fmt.Errorf("intents: %s is of version %d, which this berth does not read", f.path, d.Version)
	}
	f.all, f.stamp = d.Nodes, at
	return nil
}

// replaceFile writes such that a reader, and a crash, sees either the old content or the new one.
func replaceFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	t, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = t.Write(data)
	err = errors.Join(err, t.Chmod(0o600), t.Sync(), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(t.Name()))
	}
	if runtime.GOOS == "windows" {
		return nil // which opens no directories, and need not
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
