package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

func (f *testFleet) volume(name string, labels ...string) {
	f.t.Helper()
	f.must(201, "POST", "/volumes/create", map[string]any{"Name": name, "Labels": labelMap(labels)})
}

// volumesAt is "a@n1 b@n2": the volumes of a list and their nodes, by name.
func (f *testFleet) volumesAt(filter string) string {
	f.t.Helper()
	var list struct {
		Volumes []struct {
			Name   string
			Labels map[string]string
		}
	}
	f.must(200, "GET", "/volumes?filters="+url.QueryEscape(filter), nil).decode(f.t, &list)
	var at []string
	for _, v := range list.Volumes {
		at = append(at, v.Name+"@"+v.Labels[fleet.LabelNode])
	}
	return strings.Join(at, " ")
}

func mounting(volume string, env ...string) map[string]any {
	return map[string]any{"Env": env, "HostConfig": map[string]any{"Binds": []string{volume + ":/data"}}}
}

func TestVolumeFilters(t *testing.T) {
	f := newFleet(t, 2)
	f.volume("n1/logs", "tier=a")
	f.volume("n2/data", "tier=b")
	f.run("c1", mounting("logs"))
	for filter, want := range map[string]string{
		``:                             "data@n2 logs@n1",
		`{"name":["og"]}`:              "logs@n1",
		`{"label":["tier=b"]}`:         "data@n2",
		`{"label":["berth.node=n1"]}`:  "logs@n1",
		`{"label!":{"tier=b":true}}`:   "logs@n1",
		`{"driver":["local"]}`:         "data@n2 logs@n1",
		`{"driver":["nfs"]}`:           "",
		`{"node":["n2"]}`:              "data@n2",
		`{"dangling":["true"]}`:        "data@n2",
		`{"dangling":{"false":true}}`:  "logs@n1",
		`{"name":["a"],"node":["n1"]}`: "",
	} {
		if got := f.volumesAt(filter); got != want {
			t.Errorf("%s gives %q, want %q", filter, got, want)
		}
	}
	f.fails("GET", "/volumes?filters="+url.QueryEscape(`{"dangling":["x"]}`), nil, 400, "invalid filter 'dangling=[x]'")
}

func TestVolumeErrorsAreTheEngines(t *testing.T) {
	f := newFleet(t, 2)
	f.fails("GET", "/volumes/nope", nil, 404, "get nope: no such volume")
	f.fails("DELETE", "/volumes/nope", nil, 404, "get nope: no such volume")
	f.must(204, "DELETE", "/volumes/nope?force=1", nil)
	f.fails("POST", "/volumes/create", nil, 400, "got EOF while reading request body")
	f.fails("POST", "/volumes/create", map[string]any{"Name": "a"}, 400,
		"create a: volume name is too short, names should be at least two alphanumeric characters")
	f.fails("POST", "/volumes/create", map[string]any{"Name": strings.Repeat("x", 256)}, 400, "the name of a volume can have 255 characters, not 256")
	f.fails("PUT", "/v1.41/volumes/x1", map[string]any{}, 503, notManager)
	f.fails("POST", "/volumes/create", map[string]any{"Name": "x1", "ClusterVolumeSpec": map[string]any{}}, 503, notManager)
}

func TestCreateOfAnExistingVolumeReturnsIt(t *testing.T) {
	f := newFleet(t, 3)
	f.volume("n2/data", "first=1")
	var v struct{ Labels map[string]string }
	a := f.must(201, "POST", "/volumes/create", map[string]any{"Name": "data", "Labels": map[string]string{"second": "1"}})
	a.decode(t, &v)
	if v.Labels["first"] != "1" || a.header.Get("X-Berth-Node") != "n2" || f.volumesAt("") != "data@n2" {
		t.Errorf("%s from %s, list %s; want the one on n2", a.body, a.header.Get("X-Berth-Node"), f.volumesAt(""))
	}
	if got := f.run("c1", mounting("data")); got != "n2" {
		t.Errorf("its container is on %s", got)
	}
	f.must(204, "DELETE", "/containers/c1", nil)
	if a := f.do("GET", "/volumes/data", nil); !strings.Contains(string(a.body), `"Node":{`) || strings.Contains(string(a.body), fleet.LabelNode) {
		t.Errorf("inspect = %s, want Node and no label", a.body)
	}
	f.must(204, "DELETE", "/volumes/data", nil)
	if got := f.volumesAt(""); got != "" {
		t.Errorf("left: %s", got)
	}
}

func TestVolumeOfOneNameOnTwoNodes(t *testing.T) {
	f := newFleet(t, 3)
	f.volume("n1/data")
	f.volume("n3/data")
	if got := f.volumesAt(""); got != "n1/data@n1 n3/data@n3" {
		t.Errorf("list = %s", got)
	}
	f.fails("GET", "/volumes/data", nil, 400, "volume data is ambiguous: n1/data, n3/data")
	f.fails("DELETE", "/volumes/data", nil, 400, "volume data is ambiguous: n1/data, n3/data")
	for i := range 4 {
		if got := f.run(fmt.Sprintf("c%d", i), mounting("data")); got != "n1" && got != "n3" {
			t.Errorf("a container that mounts it is on %s", got)
		}
	}
	if got := f.run("q1", mounting("n3/data")); got != "n3" {
		t.Errorf("a container that mounts n3/data is on %s", got)
	}
	mount := map[string]any{"Type": "volume", "Source": "n1/data", "Target": "/data"}
	if got := f.run("q2", map[string]any{"HostConfig": map[string]any{"Mounts": []any{mount}}}); got != "n1" {
		t.Errorf("a container that mounts n1/data is on %s", got)
	}
	f.cluster.Settle(t.Context(), fleet.KindContainer)
	if c, err := f.cluster.Snapshot().Container("q2"); err != nil || c.Container.Mounts[0].Name != "data" {
		t.Errorf("q2 mounts %v, %v", c.Container.Mounts, err)
	}
	if got := f.run("q3", mounting("n2/fresh")); got != "n2" || !strings.Contains(f.volumesAt(""), "fresh@n2") {
		t.Errorf("a container that has n2/fresh made is on %s; volumes %s", got, f.volumesAt(""))
	}
	a := f.do("DELETE", "/volumes/n3/data", nil)
	if a.status != 409 || !strings.Contains(string(a.body), "volume is in use") {
		t.Errorf("removal of a used volume = %d %s", a.status, a.body)
	}
}

func TestVolumesOfALostNodeAreNamed(t *testing.T) {
	f := newFleet(t, 2)
	f.volume("n2/data")
	f.daemons[1].Refuse()
	f.await("n2 is lost", func(s *fleet.Snapshot) bool { n, _ := s.NodeByName("n2"); return n.State != fleet.Healthy })
	var list struct{ Warnings []string }
	a := f.must(200, "GET", "/volumes", nil)
	a.decode(t, &list)
	if len(list.Warnings) != 1 || !strings.HasPrefix(list.Warnings[0], "node n2 is unreachable: ") || f.volumesAt("") != "data@n2" {
		t.Errorf("list = %s", a.body)
	}
	if a := f.do("POST", "/volumes/create", map[string]any{"Name": "data"}); a.status != 503 || !strings.Contains(string(a.body), "n2") {
		t.Errorf("create = %d %s, want 503 naming n2", a.status, a.body)
	}
	if got := f.run("c1", mounting("data")); !strings.HasPrefix(got, "503 no node fits c1: ") {
		t.Errorf("a container that mounts it: %s", got)
	}
}

func TestConcurrentCreatesShareAVolumeThatNobodyMade(t *testing.T) {
	f := newFleet(t, 3)
	nodes := make(chan string, 12)
	for i := range cap(nodes) {
		go func() { nodes <- f.run(fmt.Sprintf("c%d", i), mounting("data")) }()
	}
	seen := map[string]int{}
	for range cap(nodes) {
		seen[<-nodes]++
	}
	if len(seen) != 1 {
		t.Errorf("containers with one volume are on %v", seen)
	}
}

// pruned runs a prune and gives the names that went, and what is left.
func (f *testFleet) pruned(path string) (gone []string, left string) {
	f.t.Helper()
	var answer struct{ VolumesDeleted []string }
	f.must(200, "POST", path, nil).decode(f.t, &answer)
	slices.Sort(answer.VolumesDeleted)
	return answer.VolumesDeleted, f.volumesAt("")
}

func TestPruneMeansTheSameOnOldAndNewEngines(t *testing.T) {
	versions := map[string]string{"n1": "1.41", "n2": "1.44"}
	all := url.QueryEscape(`{"all":["true"]}`)
	for name, tt := range map[string]struct {
		path string
		gone int
		left string
	}{
		"an old client prunes all":           {"/v1.41/volumes/prune", 4, ""},
		"a new client prunes the nameless":   {"/v1.44/volumes/prune", 2, "named1@n1 named2@n2"},
		"a new client that says so all":      {"/v1.44/volumes/prune?filters=" + all, 4, ""},
		"labels select among the nameless":   {"/v1.44/volumes/prune?filters=" + url.QueryEscape(`{"label":["x=1"]}`), 0, "4"},
		"labels select among all by refusal": {"/v1.41/volumes/prune?filters=" + url.QueryEscape(`{"label!":["x=1"]}`), 2, "named1@n1 named2@n2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 2, func(o *dockertest.Options) { o.APIVersion = versions[o.Name] })
			for i, node := range []string{"n1", "n2"} {
				f.volume(fmt.Sprintf("%s/named%d", node, i+1), "x=1")
				f.volume(node + "/")
			}
			gone, left := f.pruned(tt.path)
			if tt.left == "4" {
				left = fmt.Sprint(len(strings.Fields(left)))
			}
			if len(gone) != tt.gone || left != tt.left {
				t.Errorf("gone %v, left %s; want %d gone and left %s", gone, left, tt.gone, tt.left)
			}
		})
	}
}
