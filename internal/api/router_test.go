package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMatch(t *testing.T) {
	r := newRouter(routes())
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/containers/json", "/containers/json"},
		{"GET", "/containers/json/", "/containers/json"},
		{"GET", "/networks/", "/networks"},
		{"GET", "//info", "/info"},
		{"GET", "/containers/json/json", "/containers/{id}/json id=json"},
		{"POST", "/containers/create/start", "/containers/{id}/start id=create"},
		{"GET", "/containers/n1/web/json", "/containers/{id}/json id=n1/web"},
		{"DELETE", "/containers/n1/web", "/containers/{id} id=n1/web"},
		{"DELETE", "/containers/web/checkpoints/c1", "/containers/{id}/checkpoints/{checkpoint} checkpoint=c1 id=web"},
		{"GET", "/containers/web/attach/ws", "/containers/{id}/attach/ws id=web"},
		{"GET", "/images/json", "/images/json"},
		{"GET", "/images/get", "/images/get"},
		{"GET", "/images/localhost:5000/a/b:1/json", "/images/{name}/json name=localhost:5000/a/b:1"},
		{"GET", "/images/get/json", "/images/{name}/json name=get"},
		{"GET", "/images/a/json/json", "/images/{name}/json name=a/json"},
		{"DELETE", "/images/prune", "/images/{name} name=prune"},
		{"GET", "/plugins/privileges", "/plugins/privileges"},
		{"GET", "/plugins/vieux/sshfs:latest/json", "/plugins/{name}/json name=vieux/sshfs:latest"},
		{"GET", "/services/web/logs", "/services/{id}/logs id=web"},
		{"GET", "/volumes/n1/data", "/volumes/{id} id=n1/data"},
		{"HEAD", "/_ping", "/_ping"},

		{"GET", "/", ""},
		{"GET", "", ""},
		{"GET", "/containers", ""},
		{"GET", "/containers//json", ""},
		{"POST", "/containers/json", ""},
		{"HEAD", "/info", ""},
		{"GET", "/containers/ps", ""},
		{"POST", "/containers/web", ""},
		{"GET", "/infox", ""},
		{"get", "/info", ""},
	} {
		got := ""
		if rt, vars := r.match(tt.method, tt.path); rt != nil {
			got = rt.pattern
			for _, k := range slices.Sorted(maps.Keys(vars)) {
				got += " " + k + "=" + vars[k]
			}
		}
		if got != tt.want {
			t.Errorf("match(%s %s) = %q, want %q", tt.method, tt.path, got, tt.want)
		}
	}
}

// TestMatchGivesBackWhatWasPutIn fills patterns and expects the same pattern and the same words.
func TestMatchGivesBackWhatWasPutIn(t *testing.T) {
	table := routes()
	r := newRouter(table)
	rapid.Check(t, func(t *rapid.T) {
		rt := rapid.SampledFrom(table).Draw(t, "route")
		parts := split(rt.pattern)
		want := map[string]string{}
		for i := 1; i < len(parts); i += 2 {
			// A word of its own that no pattern has, or a node and such a word.
			v := rapid.StringMatching(`(n[0-9]/)?x[a-z0-9_.-]{0,9}`).Draw(t, parts[i])
			want[parts[i]], parts[i] = v, v
		}
		got, vars := r.match(rt.method, strings.Join(parts, ""))
		if got == nil || got.pattern != rt.pattern || fmt.Sprint(vars) != fmt.Sprint(want) && len(want) > 0 {
			t.Fatalf("match(%s %s) = %+v %v, want %s %v", rt.method, strings.Join(parts, ""), got, vars, rt.pattern, want)
		}
	})
}

func FuzzMatch(f *testing.F) {
	for _, rt := range routes() {
		f.Add(rt.method, sample(rt.pattern))
	}
	f.Add("GET", "/containers/%2F/json/")
	r := newRouter(routes())
	f.Fuzz(func(t *testing.T, method, path string) {
		rt, vars := r.match(method, path)
		if rt == nil {
			return
		}
		for name, v := range vars {
			if v == "" {
				t.Errorf("match(%s %q) = %s with an empty %s", method, path, rt.pattern, name)
			}
		}
	})
}

func TestEscapedSlashesAreSlashes(t *testing.T) {
	f := newFleet(t, 2)
	var created struct{ Id string } //nolint:revive,staticcheck // the API's name
	f.must(201, "POST", "/containers/create?name=n2%2Fweb", map[string]any{"Image": "busybox"}).decode(t, &created)
	var seen struct {
		Id   string //nolint:revive,staticcheck // the API's name
		Node struct{ Name string }
	}
	for _, path := range []string{"/containers/n2%2Fweb/json", "/containers/n2/web/json", "/containers/web/json/", "/containers/" + created.Id[:5] + "/json"} {
		if f.must(200, "GET", path, nil).decode(t, &seen); seen.Id != created.Id || seen.Node.Name != "n2" {
			t.Errorf("GET %s shows %s on %s, want %s on n2", path, seen.Id, seen.Node.Name, created.Id)
		}
	}
}
