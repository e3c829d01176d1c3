package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// FuzzCreate has bodies of creates translated for nodes of all ages: what comes out is JSON, and of the fields that the
// translation has nothing to do with all are as they were.
func FuzzCreate(f *testing.F) {
	for _, body := range []string{
		`{"Image":"i","MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"a"}}`,
		`{"NetworkingConfig":{"EndpointsConfig":{"a":{"MacAddress":"x"},"A":null,"b":{"GwPriority":1}}}}`,
		`{"HostConfig":{"PublishAllPorts":true,"PortBindings":{"80/tcp":[{"HostPort":""},{"HostIp":"::1"}],"81":null}},"ExposedPorts":{"90":{}}}`,
		`{"Healthcheck":{"StartInterval":1},"hostconfig":{"annotations":{"a":"b"}},"Env":["constraint:a==b"]}`,
		`{"HostConfig":null,"NetworkingConfig":{"EndpointsConfig":{"":{}}},"Unknown":1e400}`,
	} {
		f.Add([]byte(body), true, "1.41")
		f.Add([]byte(body), false, "1.52")
	}
	f.Fuzz(func(t *testing.T, body []byte, newer bool, node string) {
		n := &fleet.Node{Name: "n", API: node}
		if !newer {
			n.MinAPI = node
		}
		r := httptest.NewRequest(http.MethodPost, "/containers/create", bytes.NewReader(body))
		c, err := parseCreation(&request{Request: r, version: "1.51"})
		if err != nil {
			return
		}
		o, err := rawjson.Parse(c.body.Bytes())
		if err != nil {
			t.Fatalf("what was parsed once is %v", err)
		}
		c.needs() // must not panic
		if c.translated, err = c.translate(o, n); err != nil {
			return
		}
		if c.openings, err = c.findOpenings(nil); err == nil && c.fillOpenings(o) != nil {
			return // a null among the bindings
		}
		if !json.Valid(o.Bytes()) {
			t.Fatalf("%s became %s", body, o.Bytes())
		}
		for _, key := range c.body.Keys() {
			switch strings.ToLower(key) {
			case "macaddress", "networkingconfig", "hostconfig":
			default:
				if !bytes.Equal(o.Get(key), c.body.Get(key)) {
					t.Errorf("%s: %s became %s", key, c.body.Get(key), o.Get(key))
				}
			}
		}
	})
}

// FuzzReference looks references up: nothing panics, and a familiar name is its own familiar name.
func FuzzReference(f *testing.F) {
	for _, ref := range []string{
		"busybox", "busybox:1", "localhost:5000/a/b:tag@sha256:" + strings.Repeat("a", 64), "n1/web", "sha256:ab", "docker.io/library/x", "/", ":", "@", "a:b:c", "A",
	} {
		f.Add(ref)
	}
	n := &fleet.Node{
		ID: "1", Name: "n1", State: fleet.Healthy,
		Containers: []*fleet.Container{{ID: strings.Repeat("ab", 32), Name: "web"}},
		Images:     []*fleet.Image{{ID: "sha256:" + strings.Repeat("ab", 32), RepoTags: []string{"busybox:latest", "localhost:5000/a/b:tag"}}},
	}
	snap := new(fleet.Snapshot).Replace(n.Seal())
	f.Fuzz(func(t *testing.T, ref string) {
		tag, digest := fleet.FamiliarRef(ref)
		for _, known := range []string{tag, digest} {
			if known == "" {
				continue
			}
			if again, d := fleet.FamiliarRef(known); again != known && d != known {
				t.Errorf("%q is %q, which is %q or %q", ref, known, again, d)
			}
		}
		if c, err := snap.Container(ref); err == nil && c.Container == nil {
			t.Errorf("%q gives a container that is none", ref)
		}
		if found, err := snap.Images(ref); err == nil && len(found) == 0 {
			t.Errorf("%q gives images that are none", ref)
		}
		bareContainer(snap, ref, ":")
		bareNetwork(snap, bareSource(snap, ref))
	})
}

// FuzzPass takes versions off paths: what is left is a path, and the version one that nodes can be asked with.
func FuzzPass(f *testing.F) {
	for _, path := range []string{"/", "", "/v1.41", "/v1.41/info", "/v1..41/x", "/v1.41.0/x", "/v01.041/x", "/vx", "//v1.41/a", "/v1.99999999999/x"} {
		f.Add(path)
	}
	snap := apiFleet("1.41", "1.56")
	f.Fuzz(func(t *testing.T, path string) {
		g := gate{max: "1.51"}
		version, rest, err := g.pass(path, snap)
		switch {
		case err != nil:
		case rest != path && !strings.HasPrefix(rest, "/"):
			t.Errorf("%q leaves %q", path, rest)
		case fleet.CompareVersions(version, minAPI) < 0 || fleet.CompareVersions(version, "1.51") > 0:
			t.Errorf("%q passes with %q", path, version)
		}
	})
}

// FuzzQuery reads what stands in queries.
func FuzzQuery(f *testing.F) {
	f.Add("since=1.5&until=2024-01-01T00:00:00Z&buildargs={\"constraint:a\":\"=b\"}")
	f.Add(`since=-1&until=0&buildargs={"affinity:x":null,"y":"z"}&platform={}`)
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		if win, err := eventWindow(q); err == nil && win.ends && win.until < win.since {
			t.Errorf("%q is a window that ends before it begins", query)
		}
		if _, found, err := takeRules(q); found && err == nil && !json.Valid([]byte(q.Get("buildargs"))) {
			t.Errorf("%q leaves build arguments %q", query, q.Get("buildargs"))
		}
	})
}
