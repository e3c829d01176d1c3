package intents

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"berth/internal/atomicfile"
)

// file is a Shelf for managers on one computer. The version is the content's checksum: times are too coarse.
type file struct{ path string }

// NewFile makes the Shelf that is a file, which need not be there yet.
func NewFile(path string) Shelf { return &file{path} }

func (f *file) Load(context.Context) ([]byte, string, error) {
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(data)
	return data, hex.EncodeToString(sum[:]), nil
}

func (f *file) Save(ctx context.Context, data []byte, version string) error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	l := flock.New(f.path+".lock", flock.SetPermissions(0o600))
	if ok, err := l.TryLockContext(ctx, 10*time.Millisecond); err != nil || !ok {
		return fmt.Errorf("lock %s: %w", f.path, err)
	}
	defer l.Unlock() //nolint:errcheck // closing the file, which cannot be helped if it fails, gives the lock up too
	_, now, err := f.Load(ctx)
	if err != nil {
		return err
	}
	if now != version {
		return ErrConflict
	}
	return atomicfile.Write(f.path, data, 0o600)
}

func (f *file) Close() error { return nil }
