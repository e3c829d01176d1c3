package move

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// engines reaches one daemon for any node.
type engines struct{ d *dockertest.Daemon }

func (e engines) Do(ctx context.Context, _ string, r *http.Request) (*http.Response, error) {
	r = r.WithContext(ctx)
	r.URL.Scheme, r.URL.Host = "http", e.d.HostPort()
	return http.DefaultTransport.RoundTrip(r)
}

const inspection = `{
 "Id": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "Name": "/web", "Image": "sha256:1", "Node": {"Name": "lost"},
 "State": {"Status": "running", "Running": true},
 "Config": {"Image": "busybox", "Hostname": "0123456789ab", "Cmd": ["sleep", "1000"], "Env": ["A=b"], "Future": {"kept": 12345678901234567890},
  "Labels": {"com.docker.swarm.id": "swarm-1", "app": "shop", "berth.moved": "{\"From\":\"x\"}"}},
 "HostConfig": {"NetworkMode": "front", "Memory": 67108864, "Links": ["/db:/web/sql"], "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}},
 "NetworkSettings": {"Networks": {
  "front": {"NetworkID": "n1", "Aliases": ["www", "0123456789ab"], "IPAMConfig": {"IPv4Address": "10.9.0.7"}, "IPAddress": "10.9.0.7", "MacAddress": "02:42:0a:09:00:07"},
  "back": {"NetworkID": "n2", "Aliases": null, "IPAMConfig": null, "IPAddress": "10.8.0.3"}}}
}`

func TestTheBodyOfARecreation(t *testing.T) {
	for name, tt := range map[string]struct{ replace, with, want string }{
		"the container as it was asked for": {want: `{
 "Image": "busybox", "Cmd": ["sleep", "1000"], "Env": ["A=b"], "Future": {"kept": 12345678901234567890},
 "Labels": {"com.docker.swarm.id": "swarm-1", "app": "shop", "berth.moved": "new"},
 "HostConfig": {"NetworkMode": "front", "Memory": 67108864, "Links": ["db:sql"], "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}},
 "NetworkingConfig": {"EndpointsConfig": {"front": {"IPAMConfig": {"IPv4Address": "10.9.0.7"}, "Aliases": ["www"]}}}}`},
		"a host name that somebody chose": {replace: `"Hostname": "0123456789ab"`, with: `"Hostname": "www1"`, want: `{
 "Image": "busybox", "Hostname": "www1", "Cmd": ["sleep", "1000"], "Env": ["A=b"], "Future": {"kept": 12345678901234567890},
 "Labels": {"com.docker.swarm.id": "swarm-1", "app": "shop", "berth.moved": "new"},
 "HostConfig": {"NetworkMode": "front", "Memory": 67108864, "Links": ["db:sql"], "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}},
 "NetworkingConfig": {"EndpointsConfig": {"front": {"IPAMConfig": {"IPv4Address": "10.9.0.7"}, "Aliases": ["www"]}}}}`},
		"on the node's network": {replace: `"NetworkMode": "front"`, with: `"NetworkMode": "host"`, want: `{
 "Image": "busybox", "Cmd": ["sleep", "1000"], "Env": ["A=b"], "Future": {"kept": 12345678901234567890},
 "Labels": {"com.docker.swarm.id": "swarm-1", "app": "shop", "berth.moved": "new"},
 "HostConfig": {"NetworkMode": "host", "Memory": 67108864, "Links": ["db:sql"], "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parse([]byte(strings.Replace(inspection, tt.replace, tt.with, 1)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.body(Recreation{Labels: map[string]string{fleet.LabelMoved: "new"}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(compact(t, tt.want), compact(t, string(got))); diff != "" {
				t.Error(diff)
			}
			if !strings.Contains(string(got), "12345678901234567890") {
				t.Error("a large number lost digits")
			}
		})
	}
}

func compact(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func TestRecreate(t *testing.T) {
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections() //nolint:forcetypeassert // it is one
	d := dockertest.New(t, dockertest.Options{Images: []string{"busybox"}})
	n := &fleet.Node{Name: "n1", API: "1.41", MinAPI: "1.24"}
	for _, name := range []string{"front", "back"} {
		d.Do("POST", "/networks/create", map[string]any{"Name": name})
	}
	d.AddContainer(dockertest.Container{Name: "db"})
	id, err := Recreate(t.Context(), engines{d}, []byte(inspection), n, Recreation{API: "1.51"})
	if err != nil {
		t.Fatal(err)
	}
	c, ok := d.Find("web")
	if !ok || c.ID != id || c.State != "created" || c.Labels["com.docker.swarm.id"] != "swarm-1" || c.Labels[fleet.LabelMoved] != "" || c.Memory != 64<<20 {
		t.Errorf("made %+v", c)
	}
	_, b := d.Do("GET", "/containers/web/json", nil)
	var is struct {
		NetworkSettings struct {
			Networks map[string]struct{ Aliases []string }
		}
	}
	if err := json.Unmarshal(b, &is); err != nil || len(is.NetworkSettings.Networks) != 2 {
		t.Errorf("%v, networks %+v", err, is.NetworkSettings.Networks)
	}

	// What cannot be completed is taken back.
	d.FailNext("POST", "/networks/back/connect", 500, "no address left")
	_, err = Recreate(t.Context(), engines{d}, []byte(inspection), n, Recreation{Name: "again", API: "1.51"})
	if err == nil || !strings.Contains(err.Error(), "connect to network back: node n1: POST /networks/back/connect: no address left") {
		t.Errorf("got %v", err)
	}
	if c, ok := d.Find("again"); ok {
		t.Errorf("left behind: %+v", c)
	}
	if _, err := Recreate(t.Context(), engines{d}, []byte("{}"), n, Recreation{}); err == nil {
		t.Error("an inspection of nothing made something")
	}
}

func TestDigestsTellWhatDiffers(t *testing.T) {
	one, other := newDigest(), newDigest()
	one.entries["/a"], one.entries["/b"] = [32]byte{1}, [32]byte{2}
	other.entries["/a"] = [32]byte{1}
	for _, tt := range []struct {
		add  string
		sum  byte
		want string
	}{{"", 0, "/b is missing"}, {"/b", 3, "/b is not the same"}, {"/b", 2, ""}, {"/c", 1, "/c was not there before"}} {
		if tt.add != "" {
			other.entries[tt.add] = [32]byte{tt.sum}
		}
		if got := one.compare(other); got != tt.want {
			t.Errorf("with %s %d: %q, want %q", tt.add, tt.sum, got, tt.want)
		}
	}
}

func TestOneWhosePlaceWasTakenIsNotRestored(t *testing.T) {
	mark := &fleet.Rescue{From: []string{"old"}}
	node := func(c *fleet.Container) []*fleet.Node { return []*fleet.Node{{Containers: []*fleet.Container{c}}} }
	if !rescued(node(&fleet.Container{ID: "new", Name: "web", Rescued: mark}), "old") {
		t.Error("it was taken")
	}
	if rescued(node(&fleet.Container{ID: "new", Name: fleet.RescuingName("old"), Rescued: mark}), "old") {
		t.Error("it is not taken yet")
	}
	if rescued(node(&fleet.Container{ID: "new", Name: "web", Rescued: mark}), "other") {
		t.Error("that of another was taken")
	}
}

// What Swarm mode chose is chosen anew elsewhere, and what was asked for is asked for again.
func TestAddressesInNetworksAcrossHosts(t *testing.T) {
	const id = "ui890rwy2svy0qdo6m4giu58a"
	inspected := func(at string) []byte {
		return []byte(`{"Id":"c0ffee","Name":"/web","Config":{"Image":"busybox"},"HostConfig":{"NetworkMode":"net"},"NetworkSettings":{"Networks":{"net":` + at + `}}}`)
	}
	for at, want := range map[string]string{
		`{"NetworkID":"` + id + `","IPAMConfig":{"IPv4Address":"10.1.0.9"},"Aliases":["db"]}`:                       `{"net":{"Aliases":["db"]}} []`,
		`{"NetworkID":"` + id + `","IPAMConfig":{"IPv4Address":"10.1.0.9"},"DriverOpts":{"berth.address":"fixed"}}`: `{"net":{"IPAMConfig":{"IPv4Address":"10.1.0.9"},"DriverOpts":{"berth.address":"fixed"}}} [net]`,
		`{"NetworkID":"` + strings.Repeat("f", 64) + `","IPAMConfig":{"IPv4Address":"10.1.0.9"}}`:                   `{"net":{"IPAMConfig":{"IPv4Address":"10.1.0.9"}}} []`,
	} {
		body, err := Body(inspected(at))
		if err != nil {
			t.Fatal(err)
		}
		var made struct {
			NetworkingConfig struct{ EndpointsConfig json.RawMessage }
		}
		if err := json.Unmarshal(body, &made); err != nil {
			t.Fatal(err)
		}
		fixed, err := FixedAddresses(inspected(at))
		if got := fmt.Sprint(string(made.NetworkingConfig.EndpointsConfig), " ", fixed); got != want || err != nil {
			t.Errorf("of %s: %s, %v, want %s", at, got, err, want)
		}
	}
}
