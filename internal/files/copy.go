package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Place is a path on a computer.
type Place struct {
	Tree Tree
	Path string // "" is home
}

// Options say how to copy.
type Options struct {
	Recursive bool // directories too, with all that is in them
	// Progress is told how much of a file has gone; nil is nobody. It is called once per file at least, with done equal to size
	// at its end, by one goroutine at a time.
	Progress func(path string, done, size int64)
}

// Copy copies what from names, which may be a pattern, to a place: into it if that is a directory, else under that very
// name. What cannot be copied does not stop the rest; all of it is in the error.
func Copy(ctx context.Context, from, to Place, o Options) error {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	c := &copying{ctx: ctx, from: from.Tree, to: to.Tree, Options: o}
	err := c.all(orHome(from.Path), orHome(to.Path))
	if ctx.Err() != nil { // what was cut off fails in many words
		return context.Cause(ctx)
	}
	return err
}

func orHome(path string) string {
	if path == "" {
		return "."
	}
	return path
}

// copying is one Copy at work.
type copying struct {
	ctx      context.Context //nolint:containedctx // it lives as long as one call of Copy
	from, to Tree
	Options
}

func (c *copying) all(from, to string) error {
	sources, err := c.sources(from)
	if err != nil {
		return err
	}
	into, err := c.to.Stat(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	inside := err == nil && into.IsDir()
	if !inside && (len(sources) > 1 || strings.HasSuffix(to, "/")) {
		return fmt.Errorf("%s is not a directory", to)
	}
	var failed []error
	for _, s := range sources {
		target := to
		if name := c.from.Base(s); inside && name != "." && name != ".." && name != "/" {
			target = c.to.Join(to, name)
		}
		failed = append(failed, c.one(s, target))
	}
	return errors.Join(failed...)
}

// sources are the files that the path names: itself, or what it matches as a pattern.
func (c *copying) sources(path string) ([]string, error) {
	_, err := c.from.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(path, "*?[") {
		found, matchErr := c.from.Match(path)
		if matchErr == nil && len(found) > 0 {
			return found, nil
		}
	}
	return []string{path}, err
}

func (c *copying) one(from, to string) error {
	info, err := c.from.Stat(from)
	if err != nil {
		return err
	}
	real, err := c.from.RealPath(from)
	if err != nil {
		return err
	}
	if err := c.apart(real, to); err != nil {
		return err
	}
	return c.copy(from, real, to, info, nil)
}

// apart refuses to copy something onto itself, or a directory into itself.
func (c *copying) apart(real, to string) error {
	if c.from != c.to {
		return nil
	}
	target, err := c.to.RealPath(to)
	if errors.Is(err, fs.ErrNotExist) {
		target, err = c.to.RealPath(c.to.Join(to, ".."))
		target = c.to.Join(target, c.to.Base(to))
	}
	if err != nil {
		return err
	}
	if target == real {
		return fmt.Errorf("%s and %s are the same", real, to)
	}
	if strings.HasPrefix(target, real+"/") {
		return fmt.Errorf("%s is inside of %s", to, real)
	}
	return nil
}

// copy copies a file or directory; above are the real paths of the directories that it was reached through.
func (c *copying) copy(from, real, to string, info fs.FileInfo, above []string) error {
	switch {
	case c.ctx.Err() != nil:
		return c.ctx.Err()
	case info.Mode().IsRegular():
		return c.file(from, to, info)
	case !info.IsDir():
		return fmt.Errorf("%s is neither a file nor a directory", from)
	case !c.Recursive:
		return fmt.Errorf("%s is a directory: -r copies directories", from)
	case slices.Contains(above, real):
		return fmt.Errorf("%s leads back to %s, which it is in", from, real)
	}
	return c.directory(from, to, info, append(slices.Clone(above), real))
}

func (c *copying) directory(from, to string, info fs.FileInfo, above []string) error {
	entries, err := c.from.ReadDir(from)
	if err != nil {
		return err
	}
	there, err := c.to.Stat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := c.to.Mkdir(to); err != nil {
			return err
		}
		// Nobody else looks in before its mode is what it should be, which may be without our right to write.
		if err := c.to.Chmod(to, 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	case !there.IsDir():
		return fmt.Errorf("%s is not a directory", to)
	}
	var failed []error
	for _, e := range entries {
		if name := e.Name(); c.safe(name) {
			failed = append(failed, c.entry(c.from.Join(from, name), c.to.Join(to, name), e, above))
		} else {
			failed = append(failed, fmt.Errorf("%s: %q is not a file's name", from, name))
		}
	}
	return errors.Join(append(failed, c.finish(to, info))...)
}

// entry copies what a directory holds. Only where a link was followed may a real path lead back.
func (c *copying) entry(from, to string, info fs.FileInfo, above []string) error {
	real := c.from.Join(above[len(above)-1], info.Name())
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if info, err = c.from.Stat(from); err != nil {
			return err
		}
		if real, err = c.from.RealPath(from); err != nil {
			return err
		}
	}
	return c.copy(from, real, to, info, above)
}

// safe keeps a machine that lies about its names from writing anywhere but into the target.
func (c *copying) safe(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00") && c.to.Base(name) == name
}

func (c *copying) file(from, to string, info fs.FileInfo) (err error) {
	before, statErr := c.to.Stat(to)
	special := statErr == nil && !before.Mode().IsRegular()
	if special && before.IsDir() {
		return fmt.Errorf("%s is a directory", to)
	}
	in, err := c.from.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := c.to.Create(to)
	if err != nil {
		return err
	}
	if !special { // before anybody can read what is in it
		err = c.to.Chmod(to, info.Mode().Perm()|0o200)
	}
	if err == nil {
		err = c.contents(out, in, from, info.Size())
	}
	if err := errors.Join(err, out.Close()); err != nil || special {
		return err
	}
	return c.finish(to, info)
}

// finish gives a copy the mode and the time of what it is of.
func (c *copying) finish(to string, info fs.FileInfo) error {
	if err := c.to.Chmod(to, info.Mode().Perm()); err != nil {
		return err
	}
	return c.to.Chtimes(to, info.ModTime(), info.ModTime())
}

// contents reads and writes at the same time, each as its side does it fastest.
func (c *copying) contents(out io.Writer, in io.Reader, name string, size int64) error {
	reader, writer := io.Pipe()
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&counter{c: c, to: writer, name: name, size: size}, in)
		writer.CloseWithError(err) //nolint:errcheck // it never fails
		read <- err
	}()
	_, err := io.Copy(out, reader)
	reader.CloseWithError(err) //nolint:errcheck // it never fails
	if readErr := <-read; err == nil {
		err = readErr
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	c.Progress(name, size, size)
	return nil
}

// counter tells of the progress, and ends what is to end.
type counter struct {
	c          *copying
	to         io.Writer
	name       string
	done, size int64
}

func (w *counter) Write(p []byte) (int, error) {
	if err := w.c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.to.Write(p)
	if w.done += int64(n); w.done < w.size { // its end is told once all of it is written
		w.c.Progress(w.name, w.done, w.size)
	}
	return n, err
}
