package vmimage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"berth/internal/atomicfile"
)

// Cache is a folder of images. It need not exist before the first is put there.
type Cache struct {
	Dir    string
	Client *http.Client // nil for one of its own

	pace time.Duration // between two tries; 0 for a second
}

// Dir is where the images are in a store's folder for what machines share.
func Dir(shared string) string { return filepath.Join(shared, "images") }

// Image is one that the cache holds, or holds a part of.
type Image struct {
	Name   string
	Source string // URL
	Digest Digest // "" while a part of it is missing
	// Checked says that the digest is what the image's publisher, or the user, says.
	Checked bool
	Size    int64
	Added   time.Time
	Partial bool
	// Users is how many machines have it; -1 where the file system does not tell.
	Users int

	// Of a local file that the image is a copy of.
	Modified time.Time `json:",omitzero"`

	key string
}

// Reporter is told how the work goes on.
type Reporter interface {
	Line(text string)
	Bar(what string, done, total int64)
}

// The files of an image, by their ends: its bytes, what is known of it; the bytes that have come so far, and what they are of.
const (
	imageEnd    = ".img"
	noteEnd     = ".json"
	partEnd     = ".part"
	partNoteEnd = ".part.json"
	lockEnd     = ".lock"
)

var unsafe = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// key names the files of a source's image.
func (s Source) key() string {
	sum := sha256.Sum256([]byte(s.URL))
	name := strings.Trim(unsafe.ReplaceAllString(s.Name, "-"), ".-")
	return fmt.Sprintf("%.60s-%s", name, hex.EncodeToString(sum[:4]))
}

func (c *Cache) path(key, end string) string { return filepath.Join(c.Dir, key+end) }

// Place makes a file at to that holds the source's image, downloading it unless it is there. The file is shared and must not be
// written. Another that places the same image meanwhile is waited for.
func (c *Cache) Place(ctx context.Context, s Source, to string, r Reporter) (Image, error) {
	fail := func(err error) (Image, error) { return Image{}, fmt.Errorf("image %s: %w", s.Name, err) }
	unlock, err := c.lock(ctx, s, r)
	if err != nil {
		return fail(err)
	}
	defer unlock()
	i, err := c.get(ctx, s, false, r)
	if err != nil {
		return fail(err)
	}
	if err := share(ctx, c.path(s.key(), imageEnd), to); err != nil {
		return fail(err)
	}
	return i, nil
}

// Get has the image in the cache; with fresh, what the source has now, also if there is one.
func (c *Cache) Get(ctx context.Context, s Source, fresh bool, r Reporter) (Image, error) {
	unlock, err := c.lock(ctx, s, r)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", s.Name, err)
	}
	defer unlock()
	i, err := c.get(ctx, s, fresh, r)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", s.Name, err)
	}
	return i, nil
}

// Find is the image of the source, if it is there whole and is what the source wants.
func (c *Cache) Find(s Source) (Image, bool) {
	i, err := c.read(s.key())
	if err != nil || s.Digest != "" && i.Digest != s.Digest {
		return Image{}, false
	}
	if file := s.file(); file != "" {
		info, err := os.Stat(file)
		if err != nil || info.Size() != i.Size || !info.ModTime().Equal(i.Modified) {
			return Image{}, false
		}
	}
	return i, true
}

func (c *Cache) read(key string) (Image, error) {
	data, err := os.ReadFile(c.path(key, noteEnd))
	if err != nil {
		return Image{}, err
	}
	i := Image{}
	if err := json.Unmarshal(data, &i); err != nil {
		return Image{}, fmt.Errorf("%s: %w", c.path(key, noteEnd), err)
	}
	info, err := os.Stat(c.path(key, imageEnd))
	if err != nil {
		return Image{}, err
	}
	if info.Size() != i.Size {
		return Image{}, fmt.Errorf("%s has %d bytes and should have %d", c.path(key, imageEnd), info.Size(), i.Size)
	}
	i.key, i.Users = key, links(info)-1
	if i.Users < 0 {
		i.Users = -1
	}
	return i, nil
}

func (c *Cache) get(ctx context.Context, s Source, fresh bool, r Reporter) (Image, error) {
	have, ok := c.Find(s)
	if ok && !fresh {
		return have, nil
	}
	wanted, err := c.wanted(ctx, s)
	if err != nil {
		return Image{}, err
	}
	if ok && wanted != "" && have.Digest == wanted {
		return have, nil
	}
	i := Image{Name: s.Name, Source: s.URL}
	if file := s.file(); file != "" {
		i.Modified, err = c.copy(ctx, s, file, r)
	} else {
		if wanted == "" {
			r.Line("No checksum of " + s.Name + " is known: what comes is taken as it is")
		}
		err = c.download(ctx, s, wanted, r)
	}
	if err != nil {
		return Image{}, err
	}
	return c.accept(s, i, wanted, r)
}

// accept makes what has come the source's image, if it is what was wanted.
func (c *Cache) accept(s Source, i Image, wanted Digest, r Reporter) (Image, error) {
	key, part := s.key(), c.path(s.key(), partEnd)
	r.Line("Verifying " + s.Name + "...")
	var err error
	if i.Digest, err = wanted.of(part); err != nil {
		return Image{}, err
	}
	if wanted != "" && i.Digest != wanted {
		err := fmt.Errorf("what came from %s is damaged or not the right one: its checksum is %s and should be %s. It was thrown away", s.URL, i.Digest.Short(), wanted.Short())
		return Image{}, errors.Join(err, c.drop(key, partEnd, partNoteEnd))
	}
	info, err := os.Stat(part)
	if err != nil {
		return Image{}, err
	}
	i.Size, i.Checked, i.Added, i.key = info.Size(), wanted != "", time.Now().Truncate(time.Second), key
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return Image{}, err
	}
	// Without its note an image is none: the note goes first and comes last.
	err = c.drop(key, noteEnd)
	if err == nil {
		err = os.Chmod(part, 0o444) // machines share it
	}
	if err == nil {
		err = os.Rename(part, c.path(key, imageEnd))
	}
	if err == nil {
		err = atomicfile.Write(c.path(key, noteEnd), data, 0o600)
	}
	return i, errors.Join(err, c.drop(key, partNoteEnd))
}

// wanted is the digest that the image must have; "" where nobody says.
func (c *Cache) wanted(ctx context.Context, s Source) (Digest, error) {
	if s.Digest != "" || s.Sums == "" {
		return s.Digest, nil
	}
	list, err := c.fetch(ctx, s.Sums)
	if err != nil {
		return "", fmt.Errorf("its checksums: %w", err)
	}
	file := s.URL[strings.LastIndex(s.URL, "/")+1:]
	d, ok := findDigest(list, file)
	if !ok {
		return "", fmt.Errorf("%s has no sha256 or sha512 of %s", s.Sums, file)
	}
	return d, nil
}

// lock keeps others from this source's files.
func (c *Cache) lock(ctx context.Context, s Source, r Reporter) (unlock func(), err error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	l := flock.New(c.path(s.key(), lockEnd), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err == nil && !ok {
		r.Line("Waiting for another berth that gets " + s.Name + "...")
		_, err = l.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	return func() { _ = l.Close() }, nil // the kernel lets go even if this fails
}

// List is all there is in the cache, by name.
func (c *Cache) List() ([]Image, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Image
	for _, e := range entries {
		if key, ok := strings.CutSuffix(e.Name(), partNoteEnd); ok {
			if i, ok := c.partial(key); ok {
				list = append(list, i)
			}
			continue
		}
		key, ok := strings.CutSuffix(e.Name(), noteEnd)
		if !ok {
			continue
		}
		i, err := c.read(key)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Image) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.key, b.key)) })
	return list, nil
}

func (c *Cache) partial(key string) (Image, bool) {
	note, size := c.readPart(key)
	info, err := os.Stat(c.path(key, partEnd))
	if note == (partNote{}) || err != nil {
		return Image{}, false
	}
	return Image{Name: note.Name, Source: note.URL, Size: size, Added: info.ModTime(), Partial: true, Users: 0, key: key}, true
}

// NotFoundError says that the cache has no image of that name.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("image %q is not in the cache", e.Name) }

// Remove takes an image out, named as List names it or by its digest's first digits, and all parts of its downloads. Machines that
// have it keep it.
func (c *Cache) Remove(name string) error {
	list, err := c.List()
	if err != nil {
		return err
	}
	found := false
	for _, i := range list {
		if !i.called(name) {
			continue
		}
		found = true
		if err := c.remove(i); err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
	}
	if !found {
		return &NotFoundError{name}
	}
	return nil
}

// called tells whether people mean this image.
func (i Image) called(name string) bool {
	_, sum, _ := strings.Cut(string(i.Digest), ":")
	const shortest = 6
	return name == i.Name || name == i.Source || name == string(i.Digest) || name == i.Digest.Short() && name != ":" || len(name) >= shortest && strings.HasPrefix(sum, name)
}

func (c *Cache) remove(i Image) error {
	l := flock.New(c.path(i.key, lockEnd), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the kernel lets go even if this fails
	if !ok {
		return errors.New("another berth is getting it just now")
	}
	// The lock stays: who waits for it would go on with one that nobody else can see.
	return c.drop(i.key, noteEnd, imageEnd, partEnd, partNoteEnd)
}

// drop deletes files of an image that may be there.
func (c *Cache) drop(key string, ends ...string) error {
	var failed []error
	for _, end := range ends {
		if err := os.Remove(c.path(key, end)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
