package discovery

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// watched is a file source that runs for the length of a test.
type watched struct {
	t       *testing.T
	path    string
	updates chan []string
	warned  chan error
}

func watchFile(t *testing.T, path string) *watched {
	t.Helper()
	w := &watched{t: t, path: path, updates: make(chan []string, 100), warned: make(chan error, 100)}
	s, err := Parse("file://"+path, Options{Heartbeat: time.Second, Warn: func(err error) { w.warned <- err }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Watch(ctx, func(addrs []string) { w.updates <- addrs }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return w
}

func (w *watched) write(content string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) expect(want ...string) {
	w.t.Helper()
	select {
	case got := <-w.updates:
		if !slices.Equal(got, want) {
			w.t.Fatalf("update(%q), want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		w.t.Fatalf("no update, want %q", want)
	}
}

func (w *watched) expectWarning(want string) {
	w.t.Helper()
	select {
	case err := <-w.warned:
		if !strings.Contains(err.Error(), want) {
			w.t.Fatalf("warned %q, want %q", err, want)
		}
	case <-time.After(20 * time.Second):
		w.t.Fatalf("no warning, want %q", want)
	}
}

func (w *watched) expectQuiet() {
	w.t.Helper()
	select {
	case err := <-w.warned:
		w.t.Fatalf("unexpected warning: %v", err)
	case got := <-w.updates:
		w.t.Fatalf("unexpected update(%q)", got)
	default:
	}
}

func TestFileFollowsChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster")
	if err := os.WriteFile(path, []byte("a:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := watchFile(t, path)
	w.expect("a:1")
	w.write("a:1\nb[1:2]:1\n")
	w.expect("a:1", "b1:1", "b2:1")

	// The way most editors save.
	if err := os.WriteFile(path+".new", []byte("c:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	w.expect("c:1")
	w.write("# nobody\n")
	w.expect()
	w.write("d:1\n")
	w.expect("d:1")
	w.expectQuiet()
}

func TestFileThatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later", "cluster")
	w := watchFile(t, path)
	w.expectWarning("no such file or directory; no engines until it can be read")
	w.expect()

	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("a:1")
	w.expect("a:1") // by the heartbeat, as there was no folder to watch

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.expectWarning("the last known engines are kept")
	w.write("a:1\nb:1")
	w.expect("a:1", "b:1") // and no empty set in between
	w.expectQuiet()
}

func TestFileBadLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster")
	if err := os.WriteFile(path, []byte("a:1\nb\n\nc:1 # fine\nd:x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := watchFile(t, path)
	w.expectWarning("line 2: address \"b\": the port is missing")
	w.expectWarning("line 5: address \"d:x\"")
	w.expect("a:1", "c:1")
	w.expectQuiet()
}

// Kubernetes mounts a file through a link to a hidden folder, and swaps that.
func TestFileBehindSwappedFolder(t *testing.T) {
	dir := t.TempDir()
	link := func(name, content string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "cluster"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		tmp := filepath.Join(dir, "..tmp")
		if err := os.Symlink(name, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "a:1")
	if err := os.Symlink("..data/cluster", filepath.Join(dir, "cluster")); err != nil {
		t.Fatal(err)
	}
	w := watchFile(t, filepath.Join(dir, "cluster"))
	w.expect("a:1")
	link("..2", "b:1")
	w.expect("b:1")
}

func TestFileRelativePath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("cluster", []byte("a:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Parse("file://cluster", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("/")
	if got := watchOnce(t, s); !slices.Equal(got, []string{"a:1"}) {
		t.Errorf("got %q, want a:1", got)
	}
}

// The reader reads by itself, so that no clock is needed to see what it says and what it keeps to itself.
func TestReaderSaysThingsOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster")
	var said []string
	r := &reader{
		path:   path,
		warn:   func(err error) { said = append(said, "warn") },
		state:  func(error) {},
		update: func(a []string) { said = append(said, strings.Join(a, ",")) },
		said:   map[trouble]string{},
	}
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.read()
	r.read()
	write("a:1\nb:1\nbad\n")
	r.read()
	r.read()
	write("b:1\na:1\n") // the order does not matter
	r.read()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.read()
	r.read()
	write("")
	r.read()
	want := []string{"warn", "", "warn", "a:1,b:1", "warn", ""}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLinesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.SampledFrom([]string{"", "a:1", "b:2", " c:3\t", "a:1#x", "#", "# d:4", "e", "f:g", "x y:1"})).Draw(t, "lines")
		end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "end")
		bad := 0
		got := parseLines([]byte("\uFEFF"+strings.Join(lines, end)), func(line int, err error) {
			bad++
			if text := lines[line-1]; text != "e" && text != "f:g" && text != "x y:1" {
				t.Fatalf("line %d, %q: %v", line, text, err)
			}
		})
		var want []string
		wantBad := 0
		for _, l := range lines {
			entry, _, _ := strings.Cut(l, "#")
			switch entry = strings.TrimSpace(entry); entry {
			case "e", "f:g", "x y:1":
				wantBad++
			case "":
			default:
				if !slices.Contains(want, entry) {
					want = append(want, entry)
				}
			}
		}
		if !slices.Equal(got, want) || bad != wantBad {
			t.Fatalf("parseLines(%q) = %q with %d bad, want %q with %d", lines, got, bad, want, wantBad)
		}
	})
}
