package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// eventPatience is how long a reader of events may take nothing at all. One that is merely slow is cut off by its queue.
const eventPatience = 10 * time.Minute

// showEvents streams what happens on all nodes: first what is remembered of the time asked for, in the order of the times,
// then what comes, in the order it comes. The subscription is made before the head goes out, and joins the two parts.
func showEvents(s *Server, w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	f, err := anyFilters(q) // engines ignore names that they do not know here
	if err != nil {
		return err
	}
	win, err := eventWindow(q)
	if err != nil {
		return err
	}
	ctx, cancel := win.limit(r.Context(), s.o.Now())
	defer cancel()
	backlog, live := s.fleet.Subscribe(ctx)
	out := newEventLines(w, r.version, f)
	defer out.end()
	if out.head() != nil || out.all(win.replay(backlog, s.fleet.Snapshot())) != nil {
		return nil // the client is gone
	}
	if win.over(s.o.Now()) {
		return nil
	}
	for ev := range live {
		if out.event(&ev) != nil || len(live) == 0 && out.push() != nil {
			return nil
		}
	}
	if ctx.Err() == nil {
		// Cut off for being too slow, or because the manager stops: the client must not take it for the end.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// window is the time that a reader of events asks for, in Unix nanoseconds.
type window struct {
	since, until int64 // 0 is open
	past         bool  // what is remembered was asked for
	ends         bool  // at until
}

// eventWindow reads since and until as engines do: either asks for the past, -1 is as good as nothing, and an until of 0 is
// over at once without being a bound.
func eventWindow(q url.Values) (window, error) {
	var win window
	for _, b := range []struct {
		name  string
		at    *int64
		given *bool
	}{{"since", &win.since, &win.past}, {"until", &win.until, &win.ends}} {
		v := q.Get(b.name)
		if v == "" || v == "-1" {
			continue
		}
		nano, ok := parseTime(v)
		if !ok {
			return win, invalidf("%s: %q is neither Unix seconds nor an RFC 3339 time", b.name, v)
		}
		*b.at, *b.given = nano, true
	}
	if win.ends && win.until < win.since {
		return win, invalidf("`since` time (%s) cannot be after `until` time (%s)", q.Get("since"), q.Get("until"))
	}
	win.past = win.past || win.ends
	return win, nil
}

// parseTime reads Unix seconds with or without a fraction, or RFC 3339; clients turn durations and dates into the first.
func parseTime(v string) (nano int64, ok bool) {
	if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
		return t.UnixNano(), true
	}
	secs, frac, _ := strings.Cut(v, ".")
	sec, err := strconv.ParseInt(secs, 10, 64)
	if err != nil || sec > 1<<33 || sec < -1<<33 || strings.Trim(frac, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	return sec*int64(time.Second) + n, err == nil
}

// over tells whether nothing can follow what is remembered.
func (win window) over(now time.Time) bool { return win.ends && win.until <= now.UnixNano() }

// limit ends the context at until.
func (win window) limit(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	if !win.ends || win.over(now) {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(win.until-now.UnixNano()))
}

// replay is what is remembered of a window, by time. A node whose clock is wrong counts with both its time and ours, so
// that neither a reader that goes on from an event's time nor one that asks for the last minutes misses anything.
func (win window) replay(backlog []fleet.Event, snap *fleet.Snapshot) []fleet.Event {
	if !win.past {
		return nil
	}
	var out []fleet.Event
	for _, ev := range backlog {
		ours := ev.TimeNano
		if n, ok := snap.Node(ev.NodeID); ok {
			ours -= int64(n.Skew)
		}
		if max(ours, ev.TimeNano) >= win.since && (win.until == 0 || min(ours, ev.TimeNano) <= win.until) {
			out = append(out, ev)
		}
	}
	slices.SortStableFunc(out, func(a, b fleet.Event) int { return cmp.Compare(a.TimeNano, b.TimeNano) })
	return out
}

// eventLines writes those events that a client asked for, one a line. Its errors mean that the client is gone.
type eventLines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	f       filters
	created bool // images' create events, which came with API 1.46, are wanted
}

func newEventLines(w http.ResponseWriter, version string, f filters) *eventLines {
	return &eventLines{w: w, control: http.NewResponseController(w), f: f, created: fleet.CompareVersions(version, "1.46") >= 0}
}

func (l *eventLines) head() error {
	l.w.Header().Set("Content-Type", "application/json")
	l.w.WriteHeader(http.StatusOK)
	return l.push()
}

func (l *eventLines) all(evs []fleet.Event) error {
	for i := range evs {
		if err := l.event(&evs[i]); err != nil {
			return err
		}
	}
	return l.push()
}

func (l *eventLines) event(ev *fleet.Event) error {
	if !matchEvent(l.f, ev) || ev.Type == "image" && ev.Action == "create" && !l.created {
		return nil
	}
	if err := l.patience(eventPatience); err != nil {
		return err
	}
	if _, err := l.w.Write(ev.Raw); err != nil {
		return err
	}
	_, err := l.w.Write([]byte{'\n'})
	return err
}

func (l *eventLines) push() error { return l.control.Flush() }

// patience sets how long writes may block; 0 is for ever.
func (l *eventLines) patience(d time.Duration) error {
	var at time.Time
	if d > 0 {
		at = time.Now().Add(d)
	}
	if err := l.control.SetWriteDeadline(at); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil // a connection without deadlines has its queue to cut it off
}

// end gives the connection back as it was.
func (l *eventLines) end() { _ = l.patience(0) } // fails on a connection that is closed, which needs no more

// matchEvent applies filters by the rules of moby's daemon/events/filter.go, and node by ours.
func matchEvent(f filters, ev *fleet.Event) bool {
	if len(f) == 0 {
		return true
	}
	for _, kind := range []string{"daemon", "container", "plugin", "volume", "network", "service", "secret", "config"} {
		if !f.any(kind, func(v string) bool { return matchActor(v, ev) }) {
			return false
		}
	}
	return f.any("event", func(v string) bool { return matchAction(v, ev.Action) }) &&
		f.equal("type", ev.Type) &&
		f.equal("scope", ev.Scope) &&
		f.any("node", func(v string) bool { return matchEventNode(v, ev) }) &&
		f.any("image", func(v string) bool { return matchEventImage(v, ev) }) &&
		f.labels("label", eventLabel(ev))
}

// matchAction is exact, but the actions with an argument behind a colon match without it, too.
func matchAction(want, action string) bool {
	if want == action {
		return true
	}
	verb, _, hasArgument := strings.Cut(action, ":")
	return hasArgument && want == verb && (verb == "exec_create" || verb == "exec_start" || verb == "health_status")
}

// matchActor compares with the beginning of the actor's ID or name, whatever the actor is: so do engines.
func matchActor(want string, ev *fleet.Event) bool {
	if strings.HasPrefix(ev.ActorID, want) {
		return true
	}
	name, _ := rawjson.Text(ev.Attributes, "name")
	return strings.HasPrefix(name, want)
}

// matchEventNode takes a node's name, its ID, or its engine's ID.
func matchEventNode(want string, ev *fleet.Event) bool {
	engineID, _, _ := strings.Cut(ev.NodeID, "|")
	return want == ev.Node || want == ev.NodeID || want == engineID
}

// matchEventImage looks at an image event's ID and name and at the image of a container event, with and without a tag.
func matchEventImage(want string, ev *fleet.Event) bool {
	key := "image"
	if ev.Type == "image" {
		key = "name"
	}
	name, _ := rawjson.Text(ev.Attributes, key)
	return want == ev.ActorID || want == name || want == withoutTag(ev.ActorID) || want == withoutTag(name)
}

func withoutTag(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarName(named)
}

// eventLabel reads an event's attributes together with the label that we show.
func eventLabel(ev *fleet.Event) func(string) (string, bool) {
	return func(k string) (string, bool) {
		if k == fleet.LabelNode || k == "node.name" {
			return ev.Node, true
		}
		return rawjson.Text(ev.Attributes, k)
	}
}
