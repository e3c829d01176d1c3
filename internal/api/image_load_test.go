package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"berth/internal/fleet"
)

// archive is what docker save gives for an image that the fleet does not have.
func archive(t *testing.T, ref string) []byte {
	t.Helper()
	f := newFleet(t, 1, only(map[string][]string{"n1": {ref}}))
	return f.must(200, "GET", "/images/"+ref+"/get", nil).body
}

// trickle gives out its content a few bytes at a time, as a slow client does.
type trickle struct{ rest []byte }

func (r *trickle) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 100)], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func TestLoadGoesToEveryNode(t *testing.T) {
	tar := archive(t, "app:1")
	f := newFleet(t, 3)
	a := f.send("POST", "/v1.41/images/load?quiet=1", &trickle{tar})
	if a.status != 200 {
		t.Fatalf("load = %d %s", a.status, a.body)
	}
	lines := progressOf(t, a)
	if len(lines) != 1 || lines[0].Stream != "Loaded image: app:1\n" {
		t.Errorf("answer = %+v, want one line that tells what was loaded", lines)
	}
	for i, d := range f.daemons {
		if _, ok := d.Images()["app:1"]; !ok {
			t.Errorf("app:1 is not on n%d", i+1)
		}
	}
	if got := tagsIn(f.images("")); got != "app:1 busybox:latest" {
		t.Errorf("list at once after = %q", got)
	}
}

func TestLoadGoesOnWithoutAFailedNode(t *testing.T) {
	tar := archive(t, "app:1")
	f := newFleet(t, 3)
	f.daemons[0].DropNext("POST", "/images/load", false)
	f.daemons[2].FailNext("POST", "/images/load", 500, "no space left on device")
	a := f.send("POST", "/v1.41/images/load?quiet=1", bytes.NewReader(tar))
	lines := progressOf(t, a)
	if a.status != 200 || len(lines) != 3 {
		t.Fatalf("load = %d %s, want two warnings and what was loaded", a.status, a.body)
	}
	if got := lines[0].Stream; !strings.HasPrefix(got, "Warning: node n1 is unreachable: ") {
		t.Errorf("first line = %q, want a warning of n1", got)
	}
	if got, want := lines[1].Stream, "Warning: node n3: no space left on device\n"; got != want {
		t.Errorf("second line = %q, want %q", got, want)
	}
	if got := lines[2].Stream; got != "Loaded image: app:1\n" {
		t.Errorf("last line = %q, want what was loaded", got)
	}
	if _, ok := f.daemons[1].Images()["app:1"]; !ok {
		t.Errorf("app:1 is not on n2")
	}
}

func TestLoadOfNoArchiveFailsAsOnAnEngine(t *testing.T) {
	f := newFleet(t, 2)
	a := f.send("POST", "/v1.41/images/load?quiet=1", strings.NewReader("no tar at all, but more than a block of it: "+strings.Repeat("x", 2000)))
	lines := progressOf(t, a)
	if a.status != 200 || len(lines) != 1 || lines[0].ErrorDetail == nil || lines[0].Error == "" {
		t.Errorf("load = %d %s, want an error in the stream", a.status, a.body)
	}
}

func TestLoadWithoutNodes(t *testing.T) {
	f := newFleet(t, 0)
	if a := f.send("POST", "/images/load", strings.NewReader("x")); a.status != 503 {
		t.Errorf("load = %d %s, want 503", a.status, a.body)
	}
}

// An import makes a new image each time, so it is done once and copied.
func TestImportIsOneImageOnEveryNode(t *testing.T) {
	f := newFleet(t, 3)
	a := f.send("POST", "/v1.41/images/create?fromSrc=-&repo=imp&tag=1", strings.NewReader("a file system"))
	if a.status != 200 {
		t.Fatalf("import = %d %s", a.status, a.body)
	}
	lines := progressOf(t, a)
	id := lines[len(lines)-1].Status
	if !strings.HasPrefix(id, "sha256:") {
		t.Errorf("last line = %q, want the image's ID", id)
	}
	for i, d := range f.daemons {
		if got := d.Images()["imp:1"]; got != id {
			t.Errorf("imp:1 on n%d = %q, want %q", i+1, got, id)
		}
	}
}

func TestSpreadLeavesNodesBehind(t *testing.T) {
	nodes := []*fleet.Node{{Name: "whole"}, {Name: "early"}, {Name: "never"}}
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // far more than all queues
	r := &request{Request: httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))}
	early := errors.New("full")
	var mu sync.Mutex
	got := map[string]int{}
	errs, err := spread(httptest.NewRecorder(), r, nodes, func(_ int, n *fleet.Node, in io.ReadCloser) error {
		var read int64
		var err error
		switch n.Name {
		case "whole":
			read, err = io.Copy(io.Discard, in)
		case "early":
			if read, err = io.CopyN(io.Discard, in, 100_000); err == nil {
				err = early
			}
		}
		mu.Lock()
		defer mu.Unlock()
		got[n.Name] = int(read)
		return err
	})
	if err != nil || errs[0] != nil || !errors.Is(errs[1], early) || errs[2] != nil {
		t.Errorf("errors = %v, %v", errs, err)
	}
	if got["whole"] != len(body) {
		t.Errorf("the node that reads all got %d bytes, want %d", got["whole"], len(body))
	}
}

func TestSpreadTellsNodesThatTheClientLeft(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("half"), &failing{})
	r := &request{Request: httptest.NewRequest(http.MethodPost, "/", broken)}
	errs, err := spread(httptest.NewRecorder(), r, []*fleet.Node{{Name: "n1"}}, func(_ int, _ *fleet.Node, in io.ReadCloser) error {
		_, err := io.Copy(io.Discard, in)
		return err
	})
	if err == nil || status(err) != 400 || !errors.Is(errs[0], io.ErrUnexpectedEOF) {
		t.Errorf("spread = %v, %v, want the client's fault, told to the node", errs, err)
	}
}

type failing struct{}

func (*failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
