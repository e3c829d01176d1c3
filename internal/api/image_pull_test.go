package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// pullable makes references available to the pulls of all nodes.
func pullable(refs ...string) func(*dockertest.Options) {
	return func(o *dockertest.Options) { o.Pullable = append(o.Pullable, refs...) }
}

// progressOf reads a stream of progress.
func progressOf(t *testing.T, a answer) []message {
	t.Helper()
	var lines []message
	for d := json.NewDecoder(bytes.NewReader(a.body)); d.More(); {
		var m message
		if err := d.Decode(&m); err != nil {
			t.Fatalf("%v in %s", err, a.body)
		}
		lines = append(lines, m)
	}
	if len(lines) == 0 {
		t.Fatalf("no progress in %q", a.body)
	}
	return lines
}

func TestPullGoesToEveryNode(t *testing.T) {
	f := newFleet(t, 3, pullable("app:1"))
	lines := progressOf(t, f.must(200, "POST", "/images/create?fromImage=app&tag=1", nil))
	ended := map[string]bool{}
	for _, l := range lines {
		if l.Status == "Pulling app:1... : Status: Downloaded newer image for app:1" {
			ended[l.ID] = true
		}
	}
	if len(ended) != 3 || !ended["n1"] || !ended["n2"] || !ended["n3"] {
		t.Errorf("nodes that told of their end = %v, want n1 n2 n3", ended)
	}
	if last := lines[len(lines)-1]; last.Status != "Status: Downloaded newer image for app:1" || last.ID != "" {
		t.Errorf("last line = %+v, want the engine's own", last)
	}
	for i, d := range f.daemons {
		if _, ok := d.Images()["app:1"]; !ok {
			t.Errorf("app:1 is not on n%d", i+1)
		}
	}
	if got := tagsIn(f.images("")); got != "app:1 busybox:latest" {
		t.Errorf("list at once after = %q", got)
	}
	lines = progressOf(t, f.must(200, "POST", "/images/create?fromImage=app&tag=1", nil))
	if last := lines[len(lines)-1]; last.Status != "Status: Image is up to date for app:1" {
		t.Errorf("last line of the second pull = %+v, want up to date", last)
	}
}

func TestPullThatFailsOnSomeNodesWarns(t *testing.T) {
	f := newFleet(t, 3, pullable("app:1"))
	f.daemons[0].FailNext("POST", "/images/create", 500, "no route to registry")
	f.daemons[1].DropNext("POST", "/images/create", false)
	lines := progressOf(t, f.must(200, "POST", "/images/create?fromImage=app:1", nil))
	warned := map[string]string{}
	for _, l := range lines {
		if _, text, ok := strings.Cut(l.Status, "warning: "); ok {
			warned[l.ID] = text
		}
	}
	if warned["n1"] != "no route to registry" || !strings.HasPrefix(warned["n2"], "node n2 is unreachable") || len(warned) != 2 {
		t.Errorf("warnings = %v, want of n1 and n2", warned)
	}
	if last := lines[len(lines)-1]; !strings.Contains(last.Status, "Downloaded newer image") {
		t.Errorf("last line = %+v, want success", last)
	}
}

func TestPullThatFailsEverywhereIsTheEnginesError(t *testing.T) {
	f := newFleet(t, 3)
	status, want := f.daemons[0].Do("POST", "/images/create?fromImage=nope&tag=1", nil)
	a := f.do("POST", "/images/create?fromImage=nope&tag=1", nil)
	if a.status != status || !bytes.Equal(bytes.TrimSpace(a.body), bytes.TrimSpace(want)) {
		t.Errorf("pull = %d %s, want %d %s", a.status, a.body, status, want)
	}
}

// What docker run does with an image that nobody has: create, pull, create. All three concern one node.
func TestPullAfterACreateGoesToTheChosenNode(t *testing.T) {
	f := newFleet(t, 3, pullable("app:1"))
	a := f.create("n2", "app:1")
	if a.status != http.StatusNotFound || messageOf(a.body) != "No such image: app:1" {
		t.Fatalf("create = %d %s, want 404", a.status, a.body)
	}
	lines := progressOf(t, f.must(200, "POST", "/images/create?fromImage=docker.io/library/app&tag=1", nil))
	if lines[0].Status != "Pulling from library/app" {
		t.Errorf("first line = %+v, want the engine's own", lines[0])
	}
	f.must(201, "POST", "/containers/create?name=web", map[string]string{"Image": "app:1"})
	c, err := f.cluster.Snapshot().Container("web")
	if err != nil || c.Node.Name != "n2" {
		t.Errorf("container is on %+v, %v, want n2", c.Node, err)
	}
	for i, want := range []int{0, 1, 0} {
		if got := asked(f.daemons[i], "POST", "/images/create"); got != want {
			t.Errorf("n%d was told to pull %d times, want %d", i+1, got, want)
		}
	}
	f.must(200, "POST", "/images/create?fromImage=app&tag=1", nil)
	if got := asked(f.daemons[0], "POST", "/images/create"); got != 1 {
		t.Errorf("a pull of its own was told to n1 %d times, want 1", got)
	}
}

// An image that is there, but not as wanted, is the engine's 404, and the pull that follows is for its node alone, too.
func TestPullAfterTheEnginesOwn404(t *testing.T) {
	f := newFleet(t, 2, pullable("busybox"))
	f.daemons[1].FailNext("POST", "/containers/create", 404, "image with reference busybox was found but does not match the specified platform")
	if a := f.create("n2", "busybox"); a.status != 404 {
		t.Fatalf("create = %d %s, want 404", a.status, a.body)
	}
	f.must(200, "POST", "/images/create?fromImage=busybox&tag=latest&platform=linux/arm64", nil)
	if one, two := asked(f.daemons[0], "POST", "/images/create"), asked(f.daemons[1], "POST", "/images/create"); one != 0 || two != 1 {
		t.Errorf("n1 was told to pull %d times and n2 %d times, want 0 and 1", one, two)
	}
}

func TestPullIsNotExpectedForEver(t *testing.T) {
	f := newFleet(t, 1)
	now := time.Now()
	f.api.o.Now = func() time.Time { return now }
	r := &request{Request: httptest.NewRequest(http.MethodPost, "/", nil)}
	n := f.cluster.Snapshot().Nodes()[0]
	f.api.wantImage(r, n, "app")
	if got, ok := f.api.wantedNode(r, "docker.io/library/app:latest"); !ok || got.ID != n.ID {
		t.Errorf("wanted on %v, want n1", got)
	}
	other := &request{Request: httptest.NewRequest(http.MethodPost, "/", nil)}
	other.RemoteAddr = "192.0.2.99:1"
	if got, ok := f.api.wantedNode(other, "app"); ok {
		t.Errorf("another client's pull goes to %s", got.Name)
	}
	now = now.Add(wantedFor + time.Second)
	if got, ok := f.api.wantedNode(r, "app"); ok {
		t.Errorf("after %s still wanted on %s", wantedFor, got.Name)
	}
}

func TestRegistryCredentialsGoToTheEngineAndNowhereElse(t *testing.T) {
	got := registryHeaders(http.Header{
		"X-Registry-Auth": {"a"}, "X-Registry-Config": {"b"}, "X-Meta-Foo": {"c"}, "Authorization": {"secret"}, "Cookie": {"d"},
	})
	if len(got) != 3 || got.Get("X-Registry-Auth") != "a" || got.Get("X-Registry-Config") != "b" || got.Get("X-Meta-Foo") != "c" {
		t.Errorf("headers = %v", got)
	}
}

func TestPulledDigestIsPulledWhereItIsMissing(t *testing.T) {
	f := newFleet(t, 2, pullable("app:1"))
	if a := f.create("n1", "app:1"); a.status != 404 {
		t.Fatalf("create = %d %s, want 404", a.status, a.body)
	}
	f.must(200, "POST", "/images/create?fromImage=app:1", nil)
	rows := f.images(`{"reference":["app"]}`)
	if len(rows) != 1 || len(rows[0].RepoDigests) != 1 {
		t.Fatalf("rows = %v, want app with a digest", rows)
	}
	// The daemons know no pull by digest: the client is told to pull, and where it does is remembered.
	ref := rows[0].RepoDigests[0]
	a := f.create("n2", ref)
	if a.status != 404 || messageOf(a.body) != "No such image: "+ref {
		t.Errorf("create = %d %s, want 404", a.status, a.body)
	}
	r := &request{Request: httptest.NewRequest(http.MethodPost, "/", nil)}
	r.RemoteAddr = "127.0.0.1:1"
	if n, ok := f.api.wantedNode(r, ref); !ok || n.Name != "n2" {
		t.Errorf("wanted on %v, want n2", n)
	}
	if got := asked(f.daemons[1], "POST", "/images/create"); got != 1 {
		t.Errorf("n2 was told to pull %d times, want 1", got)
	}
}

func TestTagsAreSplitAndJoined(t *testing.T) {
	for _, c := range []struct{ repo, tag, ref string }{
		{"app", "1", "app:1"},
		{"registry:5000/team/app", "latest", "registry:5000/team/app:latest"},
	} {
		if got := joinTag(c.repo, c.tag); got != c.ref {
			t.Errorf("joinTag(%s, %s) = %s, want %s", c.repo, c.tag, got, c.ref)
		}
		if repo, tag := splitTag(c.ref); repo != c.repo || tag != c.tag {
			t.Errorf("splitTag(%s) = %s, %s", c.ref, repo, tag)
		}
	}
	if got := joinTag("app", "sha256:12"); got != "app@sha256:12" {
		t.Errorf("joinTag with a digest = %s", got)
	}
	if got := joinTag("app", ""); got != "app" {
		t.Errorf("joinTag without a tag = %s", got)
	}
}

func TestProgressSaysOnlyWhatIsNew(t *testing.T) {
	rec := httptest.NewRecorder()
	p := newProgress(rec)
	n := &fleet.Node{ID: "1", Name: "n1"}
	for range 5 {
		p.node(n, "Pulling app", message{Status: "Waiting", ID: "layer"})
	}
	p.node(n, "Pulling app", message{Stream: "no status"})
	p.node(n, "Pulling app", message{Status: "Done"})
	want := `{"status":"Pulling app... : Waiting","progressDetail":{},"id":"n1"}` + "\r\n" +
		`{"status":"Pulling app... : Done","progressDetail":{},"id":"n1"}` + "\r\n"
	if got := rec.Body.String(); got != want {
		t.Errorf("stream = %s, want %s", got, want)
	}
}
