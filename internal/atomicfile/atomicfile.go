// Package atomicfile replaces files such that a reader, and a crash, sees either the old content or the new one. It knows nothing of
// what is in them, and holds no locks: of two writers at once the later one wins.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// Write makes data the content of the file at path, whose folder must be there, and gives it the mode. Once it returns without an error
// that lasts.
func Write(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // readable by its owner only
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(dir)
}

// SyncDir makes what was renamed or removed in dir last. Windows does not open directories, and does not need this.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
