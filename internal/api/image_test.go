package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// only gives images to single nodes.
func only(byNode map[string][]string) func(*dockertest.Options) {
	return func(o *dockertest.Options) { o.Images = append(o.Images, byNode[o.Name]...) }
}

// create makes a container on a node.
func (f *testFleet) create(node, image string) answer {
	f.t.Helper()
	return f.do("POST", "/v1.41/containers/create", map[string]any{"Image": image, "Env": []string{"constraint:node==" + node}})
}

// send makes a request whose body is no JSON. Headers come in pairs.
func (f *testFleet) send(method, path string, body io.Reader, headers ...string) answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.URL+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-tar")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := f.Client().Do(r)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{res.StatusCode, res.Header, b}
}

// asked counts a daemon's requests of a method whose paths start with prefix.
func asked(d *dockertest.Daemon, method, prefix string) (count int) {
	for _, r := range d.Requests() {
		if r.Method == method && strings.HasPrefix(r.Path, prefix) {
			count++
		}
	}
	return count
}

type listedImage struct {
	ID                    string `json:"Id"`
	RepoTags, RepoDigests []string
}

func (f *testFleet) images(filters string) []listedImage {
	f.t.Helper()
	var rows []listedImage
	f.must(200, "GET", "/v1.41/images/json?filters="+url.QueryEscape(filters), nil).decode(f.t, &rows)
	return rows
}

func tagsIn(rows []listedImage) string {
	var all []string
	for _, r := range rows {
		all = append(all, r.RepoTags...)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestListMergesNodes(t *testing.T) {
	f := newFleet(t, 3, only(map[string][]string{"n1": {"app:1"}, "n3": {"app:1", "registry:5000/team/db:2"}}))
	for filters, want := range map[string]string{
		``:                         "app:1 busybox:latest registry:5000/team/db:2",
		`{"reference":["app"]}`:    "app:1",
		`{"reference":["*:lat*"]}`: "busybox:latest",
		`{"reference":{"registry:5000/*/db":true}}`: "registry:5000/team/db:2",
		`{"node":["n1"]}`:                        "app:1 busybox:latest",
		`{"node":["n2","n3"],"reference":["*"]}`: "app:1 busybox:latest",
		`{"dangling":["true"]}`:                  "",
		`{"dangling":["false"],"node":["n2"]}`:   "busybox:latest",
		`{"label":["dockertest.image=app:1"]}`:   "app:1",
		`{"label":["dockertest.image=app"]}`:     "",
		`{"since":["app:1"]}`:                    "",
		`{"until":["2000-01-01"]}`:               "",
		`{"until":["1h"],"node":["n2"]}`:         "busybox:latest",
	} {
		if got := tagsIn(f.images(filters)); got != want {
			t.Errorf("images with filters %s = %q, want %q", filters, got, want)
		}
	}
}

func TestListRefusesAsEnginesDo(t *testing.T) {
	f := newFleet(t, 1)
	for filters, want := range map[string]struct {
		status  int
		message string
	}{
		`{"nope":["1"]}`:         {400, "invalid filter 'nope'"},
		`{"dangling":["x"]}`:     {400, "invalid filter 'dangling=[x]'"},
		`{"before":["nope"]}`:    {404, "No such image: nope:latest"},
		`{"reference":["[x"]}`:   {500, "syntax error in pattern"},
		`{"until":["tomorrow"]}`: {400, `invalid filter 'until=tomorrow': not a time: "tomorrow"`},
	} {
		a := f.do("GET", "/images/json?filters="+url.QueryEscape(filters), nil)
		if got := messageOf(a.body); a.status != want.status || got != want.message {
			t.Errorf("filters %s = %d %q, want %d %q", filters, a.status, got, want.status, want.message)
		}
	}
}

func messageOf(body []byte) string { return engineMessage(body) }

// Two builds of the same tag within one second: lists tell whole seconds, but before and since must not.
func TestListBoundsWithinOneSecond(t *testing.T) {
	f := newFleet(t, 2)
	for _, name := range []string{"c1", "c2", "c3"} {
		f.must(201, "POST", "/containers/create?name="+name, map[string]any{"Image": "busybox"})
		f.must(201, "POST", "/commit?container="+name+"&repo=made&tag="+name, nil)
	}
	if got := tagsIn(f.images(`{"since":["made:c1"]}`)); got != "made:c2 made:c3" {
		t.Errorf("since made:c1 = %q, want made:c2 made:c3", got)
	}
	if got := tagsIn(f.images(`{"before":["made:c2"]}`)); got != "busybox:latest made:c1" {
		t.Errorf("before made:c2 = %q, want busybox:latest made:c1", got)
	}
}

func TestImageOfAPeerIsCopiedOnce(t *testing.T) {
	f := newFleet(t, 3, only(map[string][]string{"n3": {"app:1"}}))
	want := f.daemons[2].Images()["app:1"]
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if a := f.create("n1", "app:1"); a.status != 201 {
				t.Errorf("create = %d %s, want 201", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if got := f.daemons[0].Images()["app:1"]; got != want {
		t.Errorf("app:1 on n1 = %q, want %q", got, want)
	}
	if got := asked(f.daemons[0], "POST", "/images/load"); got != 1 {
		t.Errorf("n1 was given %d archives, want 1", got)
	}
	if got, ok := f.daemons[1].Images()["app:1"]; ok {
		t.Errorf("app:1 on n2 = %q, want none", got)
	}
	if a := f.create("n2", want); a.status != 201 {
		t.Errorf("create by ID = %d %s, want 201", a.status, a.body)
	}
}

func TestCopyTriesAnotherHolder(t *testing.T) {
	f := newFleet(t, 3, only(map[string][]string{"n2": {"app:1"}, "n3": {"app:1"}}))
	f.daemons[1].FailNext("GET", "/images/sha256:", 500, "disk on fire")
	if a := f.create("n1", "app:1"); a.status != 201 {
		t.Errorf("create = %d %s, want 201", a.status, a.body)
	}
}

func TestFailedCopyNamesBothNodes(t *testing.T) {
	f := newFleet(t, 2, only(map[string][]string{"n2": {"app:1"}}))
	f.daemons[1].FailNext("GET", "/images/sha256:", 500, "disk on fire")
	a := f.create("n1", "app:1")
	if want := "copy image app:1 from node n2 to node n1: disk on fire"; a.status != 503 || messageOf(a.body) != want {
		t.Errorf("create = %d %s, want 503 %s", a.status, a.body, want)
	}
	f.daemons[0].FailNext("POST", "/images/load", 500, "no space left on device")
	a = f.create("n1", "app:1")
	if want := "copy image app:1 from node n2: load on node n1: no space left on device"; messageOf(a.body) != want {
		t.Errorf("create = %d %s, want %s", a.status, a.body, want)
	}
	if a := f.create("n1", "app:1"); a.status != 201 {
		t.Errorf("create after the failures = %d %s, want 201", a.status, a.body)
	}
}

// A tag that was moved on one node, by someone who uses the engine itself, has its new meaning on all.
func TestLastWriterWins(t *testing.T) {
	f := newFleet(t, 3, only(map[string][]string{"n1": {"old:1", "new:1"}, "n2": {"old:1"}, "n3": {"old:1"}}))
	f.must(201, "POST", "/images/old:1/tag?repo=app&tag=x", nil)
	oldID, newID := f.daemons[0].Images()["old:1"], f.daemons[0].Images()["new:1"]
	if status, b := f.daemons[0].Do("POST", "/images/new:1/tag?repo=app&tag=x", nil); status != 201 {
		t.Fatalf("tag on n1 = %d %s", status, b)
	}
	f.await("n1's app:x is new", func(s *fleet.Snapshot) bool {
		n, _ := s.NodeByName("n1")
		i, ok := n.FindImage("app:x")
		return ok && i.ID == newID
	})
	rows := f.images(`{"reference":["app"]}`)
	if len(rows) != 1 || rows[0].ID != newID {
		t.Errorf("list = %v, want app:x to be %s", rows, newID)
	}
	var i struct{ ID string }
	f.must(200, "GET", "/images/app:x/json", nil).decode(t, &i)
	if i.ID != newID {
		t.Errorf("inspect = %s, want %s", i.ID, newID)
	}
	if a := f.create("n3", "app:x"); a.status != 201 {
		t.Fatalf("create = %d %s", a.status, a.body)
	}
	if got := f.daemons[2].Images()["app:x"]; got != newID {
		t.Errorf("app:x on n3 = %s, want %s", got, newID)
	}
	f.must(201, "POST", "/images/old:1/tag?repo=app&tag=x", nil)
	for i, d := range f.daemons {
		if got := d.Images()["app:x"]; got != oldID {
			t.Errorf("app:x on n%d after it was moved back = %s, want %s", i+1, got, oldID)
		}
	}
}

// What went through this manager counts even where the engines' events do not tell, as when they were too many.
func TestOwnWriteCountsWithoutAnEvent(t *testing.T) {
	f := newFleet(t, 2, only(map[string][]string{"n1": {"old:1", "new:1"}, "n2": {"old:1", "new:1"}}))
	for i, ref := range []string{"old:1", "new:1"} {
		d := f.daemons[i]
		if status, b := d.Do("POST", "/images/"+ref+"/tag?repo=app&tag=x", nil); status != 201 {
			t.Fatalf("tag = %d %s", status, b)
		}
	}
	f.await("both tags are seen", func(s *fleet.Snapshot) bool { found, _ := s.Images("app:x"); return len(found) == 2 })
	for i, ref := range []string{"old:1", "new:1", "old:1"} {
		n, _ := f.cluster.Snapshot().NodeByName(f.daemons[i%2].Name())
		f.api.imageWritten(n, "docker.io/library/app:x")
		img, err := f.api.findImage(t.Context(), "app:x")
		if want := f.daemons[0].Images()[ref]; err != nil || img.id != want || img.first().ID != n.ID {
			t.Errorf("app:x written on %s = %+v, %v, want %s", n.Name, img, err, want)
		}
	}
}

// Engines that store images in another way give a copy an ID of their own. It is the same image all the same.
func TestCopyWithAnotherIDIsTheSameImage(t *testing.T) {
	f := newFleet(t, 2, only(map[string][]string{"n1": {"app:x"}, "n2": {"as-stored-here:1"}}))
	if status, b := f.daemons[1].Do("POST", "/images/as-stored-here:1/tag?repo=app&tag=x", nil); status != 201 {
		t.Fatalf("tag = %d %s", status, b)
	}
	f.await("both tags are seen", func(s *fleet.Snapshot) bool { found, _ := s.Images("app:x"); return len(found) == 2 })
	n1, _ := f.cluster.Snapshot().NodeByName("n1")
	n2, _ := f.cluster.Snapshot().NodeByName("n2")
	f.api.imageWritten(n1, "app:x")
	id := f.daemons[0].Images()["app:x"]
	if img, err := f.api.findImage(t.Context(), "app:x"); err != nil || img.id != id || img.on(n2.ID) {
		t.Errorf("before the copy app:x = %+v, %v, want it on n1 alone", img, err)
	}
	f.api.images.alias(n2.ID, id, f.daemons[1].Images()["app:x"])
	for _, ref := range []string{"app:x", id} {
		img, err := f.api.findImage(t.Context(), ref)
		if err != nil || img.id != id || !img.on(n1.ID) || !img.on(n2.ID) {
			t.Errorf("after the copy %s = %+v, %v, want it on both", ref, img, err)
		}
	}
}

func TestUnreachableHolderIsNamed(t *testing.T) {
	f := newFleet(t, 2, only(map[string][]string{"n2": {"app:1"}}))
	f.daemons[1].Refuse()
	f.await("n2 is unhealthy", func(s *fleet.Snapshot) bool {
		n, _ := s.NodeByName("n2")
		return n.State == fleet.Unhealthy
	})
	a := f.do("GET", "/images/app:1/json", nil)
	if a.status != 503 || !strings.HasPrefix(messageOf(a.body), "image app:1 is on node n2, which is unreachable: ") {
		t.Errorf("inspect = %d %s, want 503 and the node", a.status, a.body)
	}
	a = f.must(200, "GET", "/images/json", nil)
	if got := a.header.Get("X-Berth-Partial"); got != "n2" {
		t.Errorf("X-Berth-Partial = %q, want n2", got)
	}
	// It can be pulled, so a create must lead to that.
	if a := f.create("n1", "app:1"); a.status != 404 || messageOf(a.body) != "No such image: app:1" {
		t.Errorf("create = %d %s, want 404", a.status, a.body)
	}
}

func TestUnknownImagesGetTheEnginesWords(t *testing.T) {
	f := newFleet(t, 2)
	for _, c := range []struct{ method, path string }{
		{"GET", "/images/nope/json"},
		{"GET", "/images/some/where/nope:1/json"},
		{"GET", "/images/nope/history"},
		{"GET", "/images/nope/get"},
		{"GET", "/images/get?names=nope"},
		{"DELETE", "/images/nope"},
		{"POST", "/images/nope/tag?repo=a&tag=b"},
	} {
		status, want := f.daemons[0].Do(c.method, c.path, nil)
		a := f.do(c.method, "/v1.41"+c.path, nil)
		if a.status != status || strings.TrimSpace(string(a.body)) != strings.TrimSpace(string(want)) {
			t.Errorf("%s %s = %d %s, want %d %s", c.method, c.path, a.status, a.body, status, want)
		}
	}
}

func TestRemoveTakesTheImageFromEveryNode(t *testing.T) {
	f := newFleet(t, 3, only(map[string][]string{"n1": {"app:1"}, "n2": {"app:1"}, "n3": {"app:1"}}))
	id := f.daemons[0].Images()["app:1"]
	var lines []map[string]string
	f.must(200, "DELETE", "/images/app:1", nil).decode(t, &lines)
	if len(lines) < 2 || lines[0]["Untagged"] != "app:1" || lines[len(lines)-1]["Deleted"] == "" {
		t.Errorf("answer = %v, want app:1 untagged and %s deleted", lines, id)
	}
	seen := map[string]bool{}
	for _, l := range lines {
		key := fmt.Sprint(l)
		if seen[key] {
			t.Errorf("answer tells %s twice", key)
		}
		seen[key] = true
	}
	for i, d := range f.daemons {
		if got := d.Images(); len(got) != 1 {
			t.Errorf("images on n%d = %v, want busybox alone", i+1, got)
		}
	}
	if got := tagsIn(f.images("")); got != "busybox:latest" {
		t.Errorf("list at once after = %q, want busybox:latest", got)
	}
}

func TestRemoveOfAUsedImageLeavesAllAsItWas(t *testing.T) {
	f := newFleet(t, 3, only(map[string][]string{"n1": {"app:1"}, "n2": {"app:1"}, "n3": {"app:1"}}))
	if a := f.create("n3", "app:1"); a.status != 201 {
		t.Fatalf("create = %d %s", a.status, a.body)
	}
	a := f.do("DELETE", "/images/app:1", nil)
	if a.status != 409 || !strings.HasPrefix(messageOf(a.body), "conflict: unable to remove repository reference") {
		t.Errorf("remove = %d %s, want the engine's 409", a.status, a.body)
	}
	for i, d := range f.daemons {
		if _, ok := d.Images()["app:1"]; !ok {
			t.Errorf("app:1 is gone from n%d", i+1)
		}
	}
}

func TestPruneTellsAnImageOnce(t *testing.T) {
	f := newFleet(t, 2, only(map[string][]string{"n1": {"app:1"}, "n2": {"app:1"}}))
	var a struct {
		ImagesDeleted  []map[string]string
		SpaceReclaimed int64
	}
	f.must(200, "POST", "/images/prune?filters="+url.QueryEscape(`{"dangling":["false"]}`), nil).decode(t, &a)
	untagged := 0
	for _, l := range a.ImagesDeleted {
		if l["Untagged"] == "app:1" {
			untagged++
		}
	}
	if untagged != 1 {
		t.Errorf("answer = %v, want app:1 untagged once", a.ImagesDeleted)
	}
	if got := f.images(""); len(got) != 0 {
		t.Errorf("list after = %v, want none", got)
	}
}

func TestSaveGathersOnOneNode(t *testing.T) {
	f := newFleet(t, 2, only(map[string][]string{"n1": {"a:1"}, "n2": {"b:1"}}))
	tar := f.must(200, "GET", "/images/get?names=a:1&names=b:1", nil)
	g := newFleet(t, 1)
	if a := g.send("POST", "/images/load", bytes.NewReader(tar.body)); a.status != 200 {
		t.Fatalf("load = %d %s", a.status, a.body)
	}
	if got := tagsIn(g.images("")); got != "a:1 b:1 busybox:latest" {
		t.Errorf("images after loading what was saved = %q, want a:1 b:1 busybox:latest", got)
	}
}

func TestInspectShowsTheNamesOfAllNodes(t *testing.T) {
	f := newFleet(t, 2, only(map[string][]string{"n1": {"app:1"}, "n2": {"app:1"}}))
	if status, b := f.daemons[1].Do("POST", "/images/app:1/tag?repo=app&tag=2", nil); status != 201 {
		t.Fatalf("tag on n2 = %d %s", status, b)
	}
	f.await("app:2 is seen", func(s *fleet.Snapshot) bool { found, _ := s.Images("app:2"); return len(found) == 1 })
	var i struct {
		ID       string `json:"Id"`
		RepoTags []string
	}
	for range 20 {
		f.must(200, "GET", "/images/app:1/json", nil).decode(t, &i)
		if !slices.Equal(i.RepoTags, []string{"app:1", "app:2"}) {
			t.Fatalf("RepoTags = %v, want app:1 app:2", i.RepoTags)
		}
	}
}

func TestCommitIsUsableEverywhere(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/containers/create?name=web", map[string]any{"Image": "busybox", "Env": []string{"constraint:node==n1"}})
	var made struct {
		ID string `json:"Id"`
	}
	f.must(201, "POST", "/commit?container=web&repo=made", nil).decode(t, &made)
	if a := f.create("n2", "made"); a.status != 201 {
		t.Errorf("create on the other node = %d %s, want 201", a.status, a.body)
	}
	if got := f.daemons[1].Images()["made:latest"]; got != made.ID {
		t.Errorf("made:latest on n2 = %s, want %s", got, made.ID)
	}
}

func TestRowsKeepWhatWeDoNotKnow(t *testing.T) {
	row := imageRow{
		first: &fleet.Image{ID: "sha256:1", Row: json.RawMessage(`{"Id":"sha256:1","Size":12345678901234567890,"Future":{"x":[1]},"RepoTags":null}`)},
		tags:  []string{"app:1"},
	}
	for version, want := range map[string]string{
		"1.41": `{"Id":"sha256:1","Size":12345678901234567890,"Future":{"x":[1]},"RepoTags":["app:1"],"RepoDigests":null,"VirtualSize":12345678901234567890}`,
		"1.51": `{"Id":"sha256:1","Size":12345678901234567890,"Future":{"x":[1]},"RepoTags":["app:1"],"RepoDigests":[]}`,
	} {
		got, err := row.encode(version)
		if err != nil || string(got) != want {
			t.Errorf("row for API %s = %s, %v, want %s", version, got, err, want)
		}
	}
	row.tags = nil
	if got, err := row.encode("1.41"); err != nil || !strings.Contains(string(got), `"RepoTags":["<none>:<none>"]`) {
		t.Errorf("row without names = %s, %v, want the placeholder of old engines", got, err)
	}
}

func TestWhatNoImageCanBeCalledIsInvalid(t *testing.T) {
	f := newFleet(t, 1)
	for ref, want := range map[string]string{
		"Upper":                    "invalid reference format: repository name (library/Upper) must be lowercase",
		"a//b":                     "invalid reference format",
		strings.Repeat("x", 300):   "repository name must not be more than 255 characters",
		strings.Repeat("x", 1<<20): "invalid reference format: 1048576 characters are more than a reference can have",
	} {
		f.fails("POST", "/containers/create", map[string]any{"Image": ref}, 400, want)
	}
}

func TestImageThatNoEventToldOfIsFound(t *testing.T) {
	f := newFleet(t, 3)
	f.daemons[1].AddImage("quiet:1")
	f.daemons[2].AddImage("quiet:2")
	if a := f.create("n1", "quiet:1"); a.status != 201 {
		t.Errorf("create = %d %s, want 201", a.status, a.body)
	}
	f.must(200, "GET", "/images/quiet:2/json", nil)
	f.fails("GET", "/images/quiet:3/json", nil, 404, "no such image: quiet:3: No such image: quiet:3")
}
