package files

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// remote is a computer behind SFTP whose home is a temporary directory.
func remote(t *testing.T) (*Remote, string) {
	t.Helper()
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	server, err := sftp.NewServer(far, sftp.WithServerWorkingDirectory(home))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(); far.Close() }()
	r, err := Over(t.Context(), "web1", near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); <-served })
	return r, home
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	if err := errors.Join(os.Chmod(path, mode), os.Chtimes(path, old, old)); err != nil {
		t.Fatal(err)
	}
}

// check looks at a copy that write made the original of.
func check(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	if string(got) != content {
		t.Errorf("%s holds %.40q, want %.40q", path, got, content)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != mode || info.ModTime().Year() != 2001 {
		t.Errorf("%s has mode %v and time %v, want %v and 2001", path, info.Mode(), info.ModTime(), mode)
	}
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q, want %q in it", err, w)
		}
	}
}

func TestCopyThereAndBackAndAcross(t *testing.T) {
	here := t.TempDir()
	r1, home1 := remote(t)
	r2, home2 := remote(t)
	write(t, filepath.Join(here, "dog.file"), "spot", 0o640)
	steps := []struct {
		from, to Place
		result   string
	}{
		{Place{Here{}, filepath.Join(here, "dog.file")}, Place{r1, ""}, filepath.Join(home1, "dog.file")},
		{Place{r1, "dog.file"}, Place{r2, "cat.file"}, filepath.Join(home2, "cat.file")},
		{Place{r2, "cat.file"}, Place{Here{}, here}, filepath.Join(here, "cat.file")},
		{Place{r2, "*.file"}, Place{Here{}, filepath.Join(here, "back")}, filepath.Join(here, "back")},
		{Place{r1, "dog.file"}, Place{r1, "dog2.file"}, filepath.Join(home1, "dog2.file")},
	}
	for _, s := range steps {
		if err := Copy(t.Context(), s.from, s.to, Options{}); err != nil {
			t.Fatalf("copy %s to %s: %v", s.from.Path, s.to.Path, err)
		}
		check(t, s.result, "spot", 0o640)
	}
}

func TestCopyOfATree(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	write(t, filepath.Join(src, "a"), "A", 0o600)
	write(t, filepath.Join(src, "deep", "er", "run.sh"), "#!/bin/sh", 0o755)
	write(t, filepath.Join(src, "sealed", "x"), "X", 0o444)
	if err := errors.Join(os.Symlink("deep/er/run.sh", filepath.Join(src, "link")), os.Chmod(filepath.Join(src, "sealed"), 0o550)); err != nil {
		t.Fatal(err)
	}
	r, home := remote(t)
	for range 2 { // again over what is there
		if err := Copy(t.Context(), Place{Here{}, src}, Place{r, "dst"}, Options{Recursive: true}); err != nil {
			t.Fatal(err)
		}
		os.RemoveAll(filepath.Join(home, "dst", "src")) // the second one goes into the first
		check(t, filepath.Join(home, "dst", "a"), "A", 0o600)
		check(t, filepath.Join(home, "dst", "deep", "er", "run.sh"), "#!/bin/sh", 0o755)
		check(t, filepath.Join(home, "dst", "link"), "#!/bin/sh", 0o755)
		check(t, filepath.Join(home, "dst", "sealed", "x"), "X", 0o444)
		if info, err := os.Stat(filepath.Join(home, "dst", "sealed")); err != nil || info.Mode().Perm() != 0o550 {
			t.Errorf("sealed is %v, %v, want mode 0550", info, err)
		}
	}
	back := t.TempDir()
	if err := Copy(t.Context(), Place{r, "dst"}, Place{Here{}, back}, Options{Recursive: true}); err != nil {
		t.Fatal(err)
	}
	check(t, filepath.Join(back, "dst", "deep", "er", "run.sh"), "#!/bin/sh", 0o755)
}

// A file of many packets keeps its order, and its progress only grows.
func TestCopyOfABigFile(t *testing.T) {
	content := make([]byte, 5<<20+17)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(content)
	r1, home1 := remote(t)
	r2, home2 := remote(t)
	write(t, filepath.Join(home1, "big"), string(content), 0o600)
	last, ends := int64(-1), 0
	err := Copy(t.Context(), Place{r1, "big"}, Place{r2, "big"}, Options{Progress: func(path string, done, size int64) {
		if path != "big" || done < last || size != int64(len(content)) {
			t.Errorf("progress %s %d of %d after %d", path, done, size, last)
		}
		if last = done; done == size {
			ends++
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(home2, "big"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the copy differs (%d bytes, %v)", len(got), err)
	}
	if ends != 1 {
		t.Errorf("its end was told %d times", ends)
	}
}

func TestCopySaysWhatItCannotDo(t *testing.T) {
	r, home := remote(t)
	here := t.TempDir()
	write(t, filepath.Join(home, "dir", "f"), "F", 0o600)
	write(t, filepath.Join(home, "dir2", "f"), "F", 0o600)
	write(t, filepath.Join(home, "plain"), "P", 0o600)
	write(t, filepath.Join(here, "x"), "X", 0o600)
	if err := os.Symlink("..", filepath.Join(home, "dir2", "up")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone", filepath.Join(home, "dir2", "dangling")); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		from, to  Place
		recursive bool
		want      []string
	}{
		"what is not there":              {Place{r, "nope"}, Place{Here{}, here}, false, []string{"web1: stat nope: file does not exist"}},
		"a pattern without a match":      {Place{r, "*.txt"}, Place{Here{}, here}, false, []string{"web1: stat *.txt"}},
		"a directory without -r":         {Place{r, "dir"}, Place{Here{}, here}, false, []string{"dir is a directory: -r"}},
		"a directory onto a file":        {Place{r, "dir"}, Place{Here{}, filepath.Join(here, "x")}, true, []string{"x is not a directory"}},
		"no directory to go into":        {Place{Here{}, filepath.Join(here, "x")}, Place{r, "no/where"}, false, []string{"web1: create no/where: file does not exist"}},
		"a trailing slash on nothing":    {Place{Here{}, filepath.Join(here, "x")}, Place{r, "nowhere/"}, false, []string{"nowhere/ is not a directory"}},
		"several onto one":               {Place{r, "dir*"}, Place{Here{}, filepath.Join(here, "one")}, true, []string{"one is not a directory"}},
		"onto itself":                    {Place{r, "plain"}, Place{r, "./plain"}, false, []string{"are the same"}},
		"into itself":                    {Place{r, "dir"}, Place{r, "dir/copy"}, true, []string{"is inside of"}},
		"a device":                       {Place{Here{}, "/dev/null"}, Place{r, "null"}, false, []string{"neither a file nor a directory"}},
		"a link up and one that dangles": {Place{r, "dir2"}, Place{Here{}, filepath.Join(here, "dir2")}, true, []string{"up", "leads back to " + home, "dir2/dangling: file does not exist"}},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, Copy(t.Context(), tt.from, tt.to, Options{Recursive: tt.recursive}), tt.want...)
		})
	}
	check(t, filepath.Join(here, "dir2", "f"), "F", 0o600) // the rest came
	check(t, filepath.Join(home, "plain"), "P", 0o600)
}

// A machine must not write outside of the target by naming its files so.
func TestCopyRefusesNamesThatLeadElsewhere(t *testing.T) {
	for _, name := range []string{"..", ".", "", "a/b", "../../x", "/etc/x", "a\x00b"} {
		c := &copying{to: Here{}}
		if c.safe(name) {
			t.Errorf("%q passes for a file's name", name)
		}
	}
}

// What is written to a device is not given the mode of a file.
func TestCopyToADevice(t *testing.T) {
	before, err := os.Stat("/dev/null")
	if err != nil {
		t.Skip(err)
	}
	src := filepath.Join(t.TempDir(), "x")
	write(t, src, "X", 0o600)
	if err := Copy(t.Context(), Place{Here{}, src}, Place{Here{}, "/dev/null"}, Options{}); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat("/dev/null"); err != nil || after.Mode() != before.Mode() {
		t.Errorf("/dev/null has mode %v, %v, want %v", after.Mode(), err, before.Mode())
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	near, far := net.Pipe()
	server, err := sftp.NewServer(far, sftp.WithServerWorkingDirectory(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(); far.Close() }()
	r, err := Over(ctx, "web1", near)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { r.Close(); <-served }()
	src := filepath.Join(t.TempDir(), "big")
	write(t, src, strings.Repeat("x", 8<<20), 0o600)
	stop := errors.New("enough")
	err = Copy(ctx, Place{Here{}, src}, Place{r, "big"}, Options{Progress: func(string, int64, int64) { cancel(stop) }})
	if !errors.Is(err, stop) {
		t.Errorf("copy = %v, want %v", err, stop)
	}
}
