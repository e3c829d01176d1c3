package api

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"berth/internal/dockertest"
	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// creationOf parses a create as it would come in from a client of an API version.
func creationOf(t *testing.T, version, body string) *creation {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/containers/create", strings.NewReader(body))
	c, err := parseCreation(&request{Request: r, version: version})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTranslate(t *testing.T) {
	for name, tt := range map[string]struct{ client, node, body, want, later, warnings string }{
		"nothing for a node of the client's version": {
			"1.51", "1.51", `{"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}},"HostConfig":{"Annotations":{"x":"y"}}}`, "same", "", "",
		},
		"nothing that a client of the old version could not have meant": {
			"1.41", "1.30", `{"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}},"HostConfig":{"Annotations":{"x":"y"}}}`, "same", "", "",
		},
		"the network of the mode stays, the others come later": {
			"1.51", "1.41", `{"HostConfig":{"NetworkMode":"b"},"NetworkingConfig":{"EndpointsConfig":{"a":{"Aliases":["x"]},"b":{"New":1},"c":null}}}`,
			`{"HostConfig":{"NetworkMode":"b"},"NetworkingConfig":{"EndpointsConfig":{"b":{"New":1}}}}`, `a={"Aliases":["x"]} c=null`, "",
		},
		"networks that differ in case are two": {
			"1.51", "1.41", `{"HostConfig":{"NetworkMode":"web"},"NetworkingConfig":{"EndpointsConfig":{"Web":{},"web":{"New":1}}}}`,
			`{"HostConfig":{"NetworkMode":"web"},"NetworkingConfig":{"EndpointsConfig":{"web":{"New":1}}}}`, `Web={}`, "",
		},
		"of networks that the mode does not name the first stays": {
			"1.51", "1.41", `{"NetworkingConfig":{"EndpointsConfig":{"b":{},"a":{}}}}`,
			`{"NetworkingConfig":{"EndpointsConfig":{"a":{}}}}`, `b={}`, "",
		},
		"bridge is the default": {
			"1.51", "1.41", `{"HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"a":{},"bridge":{}}}}`,
			`{"HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"bridge":{}}}}`, `a={}`, "",
		},
		"the MAC address goes to where old engines look": {
			"1.51", "1.43", `{"Image":"i","NetworkingConfig":{"EndpointsConfig":{"a":{"MacAddress":"02:00:00:00:00:01"}}}}`,
			`{"Image":"i","NetworkingConfig":{"EndpointsConfig":{"a":{"MacAddress":"02:00:00:00:00:01"}}},"MacAddress":"02:00:00:00:00:01"}`, "", "",
		},
		"and an empty one nowhere": {
			"1.51", "1.43", `{"NetworkingConfig":{"EndpointsConfig":{"a":{"MacAddress":""}}}}`, "same", "", "",
		},
		"the MAC address leaves the place where new engines refuse it": {
			"1.41", "1.56", `{"MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"a"}}`,
			`{"HostConfig":{"NetworkMode":"a"},"NetworkingConfig":{"EndpointsConfig":{"a":{"MacAddress":"02:00:00:00:00:01"}}}}`, "", "",
		},
		"what is lost is told": {
			"1.51", "1.41", `{"Healthcheck":{"StartInterval":5},"HostConfig":{"Annotations":{"x":"y"},"ConsoleSize":[1,2]}}`, "same", "",
			"Annotations came with API v1.43 and had no effect: node old speaks v1.41\n" +
				"The start interval of the health check came with API v1.44 and had no effect: node old speaks v1.41",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := &fleet.Node{Name: "old", API: tt.node}
			if fleet.CompareVersions(tt.node, tt.client) > 0 {
				n.MinAPI = tt.node
			}
			o, err := rawjson.Parse([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := creationOf(t, tt.client, tt.body).translate(o, n)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want == "same" {
				want = tt.body
			}
			if string(o.Bytes()) != want {
				t.Errorf("body\n%s, want\n%s", o.Bytes(), want)
			}
			var later []string
			for _, l := range got.later {
				later = append(later, l.name+"="+string(l.endpoint))
			}
			if s := strings.Join(later, " "); s != tt.later {
				t.Errorf("later %s, want %s", s, tt.later)
			}
			if s := strings.Join(got.warnings, "\n"); s != tt.warnings {
				t.Errorf("warnings %q, want %q", s, tt.warnings)
			}
		})
	}
}

func TestCreateNeeds(t *testing.T) {
	for body, want := range map[string]string{
		`{"HostConfig":{}}`: "",
		`{"HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"x"}}]}}`:                                 "1.45 volume-subpath",
		`{"HostConfig":{"Mounts":[{"Type":"image"},{"Type":"volume","VolumeOptions":{"Subpath":"x"}}]}}`:                "1.48 a mount of type image",
		`{"HostConfig":{"Mounts":[{"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}}]}}`:                     "1.44 bind-recursive=readonly",
		`{"HostConfig":{"Mounts":[{"Type":"bind","BindOptions":{"CreateMountpoint":true}}]}}`:                           "1.42 bind-create-mountpoint",
		`{"HostConfig":{"Mounts":[{"Type":"tmpfs","TmpfsOptions":{"Options":[["noexec"]]}}]}}`:                          "1.46 a tmpfs option",
		`{"HostConfig":{"DeviceRequests":[{"Driver":"cdi"}]}}`:                                                          "1.44 a CDI device",
		`{"HostConfig":{"DeviceRequests":[{"Driver":"nvidia"}]}}`:                                                       "",
		`{"NetworkingConfig":{"EndpointsConfig":{"a":{"GwPriority":-1}}}}`:                                              "1.48 gw-priority",
		`{"NetworkingConfig":{"EndpointsConfig":{"a":{"DriverOpts":{"com.docker.network.endpoint.ifname":"x"}}}}}`:      "1.49 the name of an interface",
		`{"NetworkingConfig":{"EndpointsConfig":{"a":{"MacAddress":"02:00:00:00:00:01"},"b":{}}}}`:                      "",
		`{"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{"MacAddress":"02:00:00:00:00:01"}}}}`:                      "1.44 a MAC address on a second network",
		`{"HostConfig":{"NetworkMode":"b"},"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{"MacAddress":"02::1"}}}}`: "",
	} {
		needs := creationOf(t, "1.51", body).needs()
		got := ""
		if n, any := newest(needs, "1.51"); any {
			got = n.api + " " + n.what
		}
		if got != want {
			t.Errorf("%s needs %q, want %q", body, got, want)
		}
		if n, any := newest(needs, "1.41"); any {
			t.Errorf("a client of 1.41 needs %s for %s", n.api, body)
		}
	}
}

// mixedFleet has an engine of API 1.41, n1, and one of 1.51, n2.
func mixedFleet(t *testing.T) *testFleet {
	t.Helper()
	return newFleet(t, 2, func(o *dockertest.Options) {
		if o.Name == "n2" {
			o.APIVersion, o.ServerVersion = "1.51", "28.3.0"
		}
	})
}

func TestSeveralNetworksOnAnOldEngine(t *testing.T) {
	f := mixedFleet(t)
	for _, name := range []string{"a", "b", "c"} {
		f.must(201, "POST", "/networks/create", map[string]any{"Name": "n1/" + name})
	}
	body := map[string]any{
		"Image": "busybox", "HostConfig": map[string]any{"NetworkMode": "b"},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{"a": map[string]any{"Aliases": []string{"db"}}, "b": map[string]any{}, "c": map[string]any{}}},
	}
	f.must(201, "POST", "/v1.51/containers/create?name=three", body)
	c, err := f.cluster.Snapshot().Container("three")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Container.Networks) != 3 {
		t.Errorf("the answer came before the picture showed three networks: %v", c.Container.Networks)
	}
	var seen struct {
		NetworkSettings struct {
			Networks map[string]struct{ Aliases []string }
		}
	}
	f.must(200, "GET", "/v1.51/containers/three/json", nil).decode(t, &seen)
	if got := seen.NetworkSettings.Networks; len(got) != 3 || !slices.Contains(got["a"].Aliases, "db") {
		t.Errorf("networks %v, want a (alias db), b and c", got)
	}
	f.daemons[0].FailNext("POST", "/networks/c/connect", 404, "network c not found")
	f.fails("POST", "/v1.51/containers/create?name=half", body, 400, "connect to network c: network c not found")
	if _, ok := f.daemons[0].Find("half"); ok {
		t.Error("the container that could not be connected is still there")
	}
	f.fails("GET", "/containers/half/json", nil, 404, "No such container: half")
	f.must(201, "POST", "/v1.51/containers/create?name=half", body)
	// A client of 1.41 hears what an engine says.
	f.fails("POST", "/v1.41/containers/create", body, 400, "Container cannot be connected to network endpoints: a, b, c")
}

func TestWhatAnOldEngineLeavesOutIsToldInTheAnswer(t *testing.T) {
	f := mixedFleet(t)
	body := map[string]any{"Image": "busybox", "HostConfig": map[string]any{"Annotations": map[string]string{"x": "y"}}}
	warnings := func(name string) string {
		t.Helper()
		var made struct{ Warnings []string }
		f.must(201, "POST", "/v1.51/containers/create?name="+name, body).decode(t, &made)
		return strings.Join(made.Warnings, "\n")
	}
	if got, want := warnings("n1/old"), "Annotations came with API v1.43 and had no effect: node n1 speaks v1.41"; got != want {
		t.Errorf("on n1 warnings %q, want %q", got, want)
	}
	if got := warnings("n2/new"); got != "" {
		t.Errorf("on n2 warnings %q", got)
	}
}

func TestWhatNeedsANewerEngineGoesThere(t *testing.T) {
	f := mixedFleet(t)
	image := map[string]any{"Image": "busybox", "HostConfig": map[string]any{"Mounts": []any{map[string]string{"Type": "image", "Source": "busybox", "Target": "/x"}}}}
	for range 3 {
		if at := f.must(201, "POST", "/v1.51/containers/create", image).header.Get("X-Berth-Node"); at != "n2" {
			t.Fatalf("an image mount went to %s", at)
		}
	}
	f.fails("POST", "/v1.51/containers/create?name=n1/xx", image, 503,
		"no node fits xx: 1 of 2 is not where node n1 is (n1), 1 lacks API 1.48 (for a mount of type image)\nNo nodes available in the cluster")
	six := map[string]any{"Name": "six", "EnableIPv4": false, "EnableIPv6": true}
	if at := f.must(201, "POST", "/v1.51/networks/create", six).header.Get("X-Berth-Node"); at != "n2" {
		t.Errorf("a network without IPv4 went to %s", at)
	}
	f.fails("POST", "/v1.51/networks/create", map[string]any{"Name": "n1/six6", "EnableIPv4": false}, 503,
		"no node fits network six6: 1 of 2 is not where node n1 is (n1), 1 lacks API 1.48 (for a network without IPv4)\nNo nodes available in the cluster")
	f.must(201, "POST", "/containers/create?name=n1/cc", map[string]any{"Image": "busybox"})
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n1/net"})
	f.fails("POST", "/v1.51/networks/net/connect", map[string]any{"Container": "cc", "EndpointConfig": map[string]any{"GwPriority": 2}}, 400,
		"gw-priority needs API v1.48 or newer; node n1 speaks v1.41")
	f.fails("POST", "/v1.51/containers/cc/stop?signal=INT", nil, 400, "a signal for stop needs API v1.42 or newer; node n1 speaks v1.41")
}

func TestWhatNoEngineCanDoIsRefused(t *testing.T) {
	f := newFleet(t, 2)
	f.fails("POST", "/v1.48/containers/create", map[string]any{"Image": "busybox", "HostConfig": map[string]any{"Mounts": []any{map[string]string{"Type": "image"}}}}, 400,
		"a mount of type image needs API v1.48 or newer on a node; the newest of the fleet speaks v1.41")
}

func TestAMoveOfANetworkKeepsToEnginesThatCanHaveIt(t *testing.T) {
	f := mixedFleet(t)
	f.must(201, "POST", "/v1.51/networks/create", map[string]any{"Name": "six", "EnableIPv4": false})
	f.fails("POST", "/v1.51/containers/create?name=xx", map[string]any{
		"Image": "busybox", "Env": []string{"constraint:node==n1"}, "HostConfig": map[string]any{"NetworkMode": "six"},
	}, 503, "no node fits xx: 1 of 2 lacks constraint node==n1, 1 lacks API 1.48 (for a network without IPv4)\n"+
		"Unable to find a node that satisfies the following conditions \n[available container slots]\n[node==n1]")
}

func TestPlatformOfImagesOnOldEngines(t *testing.T) {
	f := mixedFleet(t)
	amd, arm := url.QueryEscape(`{"os":"linux","architecture":"amd64"}`), url.QueryEscape(`{"os":"linux","architecture":"arm64"}`)
	f.must(200, "GET", "/v1.49/images/busybox/json?platform="+amd, nil)
	f.fails("GET", "/v1.49/images/busybox/json?platform="+arm, nil, 404,
		"image with reference busybox was found but does not provide the specified platform (linux/arm64)")
	if at := f.must(200, "GET", "/v1.48/images/busybox/history?platform="+amd, nil).header.Get("X-Berth-Node"); at != "n2" {
		t.Errorf("history of a platform came from %s, want n2", at)
	}
	if at := f.must(200, "GET", "/v1.48/images/get?names=busybox&platform="+amd, nil).header.Get("X-Berth-Node"); at != "n2" {
		t.Errorf("images of a platform came from %s, want n2", at)
	}
	f.daemons[0].ResetRequests()
	f.do("POST", "/v1.48/images/load?platform="+amd, nil)
	for _, r := range f.daemons[0].Requests() {
		if strings.Contains(r.Path, "/images/load") {
			t.Errorf("an engine that would load all platforms was sent %s", r.Path)
		}
	}
}

func TestRequireTakesTheHighest(t *testing.T) {
	f := mixedFleet(t)
	req := &schedule.Request{}
	for _, n := range []need{{"1.44", "this"}, {"1.48", "that"}, {"1.45", "other"}} {
		if err := f.api.require(req, "1.51", []need{n}); err != nil {
			t.Fatal(err)
		}
	}
	if req.NeedAPI != "1.48" || req.NeedWhat != "that" {
		t.Errorf("needs %s for %s, want 1.48 for that", req.NeedAPI, req.NeedWhat)
	}
}
