package dockertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ringSize is how many events an engine remembers.
const ringSize = 256

// Event is one line of /events.
type Event struct {
	Type   string
	Action string
	Actor  Actor
	Scope  string `json:"scope,omitempty"`

	Time     int64 `json:"time,omitempty"`
	TimeNano int64 `json:"timeNano,omitempty"`
}

// Actor is whom an event is about.
type Actor struct {
	ID         string
	Attributes map[string]string
}

// legacyEvent adds the three fields that went with API 1.52.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	*Event
}

func (e *Event) encode(legacy bool) []byte {
	var v any = e
	if legacy {
		l := legacyEvent{Event: e}
		switch e.Type {
		case "container":
			l.Status, l.ID, l.From = e.Action, e.Actor.ID, e.Actor.Attributes["image"]
		case "image":
			l.Status, l.ID = e.Action, e.Actor.ID
		}
		v = l
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("dockertest: encode event: %v", err))
	}
	return append(b, '\n')
}

// eventLog is the ring and who listens. Guarded by Daemon.mu.
type eventLog struct {
	ring []*Event // oldest first, at most ringSize
	subs map[*subscriber]struct{}
}

// subscriber is one open event stream.
type subscriber struct {
	filters filters
	queue   []*Event
	broken  bool
	wake    chan struct{} // has room for one
}

func (s *subscriber) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// emit records and sends an event. Called with d.mu.
func (d *Daemon) emit(typ, action, id string, attrs map[string]string) {
	now := d.now()
	e := &Event{Type: typ, Action: action, Actor: Actor{ID: id, Attributes: attrs}, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()}
	if len(d.events.ring) == ringSize {
		copy(d.events.ring, d.events.ring[1:])
		d.events.ring = d.events.ring[:ringSize-1]
	}
	d.events.ring = append(d.events.ring, e)
	for s := range d.events.subs {
		if s.filters.event(e) {
			s.queue = append(s.queue, e)
			s.ring()
		}
	}
}

// Emit sends an event of the test's own making, say a health change of nothing in particular.
func (d *Daemon) Emit(typ, action, id string, attributes map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.emit(typ, action, id, maps.Clone(attributes))
}

// Events is what the daemon remembers, oldest first.
func (d *Daemon) Events() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]Event, len(d.events.ring))
	for i, e := range d.events.ring {
		out[i] = *e
		out[i].Actor.Attributes = maps.Clone(e.Actor.Attributes)
	}
	return out
}

// BreakEvents ends all open event streams.
func (d *Daemon) BreakEvents() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.events.subs {
		s.broken = true
		s.ring()
	}
}

// EventStreams is how many clients follow the events now.
func (d *Daemon) EventStreams() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.events.subs)
}

// event says whether e passes the filters.
func (f filters) event(e *Event) bool {
	return f.any("type", func(v string) bool { return v == e.Type }) &&
		f.any("event", func(v string) bool { return matchAction(e.Action, v) }) &&
		f.any("scope", func(v string) bool { return v == e.Scope }) &&
		f.labels(e.Actor.Attributes) &&
		f.actor("container", e) && f.actor("network", e) && f.actor("volume", e) && f.actor("plugin", e) && f.actor("daemon", e) &&
		f.any("image", func(v string) bool { return matchImageEvent(e, v) })
}

// matchAction is exact, but "exec_start" matches "exec_start: sh -c …".
func matchAction(action, want string) bool {
	word, _, _ := strings.Cut(action, ":")
	return action == want || word == want
}

// actor matches events of that type by ID, ID prefix or name, and refuses those of other types.
func (f filters) actor(typ string, e *Event) bool {
	return f.any(typ, func(v string) bool {
		return e.Type == typ && (strings.HasPrefix(e.Actor.ID, v) || strings.HasPrefix(e.Actor.Attributes["name"], v))
	})
}

func matchImageEvent(e *Event, want string) bool {
	key := "name"
	if e.Type == "container" {
		key = "image"
	}
	if e.Type != "image" && e.Type != "container" {
		return false
	}
	name := e.Actor.Attributes[key]
	return e.Actor.ID == want || name == want || stripTag(name) == want || stripTag(e.Actor.ID) == want
}

// getEvents replays from the ring, then follows. The head goes out once the subscription stands, so that a client that has
// seen it misses nothing.
func (d *Daemon) getEvents(w http.ResponseWriter, r *request) error {
	since, until, err := r.sinceUntil()
	if err != nil {
		return err
	}
	f, err := r.filters()
	if err != nil {
		return err
	}
	legacy := !r.atLeast("1.52")
	sub := &subscriber{filters: f, wake: make(chan struct{}, 1)}
	d.mu.Lock()
	if d.events.subs == nil {
		d.events.subs = map[*subscriber]struct{}{}
	}
	d.events.subs[sub] = struct{}{}
	sub.queue = d.replay(sub.filters, since, until)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.events.subs, sub)
		d.mu.Unlock()
	}()
	contentType := "application/json"
	if !legacy {
		contentType = "application/jsonl"
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	flush(w)
	d.follow(w, r, sub, until, legacy)
	return nil
}

// replay is the part of the ring between since and until. Neither given: nothing. Called with d.mu.
func (d *Daemon) replay(f filters, since, until time.Time) []*Event {
	if since.IsZero() && until.IsZero() {
		return nil
	}
	var past []*Event
	for _, e := range d.events.ring {
		at := time.Unix(0, e.TimeNano)
		if !at.Before(since) && (until.IsZero() || !at.After(until)) && f.event(e) {
			past = append(past, e)
		}
	}
	return past
}

func (d *Daemon) follow(w http.ResponseWriter, r *request, sub *subscriber, until time.Time, legacy bool) {
	var over <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		over = timer.C
	}
	for {
		d.mu.Lock()
		batch, broken := sub.queue, sub.broken
		sub.queue = nil
		d.mu.Unlock()
		for _, e := range batch {
			if _, err := w.Write(e.encode(legacy)); err != nil {
				return
			}
		}
		if len(batch) > 0 {
			flush(w)
		}
		if broken {
			return
		}
		select {
		case <-sub.wake:
		case <-over:
			return
		case <-r.Context().Done():
			return
		case <-d.quit:
			return
		}
	}
}

// sinceUntil reads the two parameters: seconds, or seconds.nanoseconds.
func (r *request) sinceUntil() (since, until time.Time, err error) {
	if since, err = parseTimestamp(r.param("since")); err != nil {
		return
	}
	if until, err = parseTimestamp(r.param("until")); err != nil {
		return
	}
	if !until.IsZero() && since.After(until) {
		err = fail(http.StatusBadRequest, "`since` time (%s) cannot be after `until` time (%s)", r.param("since"), r.param("until"))
	}
	return
}

func parseTimestamp(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, fail(http.StatusInternalServerError, "strconv.ParseInt: parsing %q: invalid syntax", sec)
	}
	var nano int64
	if frac != "" {
		if nano, err = strconv.ParseInt((frac + "000000000")[:9], 10, 64); err != nil {
			return time.Time{}, fail(http.StatusInternalServerError, "strconv.ParseInt: parsing %q: invalid syntax", frac)
		}
	}
	return time.Unix(n, nano).UTC(), nil
}

// attributes merges labels and further pairs into a new map.
func attributes(labels map[string]string, pairs ...string) map[string]string {
	m := maps.Clone(labels)
	if m == nil {
		m = make(map[string]string, len(pairs)/2)
	}
	for pair := range slices.Chunk(pairs, 2) {
		m[pair[0]] = pair[1]
	}
	return m
}
