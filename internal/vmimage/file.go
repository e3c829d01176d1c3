package vmimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
)

// copy brings a local file in. It is copied, since a machine whose image changes below it is lost.
func (c *Cache) copy(ctx context.Context, s Source, file string, r Reporter) (modified time.Time, err error) {
	in, err := os.Open(file)
	if err != nil {
		return modified, err
	}
	defer in.Close() //nolint:errcheck // read only
	info, err := in.Stat()
	if err != nil {
		return modified, err
	}
	if err := c.room(info.Size()); err != nil {
		return modified, err
	}
	what := "Copying " + s.Name
	r.Line(what + "...")
	part := c.path(s.key(), partEnd)
	out, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return modified, err
	}
	err = c.pour(ctx, out, in, func(done int64) { r.Bar(what, done, info.Size()) })
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return modified, errors.Join(err, c.drop(s.key(), partEnd))
	}
	return info.ModTime(), nil
}

// pour copies until the end, or until ctx ends.
func (c *Cache) pour(ctx context.Context, to io.Writer, from io.Reader, report func(done int64)) error {
	buf := make([]byte, 1<<20)
	for done := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return c.full(err)
			}
			done += int64(n)
			report(done)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// full says it in words that a disk is full.
func (c *Cache) full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &NoSpaceError{c.Dir, err}
	}
	return err
}

// NoSpaceError says that the disk is too full for an image.
type NoSpaceError struct {
	Dir string
	err error
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("the disk with %s is full: %v", e.Dir, e.err)
}

func (e *NoSpaceError) Unwrap() error { return e.err }

// room refuses what there is no space for.
func (c *Cache) room(size int64) error {
	usage, err := disk.Usage(c.Dir)
	if err != nil || size <= 0 {
		return nil //nolint:nilerr // where the file system does not tell, the writing will
	}
	if free := int64(min(usage.Free, 1<<62)); free < size { //nolint:gosec // bounded
		return &NoSpaceError{c.Dir, fmt.Errorf("%d MB are needed and %d MB free", size>>20, free>>20)}
	}
	return nil
}

// share gives a machine an image: the same file under another name, or a copy where the file system cannot do that.
func share(ctx context.Context, image, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Link(image, to); err == nil {
		return nil
	}
	in, err := os.Open(image)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	c := Cache{Dir: filepath.Dir(to)}
	err = c.pour(ctx, out, in, func(int64) {})
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}
