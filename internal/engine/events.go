package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// cursor is how far the event stream has been read, so that a new connection can go on from there.
type cursor struct {
	nano int64
	// seen are the events of that very nanosecond, since `since` is inclusive.
	seen []eventKey
}

type eventKey struct{ kind, action, actor string }

// fresh notes an event and tells whether it is new.
func (c *cursor) fresh(nano int64, key eventKey) bool {
	switch {
	case nano < c.nano:
		// Engines stamp events before they queue them, so the order of two close ones may be off; only a replay repeats.
		return true
	case nano == c.nano:
		if slices.Contains(c.seen, key) {
			return false
		}
	default:
		c.nano, c.seen = nano, c.seen[:0]
	}
	c.seen = append(c.seen, key)
	return true
}

// eventLimit is how long one event may be: its attributes hold all labels of a container.
const eventLimit = 4 << 20

// stream is an open event stream.
type stream struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	// replayUntil is when the engine subscribed us, by its own clock: what is older was told before or is in the lists.
	replayUntil int64
	resumeFrom  int64
	dress       dress
}

func (s *stream) close() {
	s.cancel()
	_ = s.body.Close() // the stream is given up; nothing can be lost with it
}

// openEvents subscribes from the last event seen. At the first connection it asks for all that the engine remembers, so that
// `docker events --since` works for a manager that was just started.
func (e *Engine) openEvents(ctx context.Context, p *probed) (*stream, error) {
	e.mu.Lock()
	resume := e.cursor.nano
	e.mu.Unlock()
	since := "1"
	if resume > 0 {
		since = fmt.Sprintf("%d.%09d", resume/1e9, resume%1e9)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(e.o.Timing.Probe, func() {
		cancel(&hungError{&lateError{"no answer to GET /events", e.o.Timing.Probe}})
	})
	url := "http://docker/v" + e.speak(p.version) + "/events?since=" + url.QueryEscape(since)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	told := e.observed(r.Method, r.URL.Path)
	res, err := e.tr.RoundTrip(r) //nolint:bodyclose // stream.close does
	timer.Stop()
	if err != nil {
		told(ctx, 0, err)
		err = cause(ctx, err)
		cancel(nil)
		return nil, fmt.Errorf("GET /events: %w", err)
	}
	told(ctx, res.StatusCode, nil)
	s := &stream{body: res.Body, cancel: func() { cancel(nil) }, resumeFrom: resume, replayUntil: time.Now().Add(p.skew).UnixNano()}
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4096)) // only to say more
		s.close()
		return nil, &statusError{"/events", res.StatusCode, message(b)}
	}
	return s, nil
}

// follow reads events until the stream ends. Each is passed on first and applied after.
func (s *stream) follow(ctx context.Context, e *Engine) error {
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	events := rawjson.NewStream(s.body, eventLimit)
	for {
		raw, err := events.Next()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, io.EOF) {
				return errors.New("the engine closed the event stream")
			}
			return fmt.Errorf("event stream: %w", err)
		}
		e.hear()
		if err := e.event(raw, s); err != nil {
			return err
		}
	}
}

// event handles one line.
func (e *Engine) event(raw []byte, s *stream) error {
	ev, err := s.dress.event(e.Node(), raw)
	if err != nil {
		return fmt.Errorf("event stream: %w", err)
	}
	e.mu.Lock()
	fresh := e.cursor.fresh(ev.TimeNano, eventKey{ev.Type, ev.Action, ev.ActorID})
	e.mu.Unlock()
	if !fresh {
		return nil
	}
	old := ev.TimeNano < s.replayUntil-int64(time.Second)
	ev.Replay = old && s.resumeFrom == 0
	e.o.Event(ev)
	if old {
		e.note(ev) // the lists, asked for after this stream was opened, show its effect
		return nil
	}
	e.apply(ev)
	return nil
}

// note keeps the times that an event tells, which no list does.
func (e *Engine) note(ev fleet.Event) {
	if ev.Type != "container" {
		return
	}
	at := time.Unix(0, ev.TimeNano)
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.hints[ev.ActorID]
	switch ev.Action {
	case "create":
		h.created = at
	case "start":
		h.started = at
	case "die":
		h.finished = at
		exit, err := strconv.Atoi(attribute(ev, "exitCode"))
		h.exit, h.hasExit = exit, err == nil
	default:
		return
	}
	e.hints[ev.ActorID] = h
}

func attribute(ev fleet.Event, key string) string {
	text, _ := rawjson.Text(ev.Attributes, key)
	return text
}

// apply refreshes what the event says has changed, unless it is known already.
func (e *Engine) apply(ev fleet.Event) {
	e.note(ev)
	switch ev.Type {
	case "container":
		e.applyContainer(ev)
	case "image":
		e.later(fleet.KindImage, "", false)
	case "volume":
		if ev.Action == "create" || ev.Action == "destroy" || ev.Action == "prune" {
			e.later(fleet.KindVolume, "", false)
		}
	case "network":
		e.applyNetwork(ev)
	case "daemon":
		if ev.Action == "reload" {
			e.background(func(ctx context.Context) error { return e.refreshInfo(ctx) })
		}
	}
}

func (e *Engine) applyContainer(ev fleet.Event) {
	action, _, _ := strings.Cut(ev.Action, ":")
	switch action {
	case "destroy":
		e.remove(ev.ActorID)
	case "exec_create":
		e.addExec(ev.ActorID, attribute(ev, "execID"))
	case "commit":
		e.later(fleet.KindImage, "", false)
	case "create":
		if c, ok := e.Node().Find(ev.ActorID); !ok || !c.Inspected {
			e.later(fleet.KindContainer, ev.ActorID, true)
		}
	case "update":
		e.later(fleet.KindContainer, ev.ActorID, true)
	case "start":
		if !e.knownStart(ev) {
			e.later(fleet.KindContainer, ev.ActorID, false)
		}
	case "die", "kill", "oom", "pause", "unpause", "stop", "restart", "rename", "health_status", "removing", "checkpoint":
		e.later(fleet.KindContainer, ev.ActorID, false)
	}
}

// knownStart tells whether the container was seen running after the event, as when a client's start was read back before
// the event came. The event's time is the exact one.
func (e *Engine) knownStart(ev fleet.Event) bool {
	at := time.Unix(0, ev.TimeNano)
	known := false
	c, ok := e.Node().Find(ev.ActorID)
	if !ok || c.State != "running" || c.StartedAt.Before(at) {
		return false
	}
	e.change(func(n *fleet.Node) {
		now, ok := n.Find(ev.ActorID)
		if !ok || now.State != "running" || now.StartedAt.Before(at) {
			return
		}
		c := *now
		c.StartedAt = at
		n.Containers = with(n.Containers, &c)
		known = true
	})
	return known
}

func (e *Engine) applyNetwork(ev fleet.Event) {
	switch ev.Action {
	case "connect", "disconnect":
		id := attribute(ev, "container")
		if id == "" || ev.Action == "connect" && e.attached(id, ev.ActorID) {
			return
		}
		e.later(fleet.KindContainer, id, false)
	default:
		e.later(fleet.KindNetwork, "", false)
	}
}

// attached tells whether a running container was seen in a network.
func (e *Engine) attached(id, network string) bool {
	c, ok := e.Node().Find(id)
	if !ok || !c.Running() {
		return false
	}
	for _, a := range c.Networks {
		if a.NetworkID == network && a.IP != "" {
			return true
		}
	}
	return false
}

// addExec remembers which container an exec belongs to.
func (e *Engine) addExec(id, exec string) {
	if exec == "" {
		return
	}
	e.change(func(n *fleet.Node) {
		old, ok := n.Find(id)
		if !ok {
			return
		}
		c := *old
		c.ExecIDs = append(append([]string(nil), old.ExecIDs...), exec)
		n.Containers = with(n.Containers, &c)
	})
}

// background runs f as part of Run; a failure makes the engine suspect.
func (e *Engine) background(f func(context.Context) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running || e.ctx.Err() != nil {
		return
	}
	ctx := e.ctx
	e.wg.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			e.o.Log.Warn("refresh failed", "node", e.Node().Name, "error", err)
			e.Suspect()
		}
	})
}
