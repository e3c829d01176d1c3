package api

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fleet"
)

// window is the time that a reader of events asks for, in nanoseconds; 0 is open.
type window struct{ since, until int64 }

// showEvents streams what happens on all nodes: first what is remembered since a time, in the order of the times, then what
// comes, in the order it comes.
func showEvents(s *Server, w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	f, err := parseFilters(q, "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope",
		"secret", "service", "type", "volume")
	if err != nil {
		return err
	}
	win, err := s.eventWindow(q)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if win.until != 0 {
		left := time.Unix(0, win.until).Sub(s.o.Now())
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(left, 0))
		defer cancel()
	}
	backlog, live := s.fleet.Subscribe(ctx)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := &lines{w: w, flush: http.NewResponseController(w).Flush}
	if out.push() != nil {
		return nil
	}
	if win.since != 0 || win.until != 0 {
		for _, ev := range replay(backlog, win) {
			if matchEvent(f, &ev) && out.line(ev.Raw) != nil {
				return nil
			}
		}
		if out.push() != nil {
			return nil
		}
	}
	for ev := range live {
		if !matchEvent(f, &ev) {
			continue
		}
		if out.line(ev.Raw) != nil || len(live) == 0 && out.push() != nil {
			return nil // the client is gone
		}
	}
	if ctx.Err() == nil {
		// Cut off for being too slow, or because the manager stops: the client must not take it for the end.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// lines writes one event a line. Errors mean that the client is gone.
type lines struct {
	w     http.ResponseWriter
	flush func() error
}

func (l *lines) line(raw []byte) error {
	if _, err := l.w.Write(raw); err != nil {
		return err
	}
	_, err := l.w.Write([]byte{'\n'})
	return err
}

func (l *lines) push() error { return l.flush() }

// eventWindow reads since and until.
func (s *Server) eventWindow(q url.Values) (window, error) {
	var win window
	for _, b := range []struct {
		name string
		at   *int64
	}{{"since", &win.since}, {"until", &win.until}} {
		v := q.Get(b.name)
		if v == "" || v == "0" {
			continue
		}
		nano, err := parseTime(v)
		if err != nil {
			return win, invalidf("%s: %v", b.name, err)
		}
		*b.at = nano
	}
	if win.since != 0 && win.until != 0 && win.until < win.since {
		return win, invalidf("`since` time (%s) cannot be after `until` time (%s)", q.Get("since"), q.Get("until"))
	}
	return win, nil
}

// parseTime reads Unix seconds with or without a fraction, or RFC 3339; clients turn durations and dates into the first.
func parseTime(v string) (int64, error) {
	if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
		return t.UnixNano(), nil
	}
	secs, frac, _ := strings.Cut(v, ".")
	sec, err := strconv.ParseInt(secs, 10, 64)
	if err != nil || sec > 1<<33 || sec < -1<<33 {
		return 0, invalidf("%q is no time", v)
	}
	if len(frac) > 9 {
		frac = frac[:9]
	}
	nano, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	if err != nil {
		return 0, invalidf("%q is no time", v)
	}
	return sec*int64(time.Second) + nano, nil
}

// replay is what is remembered of a window, by time.
func replay(backlog []fleet.Event, win window) []fleet.Event {
	var out []fleet.Event
	for _, ev := range backlog {
		if (win.since == 0 || ev.TimeNano >= win.since) && (win.until == 0 || ev.TimeNano <= win.until) {
			out = append(out, ev)
		}
	}
	slices.SortStableFunc(out, func(a, b fleet.Event) int { return cmp.Compare(a.TimeNano, b.TimeNano) })
	return out
}

// matchEvent applies filters by the rules of moby's daemon/events/filter.go, and node by ours.
func matchEvent(f filters, ev *fleet.Event) bool {
	if len(f) == 0 {
		return true
	}
	return f.any("event", func(v string) bool { return matchAction(v, ev.Action) }) &&
		f.equal("type", ev.Type) &&
		f.equal("scope", ev.Scope) &&
		f.any("node", func(v string) bool { return v == ev.Node || v == ev.NodeID || ev.Type == "node" && v == ev.ActorID }) &&
		matchActor(f, ev, "daemon") && matchActor(f, ev, "container") && matchActor(f, ev, "plugin") && matchActor(f, ev, "volume") &&
		matchActor(f, ev, "network") && matchActor(f, ev, "service") && matchActor(f, ev, "secret") && matchActor(f, ev, "config") &&
		f.any("image", func(v string) bool { return matchEventImage(v, ev) }) &&
		f.labels("label", func(k string) (string, bool) {
			if k == fleet.LabelNode {
				return ev.Node, true
			}
			v, ok := ev.Attributes[k]
			return v, ok
		})
}

// matchAction is exact, but the actions with an argument behind a colon match without it, too.
func matchAction(want, action string) bool {
	if want == action {
		return true
	}
	verb, _, hasArgument := strings.Cut(action, ":")
	if !hasArgument {
		return false
	}
	return want == verb && (verb == "exec_create" || verb == "exec_start" || verb == "health_status")
}

// matchActor compares with the beginning of the actor's ID or name.
func matchActor(f filters, ev *fleet.Event, kind string) bool {
	if !f.has(kind) {
		return true
	}
	if ev.Type != kind {
		return false
	}
	return f.any(kind, func(v string) bool {
		return strings.HasPrefix(ev.ActorID, v) || strings.HasPrefix(ev.Attributes["name"], v)
	})
}

// matchEventImage looks at the image's ID or name, of image events and of containers' image, with and without tag.
func matchEventImage(want string, ev *fleet.Event) bool {
	key := "image"
	if ev.Type == "image" {
		key = "name"
	}
	name := ev.Attributes[key]
	return want == ev.ActorID || want == name || want == withoutTag(name) || withoutTag(want) == name
}

func withoutTag(ref string) string {
	if i := strings.LastIndex(ref, ":"); i > strings.LastIndex(ref, "/") {
		return ref[:i]
	}
	return ref
}
