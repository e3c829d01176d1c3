package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// row is a container with a row of the list to be cut.
func row(c fleet.Container) *fleet.Container {
	c.Head = fmt.Appendf(nil, `{"Id":%q,"Names":["/%s"],"State":%q,"Status":`, c.ID, c.Name, c.State)
	c.Tail = []byte(`,"Future":12345678901234567890}`)
	return &c
}

var listedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// listed is a fleet for lists: a runs on n1 with all that filters look at, b runs on n1, c has exited there, d is new on n2;
// e ran on n3, which is lost.
func listed() *fleet.Snapshot {
	a := row(fleet.Container{
		ID: "aa" + strings.Repeat("0", 62), Name: "web", Aliases: []string{"proxy/back"}, State: "running", Created: 5e9, Health: "healthy",
		StartedAt: listedAt.Add(-5 * time.Minute), Labels: fleet.LabelsOf(map[string]string{"tier": "front", "com.docker.swarm.task": ""}),
		Networks:  []fleet.Attachment{{Name: "net", NetworkID: "feed" + strings.Repeat("0", 60)}},
		Mounts:    []fleet.Mount{{Type: "volume", Name: "data", Destination: "/data"}, {Type: "bind", Source: "/srv", Destination: "/srv2"}},
		Published: []fleet.Port{{Proto: "tcp", HostPort: 8080, Port: 80}, {Proto: "udp", HostPort: 53, Port: 53}},
		Exposed:   []fleet.Port{{Proto: "tcp", Port: 80}, {Proto: "tcp", Port: 443}},
	})
	b := row(fleet.Container{ID: "ab" + strings.Repeat("0", 62), Name: "db", State: "paused", Created: 4e9, StartedAt: listedAt.Add(-2 * time.Hour), Labels: fleet.LabelsOf(map[string]string{"tier": "back"})})
	c := row(fleet.Container{ID: "cc" + strings.Repeat("0", 62), Name: "job-1", State: "exited", ExitCode: 3, Created: 3e9, FinishedAt: listedAt.Add(-time.Hour),
		Exposed: []fleet.Port{{Proto: "tcp", Port: 443}}})
	d := row(fleet.Container{ID: "dd" + strings.Repeat("0", 62), Name: "job-2", State: "created", Status: "Created", Created: 6e9})
	e := row(fleet.Container{ID: "ee" + strings.Repeat("0", 62), Name: "far", State: "running", Created: 2e9, StartedAt: listedAt.Add(-time.Hour)})
	return new(fleet.Snapshot).
		Replace(&fleet.Node{ID: "E1|x", EngineID: "E1", Name: "n1", State: fleet.Healthy, Containers: []*fleet.Container{a, b, c}}).
		Replace(&fleet.Node{ID: "E2|y", EngineID: "E2", Name: "n2", State: fleet.Healthy, Containers: []*fleet.Container{d}}).
		Replace(&fleet.Node{ID: "E3|z", EngineID: "E3", Name: "n3", State: fleet.Unhealthy, Error: "refused", Containers: []*fleet.Container{e}})
}

// names asks for a list and gives the names of its rows.
func (f *testFleet) names(query string) string {
	f.t.Helper()
	a := f.do("GET", "/containers/json?"+query, nil)
	var rows []struct {
		Names   []string
		Message string
	}
	if a.status != 200 {
		return fmt.Sprintf("%d %s", a.status, engineMessage(a.body))
	}
	a.decode(f.t, &rows)
	var names []string
	for _, r := range rows {
		names = append(names, strings.TrimPrefix(r.Names[0], "/"))
	}
	return strings.Join(names, " ")
}

func TestListFilters(t *testing.T) {
	f := showOnly(t, listed())
	for _, tt := range []struct{ query, filters, want string }{
		{"", ``, "web db"},
		{"all=1", ``, "job-2 web db job-1 far"},
		{"all=0", ``, "web db"},
		{"limit=1", ``, "job-2"}, // a limit looks at all
		{"limit=2", ``, "job-2 web"},
		{"limit=-1", ``, "web db"},
		{"limit=0", ``, "web db"},
		{"limit=99", ``, "job-2 web db job-1 far"},
		{"limit=1", `{"label":["tier"]}`, "web"},
		{"limit=x", ``, `400 limit: "x" is not a number`},
		{"all=1", `{"name":["job"]}`, "job-2 job-1"},
		{"all=1", `{"name":["^job-1$"]}`, "job-1"},
		{"all=1", `{"name":["^/web$","db"]}`, "web db"},
		{"all=1", `{"name":["back"]}`, "web"},
		{"all=1", `{"name":["*"]}`, ""},
		{"all=1", `{"id":["a"]}`, "web db"},
		{"all=1", `{"id":["aa"]}`, "web"},
		{"", `{"status":["exited"]}`, "job-1"},
		{"", `{"status":["created","paused"]}`, "job-2 db"},
		{"", `{"status":["dead"]}`, "far"},
		{"", `{"status":["gone"]}`, "400 invalid filter 'status=gone': invalid value (gone): must be one of created, running, paused, restarting, removing, exited, dead"},
		{"all=1", `{"exited":["3"]}`, "job-1"},
		{"", `{"exited":["3"]}`, ""},
		{"all=1", `{"exited":["0"]}`, ""},
		{"all=1", `{"exited":["x"]}`, "400 invalid filter 'exited=x'"},
		{"all=1", `{"health":["healthy"]}`, "web"},
		{"all=1", `{"health":["none"]}`, "job-2 db job-1 far"},
		{"all=1", `{"health":["fine"]}`, "400 invalid filter 'health=fine': invalid value (fine): must be one of none, starting, healthy, unhealthy"},
		{"all=1", `{"label":["tier"]}`, "web db"},
		{"all=1", `{"label":["tier=back"]}`, "db"},
		{"all=1", `{"label":["tier","tier=front"]}`, "web"},
		{"all=1", `{"label":["berth.node=n2"]}`, "job-2"},
		{"all=1", `{"label!":["tier"]}`, "400 invalid filter 'label!'"},
		{"all=1", `{"node":["n2"]}`, "job-2"},
		{"all=1", `{"node":["E3","E2|y"]}`, "job-2 far"},
		{"all=1", `{"node":["n9"]}`, ""},
		{"all=1", `{"volume":["data"]}`, "web"},
		{"all=1", `{"volume":["/srv2"]}`, "web"},
		{"all=1", `{"volume":["/srv"]}`, "web"},
		{"all=1", `{"volume":["/nope"]}`, ""},
		{"all=1", `{"network":["net"]}`, "web"},
		{"all=1", `{"network":["fee"]}`, "web"},
		{"all=1", `{"network":["ne"]}`, ""},
		{"all=1", `{"publish":["8080"]}`, "web"},
		{"all=1", `{"publish":["80"]}`, ""}, // the container's side is for expose
		{"all=1", `{"publish":["53/udp"]}`, "web"},
		{"all=1", `{"publish":["53"]}`, ""},
		{"all=1", `{"publish":["8000-8100/tcp"]}`, "web"},
		{"all=1", `{"publish":["9-8"]}`, "400 error while looking up for publish 9-8: invalid range specified for port: 9-8"},
		{"all=1", `{"publish":["a:1"]}`, "400 filter for 'publish' should not contain ':': a:1"},
		{"all=1", `{"publish":["x"]}`, `400 error while looking up for publish x: strconv.ParseUint: parsing "x": invalid syntax`},
		{"all=1", `{"expose":["443"]}`, "web"}, // a stopped container has no ports
		{"all=1", `{"expose":["80"],"publish":["1"]}`, "web"},
		{"all=1", `{"is-task":["true"]}`, "web"},
		{"all=1", `{"is-task":["0"]}`, "job-2 db job-1 far"},
		{"all=1", `{"is-task":["x"]}`, "400 invalid filter 'is-task=[x]'"},
		{"all=1", `{"before":["web"]}`, "db job-1 far"},
		{"", `{"before":["job-2"]}`, "web db"}, // running ones
		{"all=1", `{"since":["n1/db"]}`, "job-2 web"},
		{"all=1", `{"since":["job-1"],"before":["job-2"]}`, "web db"},
		{"all=1", `{"since":["nobody"]}`, "404 No such container: nobody"},
		{"since=db", ``, "job-2 web"},
		{"before=aa", ``, "db job-1 far"},
		{"all=1", `{"label":{"tier":true},"status":{"paused":true,"exited":false}}`, "db"},
		{"", `{"color":["red"]}`, "400 invalid filter 'color'"},
	} {
		q := tt.query
		if tt.filters != "" {
			q += "&filters=" + url.QueryEscape(tt.filters)
		}
		if got := f.names(q); got != tt.want {
			t.Errorf("%s %s = %s, want %s", tt.query, tt.filters, got, tt.want)
		}
	}
}

func TestListRowsAreOfThisMoment(t *testing.T) {
	f := showOnly(t, listed())
	f.api.o.Now = func() time.Time { return listedAt }
	a := f.must(200, "GET", "/containers/json?all=1", nil)
	var rows []struct {
		Names         []string
		State, Status string
		Future        json.Number
	}
	a.decode(t, &rows)
	want := map[string]string{
		"/web": "running, Up 5 minutes (healthy)", "/db": "paused, Up 2 hours (Paused)", "/job-1": "exited, Exited (3) About an hour ago",
		"/job-2": "created, Created", "/far": "dead, Host Down (node n3 is unreachable)",
	}
	for _, r := range rows {
		if got := r.State + ", " + r.Status; got != want[r.Names[0]] || r.Future != "12345678901234567890" {
			t.Errorf("%s: %s, %s, want %s", r.Names[0], got, r.Future, want[r.Names[0]])
		}
		delete(want, r.Names[0])
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
	if got := a.header.Values("X-Berth-Partial"); fmt.Sprint(got) != "[n3]" {
		t.Errorf("X-Berth-Partial = %v, want n3", got)
	}
	if a := f.must(200, "GET", `/containers/json?filters={"node":["n1"]}`, nil); a.header.Get("X-Berth-Partial") != "" {
		t.Errorf("a list of n1 alone misses %s", a.header.Get("X-Berth-Partial"))
	}
	if a := showOnly(t, new(fleet.Snapshot)).must(200, "GET", "/containers/json", nil); strings.TrimSpace(string(a.body)) != "[]" {
		t.Errorf("the list of no node = %s", a.body)
	}
}

func TestListAsksEnginesForWhatOnlyTheyKnow(t *testing.T) {
	f := newFleet(t, 2, func(o *dockertest.Options) { o.Images = []string{"busybox", "other"} })
	f.must(201, "POST", "/containers/create?name=n1/one", map[string]any{"Image": "busybox"})
	f.must(201, "POST", "/containers/create?name=n2/two", map[string]any{"Image": "other"})
	if got := f.names("all=1&filters=" + url.QueryEscape(`{"ancestor":["other"]}`)); got != "two" {
		t.Errorf("containers of image other = %s, want two", got)
	}
	if got := f.names("all=1&filters=" + url.QueryEscape(`{"ancestor":["nosuch"]}`)); got != "" {
		t.Errorf("containers of image nosuch = %s, want none", got)
	}
	var rows []map[string]any
	f.must(200, "GET", "/containers/json?all=1&size=1", nil).decode(t, &rows)
	for _, r := range rows {
		if _, has := r["SizeRootFs"]; !has {
			t.Errorf("%v has no SizeRootFs", r["Names"])
		}
	}
	if len(rows) != 2 {
		t.Errorf("%d rows, want 2", len(rows))
	}
}
