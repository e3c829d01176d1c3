package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a file is left alone after it changed: editors and shells empty it before they fill it, and an
	// empty file would empty the fleet.
	settle = 200 * time.Millisecond

	maxFile = 16 << 20
)

// file is a set that stands in a file, one entry a line.
type file struct {
	path string
	o    Options
}

func newFile(path string, o Options) (Source, error) {
	if path == "" {
		return nil, errors.New("file:// names no file: write file:///absolute/path or file://relative/path")
	}
	// The working directory may change later; the file that was meant does not.
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("file://%s: %w", path, err)
	}
	return &file{path: abs, o: o}, nil
}

// Watch reads the file again when its folder says that it changed, and at every heartbeat, since a folder may be on a file
// system that says nothing, or may not exist yet.
func (f *file) Watch(ctx context.Context, update func([]string)) error {
	r := &reader{path: f.path, warn: f.o.Warn, state: f.o.State, update: update, said: map[trouble]string{}}
	changes, watcher := f.notifier(r)
	if watcher != nil {
		defer closeWatcher(watcher, r)
	}
	r.read()
	heartbeat := time.NewTicker(f.o.Heartbeat)
	defer heartbeat.Stop()
	var quiet <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-changes.events:
			if quiet == nil && f.concerns(ev.Name) {
				quiet = time.After(settle)
			}
		case err := <-changes.errors:
			r.say(unwatched, fmt.Errorf("watch %s: %w", filepath.Dir(f.path), err))
			quiet = time.After(settle) // events may have been lost
		case <-quiet:
			quiet = nil
			r.read()
		case <-heartbeat.C:
			if watcher != nil {
				f.follow(watcher, r) // the folder may have been made, or replaced, since
			}
			r.read()
		}
	}
}

// changes are nil channels when nobody notifies.
type changes struct {
	events <-chan fsnotify.Event
	errors <-chan error
}

// notifier watches the folder and not the file: an editor that renames leaves another file under the name. Without a
// notifier the heartbeat remains.
func (f *file) notifier(r *reader) (changes, *fsnotify.Watcher) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		r.say(unwatched, fmt.Errorf("watch %s: %w; it is read every %v instead", f.path, err, f.o.Heartbeat))
		return changes{}, nil
	}
	f.follow(w, r)
	return changes{w.Events, w.Errors}, w
}

func (f *file) follow(w *fsnotify.Watcher, r *reader) {
	dir := filepath.Dir(f.path)
	err := w.Add(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a missing folder shows as a missing file
		r.say(unwatched, fmt.Errorf("watch %s: %w; %s is read every %v instead", dir, err, f.path, f.o.Heartbeat))
	}
}

func closeWatcher(w *fsnotify.Watcher, r *reader) {
	if err := w.Close(); err != nil {
		r.say(unwatched, fmt.Errorf("stop watching %s: %w", r.path, err))
	}
}

// concerns is true for the file itself, and for the hidden link through which Kubernetes swaps a whole folder of files.
func (f *file) concerns(name string) bool {
	base := filepath.Base(name)
	return base == filepath.Base(f.path) || strings.HasPrefix(base, "..")
}

// reader turns the file's content into updates, and does not say the same twice.
type reader struct {
	path   string
	warn   func(error)
	state  func(error)
	update func([]string)

	content []byte             // as last read; nil until it was
	sent    []string           // sorted; what update last heard
	started bool               // update was called
	said    map[trouble]string // the last warning of each kind
}

// trouble is what a warning is about.
type trouble int

const (
	unreadable trouble = iota
	unwatched
)

func (r *reader) read() {
	content, err := readSome(r.path)
	if err != nil {
		then := "the last known engines are kept"
		if r.content == nil {
			then = "no engines until it can be read"
		}
		err = fmt.Errorf("discovery file %s: %w; %s", r.path, cause(err), then)
		if r.say(unreadable, err) {
			r.state(err)
		}
		if !r.started {
			r.send(nil)
		}
		return
	}
	if r.said[unreadable] != "" {
		r.state(nil)
		delete(r.said, unreadable)
	}
	if r.content == nil || !bytes.Equal(content, r.content) {
		r.content = content
		r.send(parseLines(content, func(line int, err error) {
			r.warn(fmt.Errorf("discovery file %s, line %d: %w", r.path, line, err))
		}))
	}
}

// say passes a warning on unless it is the last one of its kind again, and tells whether it did.
func (r *reader) say(about trouble, err error) bool {
	text := err.Error()
	if text == r.said[about] {
		return false
	}
	r.said[about] = text
	r.warn(err)
	return true
}

func (r *reader) send(addrs []string) {
	sorted := slices.Clone(addrs)
	slices.Sort(sorted)
	if r.started && slices.Equal(sorted, r.sent) {
		return
	}
	r.started, r.sent = true, sorted
	r.update(addrs)
}

// cause drops the path, which the caller names already.
func cause(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// readSome never returns nil without an error.
func readSome(path string) (content []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe would block, now or at the next heartbeat
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	content, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return content, nil
}

// parseLines takes every line that can be understood and reports the others.
func parseLines(content []byte, bad func(line int, err error)) []string {
	var s addrSet
	n := 0
	content = bytes.TrimPrefix(content, []byte("\uFEFF"))
	for line := range strings.Lines(string(content)) {
		n++
		entry, _, _ := strings.Cut(line, "#")
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if err := s.add(entry); err != nil {
			bad(n, err)
		}
	}
	return s.addrs
}
