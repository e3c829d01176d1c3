//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// event is what the endpoint tells; numbers as they were written.
type event struct {
	Type, Action     string
	Status, ID, From *string
	TimeNano         json.Number
	Actor            struct {
		ID         string
		Attributes map[string]string
	}
}

func parseEvents(t *testing.T, text string) []event {
	t.Helper()
	var list []event
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line == "" {
			continue
		}
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		list = append(list, e)
	}
	return list
}

// past reads the events between two times; filters are pairs.
func (w *world) past(t *testing.T, from, to time.Time, filters ...string) []event {
	t.Helper()
	f := map[string][]string{}
	for i := 0; i < len(filters); i += 2 {
		f[filters[i]] = append(f[filters[i]], filters[i+1])
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	q := url.Values{"since": {stamp(from)}, "until": {stamp(to)}, "filters": {string(b)}}
	a := w.api(t, "GET", "/v1.41/events?"+q.Encode(), "")
	same(t, "status of events", a.status, 200)
	return parseEvents(t, a.body)
}

func stamp(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

func eventsOnce(t *testing.T, w *world) {
	n := rounds(4, 17)
	live := w.docker("events", "--format", "{{json .}}", "--filter", "type=container", "--filter", "label=test=once")
	out := outputTo(t, live)
	background(t, live)
	eventually(t, 10*time.Second, "the stream is open", func() bool {
		must(t, w.docker("run", "--rm", "--name", "first", "--label", "test=once", "busybox", "true"))
		return strings.Contains(out.String(), `"destroy"`)
	})
	err := all(3, func(k int) error {
		for i := range n {
			cmd := w.docker(args("run --rm --label test=once --name", fmt.Sprintf("ev%d.%d", k, i), on(fmt.Sprintf("host%d", k+1)), "busybox true")...)
			if err := outcome(cmd, ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the last event", func() bool { return strings.Count(out.String(), `"Action":"destroy"`) > 3*n })
	seen := map[string][]string{}
	for _, e := range parseEvents(t, out.String()) {
		name := e.Actor.Attributes["name"]
		if !strings.HasPrefix(name, "ev") {
			continue
		}
		switch e.Action {
		case "create", "start", "die", "destroy":
			seen[name] = append(seen[name], e.Action)
		}
		if got, want := e.Actor.Attributes["node.name"], fmt.Sprintf("host%c", name[2]+1); got != want {
			t.Errorf("%s of %s is said to be on %s, want %s", e.Action, name, got, want)
		}
	}
	same(t, "containers", len(seen), 3*n)
	for name, actions := range seen {
		same(t, name, actions, "[create start die destroy]")
	}
}

func eventsOfThePast(t *testing.T, w *world) {
	begin := time.Now()
	n := rounds(60, 500) // two events each
	err := all(3, func(k int) error {
		for i := range n / 3 {
			name := fmt.Sprintf("host%d/past%d.%d", k+1, k, i)
			for _, words := range [][2]string{{"POST", "/v1.41/volumes/create"}, {"DELETE", "/v1.41/volumes/" + name}} {
				a := w.api(t, words[0], words[1], `{"Name":"`+name+`"}`)
				if a.status/100 != 2 {
					return fmt.Errorf("%s %s: %d %s", words[0], words[1], a.status, a.body)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, w.command("berth", "restart", "host1"))
	w.revive(t, "host1")
	list := w.past(t, begin, time.Now(), "type", "volume")
	same(t, "events", len(list), 2*(n/3)*3)
	last := json.Number("0")
	for _, e := range list {
		if len(e.TimeNano) < len(last) || len(e.TimeNano) == len(last) && e.TimeNano < last {
			t.Fatalf("%s of %s at %s comes after %s", e.Action, e.Actor.ID, e.TimeNano, last)
		}
		last = e.TimeNano
	}
}

func eventFilters(t *testing.T, w *world) {
	begin := time.Now()
	for i := range 3 {
		must(t, w.docker(args("run -d --label test=filter --label", fmt.Sprintf("n=%d", i), "--name", fmt.Sprintf("filter%d", i), on(fmt.Sprintf("host%d", i+1)),
			"--health-cmd true --health-interval 1s web:1 sleep 1000")...))
	}
	eventually(t, 10*time.Second, "all are healthy", func() bool {
		return len(strings.Fields(must(t, w.docker("ps", "-q", "--filter", "health=healthy")))) == 3
	})
	id := must(t, w.docker("inspect", "--format", "{{.Id}}", "filter1"))
	must(t, w.docker("rm", "-f", "filter0", "filter1", "filter2"))
	end := time.Now().Add(time.Second)
	for _, tt := range []struct {
		filters []string
		want    int
	}{
		{[]string{"type", "container", "event", "create"}, 3},
		{[]string{"type", "network", "event", "connect"}, 3},
		{[]string{"event", "health_status"}, 3},
		{[]string{"event", "health_status: healthy"}, 3},
		{[]string{"label", "test=filter", "event", "start"}, 3},
		{[]string{"label", "n=2", "label", "test=filter", "event", "start"}, 1},
		{[]string{"container", "filter1", "event", "start", "event", "die"}, 2},
		{[]string{"container", id[:12], "event", "start"}, 1},
		{[]string{"image", "web:1", "event", "start"}, 3},
		{[]string{"image", "web", "event", "start"}, 3},
		{[]string{"image", "busybox", "event", "start"}, 0},
		{[]string{"node", "host2", "event", "start"}, 1},
		{[]string{"scope", "local", "event", "start"}, 3},
	} {
		same(t, fmt.Sprint("events with ", tt.filters), len(w.past(t, begin, end, tt.filters...)), tt.want)
	}
	other := url.Values{"since": {stamp(begin)}, "until": {stamp(end)}, "filters": {`{"event":{"start":true},"label":{"n=1":true}}`}}
	same(t, "events with filters in the other form", len(parseEvents(t, w.api(t, "GET", "/v1.41/events?"+other.Encode(), "").body)), 1)
	// One engine says the same of its own.
	list := w.past(t, begin, end, "node", "host3", "type", "container")
	engine := parseEvents(t, must(t, w.direct(t, "host3", "events", "--since", stamp(begin), "--until", stamp(end), "--filter", "type=container", "--format", "{{json .}}")))
	same(t, "events of host3", len(list), len(engine))
}

func eventForms(t *testing.T, w *world) {
	begin := time.Now()
	id := must(t, w.docker(args("create --name form", on("host2"), "busybox")...))
	end := time.Now().Add(time.Second)
	list := w.past(t, begin, end, "container", id, "event", "create")
	if len(list) != 1 || list[0].Status == nil || list[0].ID == nil || list[0].From == nil {
		t.Fatalf("the event of API 1.41: %+v", list)
	}
	same(t, "its old fields", *list[0].Status+" "+*list[0].ID+" "+*list[0].From, "create "+id+" busybox")
	engine := parseEvents(t, must(t, w.direct(t, "host2", "events", "--since", stamp(begin), "--until", stamp(end), "--filter", "container="+id, "--format", "{{json .}}")))
	if len(engine) != 1 {
		t.Fatalf("the engine's events: %+v", engine)
	}
	same(t, "timeNano", list[0].TimeNano, engine[0].TimeNano)
	// API 1.52 dropped these fields. It is not spoken yet, and says so.
	a := w.api(t, "GET", "/v1.52/events?until=1", "")
	same(t, "status of events in API 1.52", a.status, 400)
	contains(t, "its text", a.message(t), "too new")
}
