package dockertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// story is the remembered events as type action name.
func story(d *Daemon) []string {
	var out []string
	for _, e := range d.Events() {
		name := e.Actor.Attributes["name"]
		if e.Type == "volume" {
			name = e.Actor.ID
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Type, e.Action, name)))
	}
	return out
}

func TestEveryChangeTellsTheEnginesStory(t *testing.T) {
	d := New(t, Options{Images: []string{"busybox"}})
	for _, r := range []struct {
		status       int
		method, path string
		body         string
	}{
		{201, "POST", "/containers/create?name=web", `{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"Binds":["data:/data"]}}`},
		{204, "POST", "/containers/web/start", ""},
		{204, "POST", "/containers/web/pause", ""},
		{204, "POST", "/containers/web/stop?t=5", ""},
		{204, "POST", "/containers/web/start", ""},
		{204, "POST", "/containers/web/restart?t=0", ""},
		{204, "POST", "/containers/web/rename?name=app", ""},
		{200, "POST", "/containers/app/update", `{"Memory":33554432}`},
		{204, "DELETE", "/containers/app?force=1&v=1", ""},
		{204, "DELETE", "/volumes/data", ""},
	} {
		mustDo(t, d, r.status, r.method, r.path, []byte(r.body))
	}
	want := []string{
		"volume create data", "container create web",
		"network connect bridge", "volume mount data", "container start web",
		"container pause web",
		"container kill web", "container unpause web", "container die web", "network disconnect bridge", "volume unmount data", "container stop web",
		"network connect bridge", "volume mount data", "container start web",
		"container kill web", "container kill web", "container die web", "network disconnect bridge", "volume unmount data", "container stop web",
		"network connect bridge", "volume mount data", "container start web", "container restart web",
		"container rename app", "container update app",
		"container kill app", "container die app", "network disconnect bridge", "volume unmount data", "container destroy app",
		"volume destroy data",
	}
	if diff := cmp.Diff(want, story(d)); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
	last := int64(0)
	for _, e := range d.Events() {
		if e.TimeNano <= last {
			t.Errorf("timeNano %d does not follow %d", e.TimeNano, last)
		}
		last = e.TimeNano
	}
}

func TestRingHolds256(t *testing.T) {
	d := New(t, Options{})
	for i := range 300 {
		d.Emit("daemon", "reload", fmt.Sprint(i), nil)
	}
	got := d.Events()
	if len(got) != 256 || got[0].Actor.ID != "44" || got[255].Actor.ID != "299" {
		t.Errorf("%d events, from %s to %s; want 256 from 44 to 299", len(got), got[0].Actor.ID, got[len(got)-1].Actor.ID)
	}
}

// replayed asks /events with a query that ends by itself and returns the lines.
func replayed(t *testing.T, d *Daemon, query string) []string {
	t.Helper()
	answer := mustDo(t, d, 200, "GET", "/events?"+query, nil)
	return strings.Split(strings.TrimSpace(string(answer)), "\n")
}

func TestReplayBetweenSinceAndUntil(t *testing.T) {
	d := New(t, Options{})
	for _, id := range []string{"a", "b", "c"} {
		d.Emit("daemon", "reload", id, nil)
	}
	at := func(i int) string {
		n := d.Events()[i].TimeNano
		return fmt.Sprintf("%d.%09d", n/1e9, n%1e9)
	}
	for name, tt := range map[string]struct{ query, want string }{
		"both ends belong to it":          {"since=" + at(1) + "&until=" + at(2), "b c"},
		"until alone replays all":         {"until=" + at(1), "a b"},
		"since 0 is everything":           {"since=0&until=" + at(2), "a b c"},
		"nothing is left after the query": {"since=" + at(2) + "&until=" + at(2) + "&filters=" + url.QueryEscape(`{"daemon":["x"]}`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var ids []string
			for _, line := range replayed(t, d, tt.query) {
				var e Event
				if line != "" {
					if err := json.Unmarshal([]byte(line), &e); err != nil {
						t.Fatal(err)
					}
					ids = append(ids, e.Actor.ID)
				}
			}
			if got := strings.Join(ids, " "); got != tt.want {
				t.Errorf("%s = %q, want %q", tt.query, got, tt.want)
			}
		})
	}
}

func TestEventFilters(t *testing.T) {
	d := New(t, Options{})
	id := d.AddContainer(Container{Name: "web", Labels: map[string]string{"tier": "front"}})
	d.SetHealth("web", "healthy")
	last := d.Events()[3].TimeNano
	until := fmt.Sprintf("%d.%09d", last/1e9, last%1e9)
	for name, tt := range map[string]struct {
		filter string
		want   int
	}{
		"type":              {`{"type":["network"]}`, 1},
		"type, other form":  {`{"type":{"network":true}}`, 1},
		"event":             {`{"event":["create"]}`, 1},
		"prefix of health":  {`{"event":["health_status"]}`, 1},
		"container by name": {`{"container":["web"]}`, 3},
		"container by ID":   {`{"container":["` + id[:6] + `"]}`, 3},
		"label":             {`{"label":["tier=front"]}`, 3},
		"other label":       {`{"label":["tier=back"]}`, 0},
		"image":             {`{"image":["app"]}`, 3},
		"two types":         {`{"type":["network","container"]}`, 4},
		"both":              {`{"type":["network"],"event":["create"]}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			for _, line := range replayed(t, d, "since=0&until="+until+"&filters="+url.QueryEscape(tt.filter)) {
				if line != "" {
					n++
				}
			}
			if n != tt.want {
				t.Errorf("%s matches %d events, want %d", tt.filter, n, tt.want)
			}
		})
	}
}

func TestHeadComesAfterTheSubscription(t *testing.T) {
	d := New(t, Options{})
	c := httpClient(t, d)
	for i := range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon/v1.41/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		// The head is here: nothing that happens from now on may be missed.
		d.Emit("daemon", "reload", fmt.Sprint(i), nil)
		line, err := bufio.NewReader(resp.Body).ReadBytes('\n')
		if err != nil || !bytes.Contains(line, fmt.Appendf(nil, `"ID":"%d"`, i)) {
			t.Errorf("first line = %s, %v; want event %d", line, err, i)
		}
		cancel()
		resp.Body.Close()
	}
	eventually(t, "streams of gone clients end", func() bool { return d.EventStreams() == 0 })
}

func TestBreakEventsEndsStreams(t *testing.T) {
	d := New(t, Options{})
	resp, err := httpClient(t, d).Get("http://daemon/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d.Emit("daemon", "reload", "x", nil)
	d.BreakEvents()
	var got bytes.Buffer
	if _, err := got.ReadFrom(resp.Body); err != nil || !strings.Contains(got.String(), `"ID":"x"`) {
		t.Errorf("stream = %q, %v; want one event and a clean end", got.String(), err)
	}
}

func TestLegacyFieldsEndWithAPI152(t *testing.T) {
	d := New(t, Options{APIVersion: "1.52", MinAPIVersion: "1.24"})
	d.AddContainer(Container{Name: "web"})
	until := "&until=" + fmt.Sprint(d.Events()[0].Time+1)
	for version, want := range map[string]bool{"/v1.51": true, "/v1.52": false, "": false} {
		answer := mustDo(t, d, 200, "GET", version+"/events?since=0"+until, nil)
		if got := bytes.Contains(answer, []byte(`"status":"create"`)); got != want {
			t.Errorf("%s: legacy fields %v, want %v: %s", version, got, want, answer)
		}
	}
}
