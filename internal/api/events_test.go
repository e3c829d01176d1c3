package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// eventReader is a client of GET /events.
type eventReader struct {
	t    testing.TB
	res  *http.Response
	in   *bufio.Reader
	stop context.CancelFunc
}

type seenEvent struct {
	Status, ID, From string
	Type, Action     string
	Actor            struct {
		ID         string
		Attributes map[string]string
	}
	Node     struct{ Name string }
	TimeNano int64
}

// events subscribes; when it returns, nothing that happens from now on is missed.
func (f *testFleet) events(query string) *eventReader {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+"/v1.41/events?"+query, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	res, err := f.Client().Do(r)
	if err != nil {
		f.t.Fatalf("GET /events?%s: %v", query, err)
	}
	e := &eventReader{f.t, res, bufio.NewReader(res.Body), cancel}
	f.t.Cleanup(e.close)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" {
		f.t.Fatalf("GET /events?%s = %d %s", query, res.StatusCode, res.Header.Get("Content-Type"))
	}
	return e
}

func (e *eventReader) close() {
	e.stop()
	_ = e.res.Body.Close() // it was given up one line above
}

// next reads one event. Its line must be one JSON object that ends in a newline.
func (e *eventReader) next() seenEvent {
	e.t.Helper()
	line, err := e.in.ReadBytes('\n')
	if err != nil {
		e.t.Fatalf("no further event: %v", err)
	}
	var ev seenEvent
	if err := json.Unmarshal(line, &ev); err != nil {
		e.t.Fatalf("%v in %s", err, line)
	}
	return ev
}

// rest reads to the stream's own end.
func (e *eventReader) rest() []seenEvent {
	e.t.Helper()
	b, err := io.ReadAll(e.in)
	if err != nil {
		e.t.Fatalf("the stream does not end by itself: %v", err)
	}
	var all []seenEvent
	for line := range strings.Lines(string(b)) {
		var ev seenEvent
		if err := json.Unmarshal([]byte(line), &ev); err != nil || !strings.HasSuffix(line, "\n") {
			e.t.Fatalf("%v in %q", err, line)
		}
		all = append(all, ev)
	}
	return all
}

func query(pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q.Encode()
}

const marks = `{"type":["test"]}` // of events that tests make up

func TestEventsOfAllNodesShowTheirNode(t *testing.T) {
	f := newFleet(t, 2)
	e := f.events(query("filters", marks))
	for i, d := range f.daemons {
		d.Emit("test", "happens", "thing", map[string]string{"name": "x"})
		ev, want := e.next(), fmt.Sprintf("n%d", i+1)
		a := ev.Actor.Attributes
		if ev.Node.Name != want || a["berth.node"] != want || a["node.name"] != want || a["node.addr"] != d.HostPort() || a["name"] != "x" {
			t.Errorf("event = %+v, want node %s at %s", ev, want, d.HostPort())
		}
		if sent := d.Events(); ev.TimeNano != sent[len(sent)-1].TimeNano {
			t.Errorf("timeNano = %d, the engine's was %d", ev.TimeNano, sent[len(sent)-1].TimeNano)
		}
	}
}

// TestNothingIsLostOrDoubledBetweenPastAndPresent subscribes again and again while events are published.
func TestNothingIsLostOrDoubledBetweenPastAndPresent(t *testing.T) {
	const total = 400
	f := newFleet(t, 2)
	first := f.events(query("filters", marks)) // keeps time
	go func() {
		for i := range total {
			f.daemons[i%2].Emit("test", "n", strconv.Itoa(i), map[string]string{})
		}
	}()
	var readers []*eventReader
	for i := range total {
		first.next()
		if i%40 == 0 {
			readers = append(readers, f.events(query("since", "0", "filters", marks)))
		}
	}
	for r, e := range readers {
		seen := map[string]int{}
		last := map[string]int64{}
		for range total {
			ev := e.next()
			seen[ev.Actor.ID]++
			if ev.TimeNano <= last[ev.Node.Name] {
				t.Errorf("reader %d: %s of %s comes after a later one", r, ev.Actor.ID, ev.Node.Name)
			}
			last[ev.Node.Name] = ev.TimeNano
		}
		if len(seen) != total {
			t.Errorf("reader %d saw %d different events among %d, want %d", r, len(seen), total, total)
		}
	}
}

func TestUntilEndsTheStream(t *testing.T) {
	f := newFleet(t, 2)
	e := f.events(query("filters", marks))
	f.daemons[0].Emit("test", "a", "1", map[string]string{})
	one := e.next()
	f.daemons[1].Emit("test", "b", "2", map[string]string{})
	two := e.next()
	f.daemons[0].Emit("test", "c", "3", map[string]string{})
	three := e.next()
	nano := func(n int64) string { return fmt.Sprintf("%d.%09d", n/1e9, n%1e9) }
	later := strconv.FormatInt(time.Now().Unix()+3600, 10)
	for _, tt := range []struct{ since, until, want string }{
		{"", nano(three.TimeNano), "abc"},
		{"0", nano(three.TimeNano), "abc"},
		{nano(two.TimeNano), nano(three.TimeNano), "bc"},
		{nano(one.TimeNano), nano(two.TimeNano), "ab"}, // both ends belong to it
		{nano(one.TimeNano + 1), nano(three.TimeNano - 1), "b"},
		{time.Unix(0, two.TimeNano).UTC().Format(time.RFC3339Nano), time.Unix(0, two.TimeNano).Format(time.RFC3339Nano), "b"},
		{"", "0", "abc"}, // as in moby: over at once, and no bound
		{"", "1", ""},
		{"-1", "1", ""},
	} {
		got := ""
		for _, ev := range f.events(query("since", tt.since, "until", tt.until, "filters", marks)).rest() {
			got += ev.Action
		}
		if got != tt.want {
			t.Errorf("since %s until %s: %q, want %q", tt.since, tt.until, got, tt.want)
		}
	}
	e = f.events(query("since", nano(three.TimeNano), "until", later, "filters", marks))
	if ev := e.next(); ev.Action != "c" {
		t.Errorf("remembered: %s, want c", ev.Action)
	}
	f.daemons[1].Emit("test", "d", "4", map[string]string{})
	if ev := e.next(); ev.Action != "d" {
		t.Errorf("until an hour from now: %s follows, want d", ev.Action)
	}
	soon := time.Now().Add(150 * time.Millisecond)
	if left := f.events(query("until", nano(soon.UnixNano()), "filters", `{"type":["nothing"]}`)).rest(); len(left) > 0 || time.Now().Before(soon) {
		t.Errorf("the stream until %v brought %v and ended at %v", soon, left, time.Now())
	}
}

func TestBadEventTimes(t *testing.T) {
	f := newFleet(t, 1)
	f.fails("GET", "/events?since=5&until=3", nil, 400, "`since` time (5) cannot be after `until` time (3)")
	f.fails("GET", "/events?since=yesterday", nil, 400, `since: "yesterday" is neither Unix seconds nor an RFC 3339 time`)
	f.fails("GET", "/events?until=1&filters=[", nil, 400, "invalid filters: unexpected end of JSON input")
	if evs := f.events(query("until", "1", "filters", `{"nobody":["knows"]}`)).rest(); len(evs) != 0 {
		t.Errorf("events before 1970 + 1 s: %v", evs)
	}
}

func TestParseTime(t *testing.T) {
	for v, want := range map[string]int64{
		"0": 0, "12": 12e9, "12.5": 125e8, "12.000000001": 12e9 + 1, "12.0000000019": 12e9 + 1, "-2": -2e9, "12.": 12e9,
		"1970-01-01T00:00:12Z": 12e9, "1970-01-01T01:00:12.25+01:00": 1225e7,
		"": -1, "x": -1, "1.x": -1, "1.-5": -1, "1.+5": -1, "99999999999999": -1, "1e3": -1, "10m": -1, "1970-01-01": -1,
	} {
		got, ok := parseTime(v)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("parseTime(%q) = %d, want %d", v, got, want)
		}
	}
}

func TestReplayTrustsNoClock(t *testing.T) {
	snap := new(fleet.Snapshot).Replace(&fleet.Node{ID: "a", Name: "a"}).Replace(&fleet.Node{ID: "b", Name: "b", Skew: 60 * time.Second})
	at := func(s int64) int64 { return s * int64(time.Second) }
	backlog := []fleet.Event{
		{NodeID: "a", Action: "1", TimeNano: at(100)}, {NodeID: "b", Action: "2", TimeNano: at(165)}, {NodeID: "gone", Action: "3", TimeNano: at(110)},
		{NodeID: "a", Action: "4", TimeNano: at(105)},
	}
	for _, tt := range []struct {
		win  window
		want string
	}{
		{window{}, ""},
		{window{past: true}, "1432"},
		{window{past: true, since: at(104)}, "432"},                                // 165 there is 105 here
		{window{past: true, since: at(150)}, "2"},                                  // a reader goes on from what b said
		{window{past: true, ends: true, since: at(101), until: at(106)}, "42"},     // in our time
		{window{past: true, ends: true, since: at(111), until: at(200)}, "2"},      // in b's
		{window{past: true, ends: true, since: at(50), until: at(104)}, "1"},       // in neither
		{window{past: true, ends: true, since: at(100), until: at(100)}, "1"},      //
		{window{past: true, ends: true, since: at(1000), until: at(2000)}, ""},     //
		{window{past: true, ends: true, since: at(100), until: 0}, "1432"},         // no bound
		{window{past: true, ends: true, since: at(100) + 1, until: at(105)}, "42"}, //
	} {
		got := ""
		for _, ev := range tt.win.replay(backlog, snap) {
			got += ev.Action
		}
		if got != tt.want {
			t.Errorf("%+v replays %q, want %q", tt.win, got, tt.want)
		}
	}
}

func TestMatchEvent(t *testing.T) {
	events := map[string]*fleet.Event{
		"start": {NodeID: "E1|10.0.0.1:2375", Node: "n1", Type: "container", Action: "start", ActorID: "abc1", Scope: "local",
			Attributes: attributesOf(map[string]string{"name": "web_1", "image": "busybox:1", "project": "p"})},
		"exec": {NodeID: "E2|x", Node: "n2", Type: "container", Action: "exec_start: sh -c x", ActorID: "abd2", Scope: "local",
			Attributes: attributesOf(map[string]string{"name": "db", "image": "localhost:5000/a/b@sha256:" + strings.Repeat("0", 64)})},
		"ill":  {Node: "n2", Type: "container", Action: "health_status: unhealthy", ActorID: "abd2", Scope: "local", Attributes: attributesOf(map[string]string{"name": "db", "image": "busybox"})},
		"pull": {Node: "n1", Type: "image", Action: "pull", ActorID: "busybox:latest", Scope: "local", Attributes: attributesOf(map[string]string{"name": "busybox"})},
		"join": {Node: "n1", Type: "network", Action: "connect", ActorID: "fff", Scope: "swarm", Attributes: attributesOf(map[string]string{"name": "web_default", "container": "abc1"})},
		"new":  {Node: "n3", Type: "daemon", Action: "engine_connect", ActorID: "E3", Scope: "local", Attributes: attributesOf(map[string]string{"name": "n3"})},
	}
	for filter, want := range map[string]string{
		`{}`:                                   "exec ill join new pull start",
		`{"type":["container"]}`:               "exec ill start",
		`{"type":["image","network"]}`:         "join pull",
		`{"event":["start"]}`:                  "start",
		`{"event":["exec_start"]}`:             "exec",
		`{"event":["exec_start: sh -c x"]}`:    "exec",
		`{"event":["health_status"]}`:          "ill",
		`{"event":["health_status: healthy"]}`: "",
		`{"event":["exec"]}`:                   "",
		`{"container":["ab"]}`:                 "exec ill start",
		`{"container":["abc1"]}`:               "start",
		`{"container":["web"]}`:                "join start", // moby looks at no type
		`{"network":["web_default"]}`:          "join",
		`{"daemon":["n3"]}`:                    "new",
		`{"image":["busybox"]}`:                "ill pull start",
		`{"image":["busybox:1"]}`:              "start",
		`{"image":["busybox:latest"]}`:         "pull",
		`{"image":["localhost:5000/a/b"]}`:     "exec",
		`{"label":["project"]}`:                "start",
		`{"label":["project=p"]}`:              "start",
		`{"label":["project=q"]}`:              "",
		`{"label":["project","name=web_1"]}`:   "start",
		`{"label":["berth.node=n2"]}`:          "exec ill",
		`{"scope":["swarm"]}`:                  "join",
		`{"node":["n2"]}`:                      "exec ill",
		`{"node":["E1"]}`:                      "start",
		`{"node":["E1|10.0.0.1:2375","n3"]}`:   "new start",
		`{"nobody":["knows"]}`:                 "exec ill join new pull start",
		`{"type":{"container":true},"event":{"start":true,"pull":true}}`: "start",
	} {
		f, err := anyFilters(url.Values{"filters": {filter}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for name, ev := range events {
			if matchEvent(f, ev) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %q, want %q", filter, s, want)
		}
	}
}

func TestImagesCreatedAreToldFromAPI146On(t *testing.T) {
	f := newFleet(t, 1, func(o *dockertest.Options) { o.APIVersion = "1.47" })
	old := f.events(query("filters", `{"type":["image","test"]}`))
	f.daemons[0].Emit("image", "create", "sha256:1", map[string]string{})
	f.daemons[0].Emit("test", "end", "1", map[string]string{})
	if ev := old.next(); ev.Type != "test" {
		t.Errorf("a client of API 1.41 is told of %s %s", ev.Type, ev.Action)
	}
	a := f.must(200, "GET", "/v1.46/events?until=0&"+query("filters", `{"event":["create"]}`), nil)
	if !strings.Contains(string(a.body), `"Action":"create"`) {
		t.Errorf("a client of API 1.46 is told %s", a.body)
	}
}

func TestEventsFlowOnWhenANodeDies(t *testing.T) {
	f := newFleet(t, 2)
	e := f.events(query("filters", `{"type":["container","daemon","test"]}`))
	nodes := f.events(query("filters", `{"type":["node"]}`))
	f.daemons[0].Refuse()
	for ev := e.next(); ev.Action != "engine_disconnect"; ev = e.next() {
	}
	f.daemons[1].Emit("test", "alive", "1", map[string]string{})
	if ev := e.next(); ev.Action != "alive" || ev.Node.Name != "n2" {
		t.Errorf("after n1 died: %+v, want alive of n2", ev)
	}
	if err := f.daemons[0].Listen(); err != nil {
		t.Fatal(err)
	}
	for ev := e.next(); ev.Action != "engine_reconnect"; ev = e.next() {
		if ev.Type == "container" {
			t.Errorf("the return of n1 is told as %s %s", ev.Type, ev.Action)
		}
	}
	f.daemons[0].Emit("test", "back", "2", map[string]string{})
	if ev := e.next(); ev.Action != "back" || ev.Node.Name != "n1" || ev.Status != "" {
		t.Errorf("after n1 came back: %+v, want back of n1", ev)
	}
	for _, want := range []string{"unhealthy", "ready"} {
		if ev := nodes.next(); ev.Action != want || ev.Actor.Attributes["name"] != "n1" || ev.Actor.Attributes["reason"] == "" {
			t.Errorf("node event %+v, want %s of n1 with a reason", ev, want)
		}
	}
	if b := f.must(200, "GET", "/events?until=0", nil).body; !strings.Contains(string(b), `"error":`) {
		t.Error("no event says why n1 was lost")
	}
}

// cutTeller is a fleet whose readers are cut off.
type cutTeller struct{ Fleet }

func (cutTeller) Snapshot() *fleet.Snapshot { return new(fleet.Snapshot) }

func (cutTeller) Subscribe(context.Context) ([]fleet.Event, <-chan fleet.Event) {
	live := make(chan fleet.Event, 1)
	live <- fleet.Event{Raw: []byte(`{}`)}
	close(live)
	return nil, live
}

func TestAReaderThatIsCutOffDoesNotTakeItForTheEnd(t *testing.T) {
	f := &testFleet{t: t}
	f.api = New(cutTeller{}, Options{Log: quietLog(), APIMax: "1.51"})
	f.Server = quietServer(f.api)
	defer f.Close()
	e := f.events("")
	e.next()
	if b, err := io.ReadAll(e.in); err == nil {
		t.Errorf("the stream ended as if all was told, with %q", b)
	}
	e.close()
}

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// quietServer is a server that tells nobody of handlers that abort.
func quietServer(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	return s
}

func attributesOf(a map[string]string) []byte { return rawjson.Encode(a) }
