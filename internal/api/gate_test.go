package api

import (
	"fmt"
	"slices"
	"testing"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

func apiFleet(versions ...string) *fleet.Snapshot {
	s := new(fleet.Snapshot)
	for i, v := range versions {
		s = s.Replace(&fleet.Node{ID: string(rune('a' + i)), Name: string(rune('a' + i)), API: v, Version: map[string]string{"1.41": "20.10.24+dfsg1", "1.56": "29.7.2"}[v]})
	}
	return s
}

func TestGateAdvertisesTheNewestEngineVersionAndNeverLess(t *testing.T) {
	g := gate{max: "1.51"}
	for _, step := range []struct {
		engines []string
		want    string
	}{
		{nil, "1.51"},
		{[]string{"1.41"}, "1.41"},
		{[]string{"1.41", "1.47"}, "1.47"},
		{[]string{"1.47", "1.56", ""}, "1.51"}, // no newer than verified
		{[]string{"1.41"}, "1.51"},             // clients keep what they negotiated
		{nil, "1.51"},
	} {
		s := apiFleet(step.engines...)
		if got := g.advertised(s); got != step.want {
			t.Errorf("with engines %v: advertised %s, want %s", step.engines, got, step.want)
		}
	}
}

func TestGateTakesTheVersionOffAPath(t *testing.T) {
	s := apiFleet("1.41")
	for path, want := range map[string]string{
		"/info":                     "1.41 /info",
		"/v1.24/info":               "1.24 /info",
		"/v1.41/containers/v1/json": "1.41 /containers/v1/json",
		"/v1.41":                    "1.41 /",
		"/v1.50/info":               "1.50 /info", // verified, if newer than every engine
		"/version":                  "1.41 /version",
		"/vx/info":                  "1.41 /vx/info",
		"/v1.52/info":               "client version 1.52 is too new. Maximum supported API version is 1.41",
		"/v99999999999999999999/a":  "client version 99999999999999999999 is too new. Maximum supported API version is 1.41",
		"/v1.23/info":               "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
		"/v1/info":                  "client version 1 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
	} {
		g := gate{max: "1.51"}
		version, rest, err := g.pass(path, s)
		got := version + " " + rest
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("pass(%s) = %s, want %s", path, got, want)
		}
	}
}

// What every request asks must not depend on how many nodes there are.
func BenchmarkGate(b *testing.B) {
	for _, nodes := range []int{1, 1000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			s := new(fleet.Snapshot)
			for i := range nodes {
				s = s.Replace(&fleet.Node{ID: fmt.Sprint(i), Name: fmt.Sprint(i), API: "1.41", Version: "20.10.24+dfsg1"})
			}
			n, _ := s.Node("0")
			g := gate{max: "1.51"}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := g.pass("/v1.41/containers/json", s); err != nil || lowestVersion(s) == "" {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if next := s.Replace(n); next.Versions() != s.Versions() {
				b.Error("a publication changed the versions")
			}
		})
	}
}

func TestLowestVersion(t *testing.T) {
	for want, s := range map[string]*fleet.Snapshot{
		"20.10.0": apiFleet(), "20.10.24": apiFleet("1.56", "1.41"), "29.7.2": apiFleet("1.56", ""),
	} {
		if got := lowestVersion(s); got != want {
			t.Errorf("lowest version = %s, want %s", got, want)
		}
	}
}

func TestVersionsOnTheWire(t *testing.T) {
	f := newFleet(t, 1, func(o *dockertest.Options) { o.APIVersion = "1.44" })
	a := f.do("GET", "/v1.20/info", nil)
	if a.status != 400 || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("a client that is too old gets %d %s", a.status, a.header.Get("Content-Type"))
	}
	f.fails("GET", "/v9.9/info", nil, 400, "client version 9.9 is too new. Maximum supported API version is 1.44")
	f.fails("GET", "/v1.41/nope", nil, 404, "page not found")
	f.fails("PATCH", "/v1.41/info", nil, 404, "page not found")
	for _, path := range []string{"/v1.24/info", "/v1.44/info", "/v1.51/info"} {
		if a := f.must(200, "GET", path, nil); a.header.Get("Api-Version") != "1.44" {
			t.Errorf("GET %s is answered in version %s, want 1.44", path, a.header.Get("Api-Version"))
		}
	}
	if a := f.do("OPTIONS", "/v1.41/whatever", nil); a.status != 200 || len(a.body) != 0 {
		t.Errorf("OPTIONS = %d %s, want an empty 200", a.status, a.body)
	}
}

// The quick way to cut a version off is that of the expression.
func TestVersionsAreCutAlike(t *testing.T) {
	for _, path := range []string{"/v1.41/info", "/v1.41", "/v1.41/", "/v1/x", "/v.1/x", "/v1./x", "/v1..2/x", "/volumes/v1.2", "/v1.41x/info", "/v", "/v/", "/v1.41\n/x", "/v12.3/a/b\nc"} {
		got, want := cutVersion(path), versioned.FindStringSubmatch(path)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}
