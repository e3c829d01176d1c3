// Package files copies files and directories from one computer to another, whatever leads there.
//
// A Tree is a computer's file system: this one's, or another's over SFTP. Copy works between any two, passes contents
// through without keeping them anywhere, and keeps modes and times. It follows symbolic links, as scp does. It does not
// know what an SFTP connection goes through.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/pkg/sftp"
)

// Tree is the file system of one computer. A relative path begins at home, or at the working directory of this computer.
type Tree interface {
	Stat(path string) (fs.FileInfo, error) // follows links
	ReadDir(path string) ([]fs.FileInfo, error)
	RealPath(path string) (string, error)
	Match(pattern string) ([]string, error)
	Open(path string) (io.ReadCloser, error)
	Create(path string) (io.WriteCloser, error)
	Mkdir(path string) error
	Chmod(path string, mode fs.FileMode) error
	Chtimes(path string, read, written time.Time) error
	Join(elements ...string) string
	Base(path string) string
}

// Here is this computer's.
type Here struct{}

var _ Tree = Here{}

// Stat follows links.
func (Here) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

// RealPath is the path without links.
func (Here) RealPath(path string) (string, error) { return filepath.EvalSymlinks(path) }

// Match lists what a pattern means here.
func (Here) Match(pattern string) ([]string, error) { return filepath.Glob(pattern) }

// Open opens a file for reading.
func (Here) Open(path string) (io.ReadCloser, error) { return os.Open(path) }

// Create makes or empties a file.
func (Here) Create(path string) (io.WriteCloser, error) { return os.Create(path) }

// Mkdir makes a directory, for us alone.
func (Here) Mkdir(path string) error { return os.Mkdir(path, 0o700) }

// Chmod sets the mode.
func (Here) Chmod(path string, mode fs.FileMode) error { return os.Chmod(path, mode) }

// Chtimes sets the times.
func (Here) Chtimes(path string, read, written time.Time) error {
	return os.Chtimes(path, read, written)
}

// Join makes a path of its elements.
func (Here) Join(elements ...string) string { return filepath.Join(elements...) }

// Base is the last element.
func (Here) Base(path string) string { return filepath.Base(path) }

// ReadDir lists what is in a directory, sorted by name.
func (Here) ReadDir(path string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(path)
	var infos []fs.FileInfo
	for _, e := range entries {
		info, infoErr := e.Info()
		if errors.Is(infoErr, fs.ErrNotExist) { // removed since it was listed
			continue
		}
		if infoErr != nil {
			return nil, infoErr
		}
		infos = append(infos, info)
	}
	return infos, err
}

// Remote is another computer's, over SFTP.
type Remote struct {
	client *sftp.Client
	name   string
	stop   func() bool
}

var _ Tree = (*Remote)(nil)

// Over speaks SFTP on conn, which it closes when ctx ends or Close is called. Errors call the computer by name.
func Over(ctx context.Context, name string, conn io.ReadWriteCloser) (*Remote, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // whoever waits on it hears of it
	client, err := sftp.NewClientPipe(conn, conn, sftp.UseConcurrentWrites(true))
	if err != nil {
		stop()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("files of %s: %w", name, errors.Join(err, conn.Close()))
	}
	return &Remote{client, name, stop}, nil
}

// Close ends the connection.
func (r *Remote) Close() error {
	r.stop()
	return r.client.Close()
}

// Stat follows links.
func (r *Remote) Stat(path string) (fs.FileInfo, error) {
	info, err := r.client.Stat(path)
	return info, r.at("stat", path, err)
}

// ReadDir lists what is in a directory.
func (r *Remote) ReadDir(path string) ([]fs.FileInfo, error) {
	infos, err := r.client.ReadDir(path)
	return infos, r.at("list", path, err)
}

// mostLinks is how many a path may lead through, as on Linux.
const mostLinks = 40

// RealPath is the path without links. It follows them itself, since not every server of SFTP does.
func (r *Remote) RealPath(name string) (string, error) {
	left, err := r.client.RealPath(name)
	if err != nil {
		return "", r.at("resolve", name, err)
	}
	real := "/"
	for links := 0; left != ""; {
		var element string
		element, left, _ = strings.Cut(strings.TrimPrefix(left, "/"), "/")
		next := path.Join(real, element)
		info, err := r.client.Lstat(next)
		if err != nil {
			return "", r.at("resolve", name, err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			real = next
			continue
		}
		if links++; links > mostLinks {
			return "", r.at("resolve", name, errors.New("too many levels of symbolic links"))
		}
		to, err := r.client.ReadLink(next)
		if err != nil {
			return "", r.at("resolve", name, err)
		}
		if path.IsAbs(to) {
			real = "/"
		}
		left = to + "/" + left // not cleaned: .. leads up from where a link before it led to
	}
	return real, nil
}

// Match lists what a pattern of path.Match means there.
func (r *Remote) Match(pattern string) ([]string, error) {
	found, err := r.client.Glob(pattern)
	return found, r.at("match", pattern, err)
}

// Open opens a file for reading.
func (r *Remote) Open(path string) (io.ReadCloser, error) {
	f, err := r.client.Open(path)
	if err != nil {
		return nil, r.at("open", path, err)
	}
	return f, nil
}

// Create makes or empties a file.
func (r *Remote) Create(path string) (io.WriteCloser, error) {
	f, err := r.client.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, r.at("create", path, err)
	}
	return remoteFile{f, r, path}, nil
}

// remoteFile is open for writing.
type remoteFile struct {
	*sftp.File
	of   *Remote
	path string
}

// ReadFrom has many writes on their way at once, though it cannot be seen how long the input is.
func (f remoteFile) ReadFrom(from io.Reader) (int64, error) {
	n, err := f.ReadFromWithConcurrency(from, 0) // 0: as many as the connection takes
	return n, f.of.at("write", f.path, err)
}

// Close is where a full disk may show.
func (f remoteFile) Close() error { return f.of.at("close", f.path, f.File.Close()) }

// Mkdir makes a directory.
func (r *Remote) Mkdir(path string) error { return r.at("make directory", path, r.client.Mkdir(path)) }

// Chmod sets the mode.
func (r *Remote) Chmod(path string, mode fs.FileMode) error {
	return r.at("set the mode of", path, r.client.Chmod(path, mode))
}

// Chtimes sets the times.
func (r *Remote) Chtimes(path string, read, written time.Time) error {
	return r.at("set the times of", path, r.client.Chtimes(path, read, written))
}

// Join makes a path of its elements.
func (r *Remote) Join(elements ...string) string { return path.Join(elements...) }

// Base is the last element.
func (r *Remote) Base(p string) string { return path.Base(p) }

// at says of which computer and file an error is; SFTP's own words say neither.
func (r *Remote) at(what, path string, err error) error {
	if err == nil {
		return nil
	}
	var status *sftp.StatusError
	switch {
	case errors.As(err, &status) && status.FxCode() == sftp.ErrSSHFxFailure && strings.EqualFold(plain(status), "failure"):
		err = errors.New("the other side does not say why (a full disk, or something in the way)")
	case errors.Is(err, fs.ErrNotExist):
		err = fs.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		err = fs.ErrPermission
	}
	return fmt.Errorf("%s: %s %s: %w", r.name, what, path, err)
}

// plain is what the other side said, without what the library puts around it.
func plain(e *sftp.StatusError) string {
	_, quoted, _ := strings.Cut(e.Error(), "\"")
	said, _, _ := strings.Cut(quoted, "\"")
	return said
}
