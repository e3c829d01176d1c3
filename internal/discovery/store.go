package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Store is a key-value store, or what does the work of one, as the place of a fleet's members.
type Store interface {
	Registrar
	// Follow calls see with all members: once the store has told them, and at every change; never twice at once. It returns when ctx
	// ends, or when it can no longer be sure to hear of every change, and says why. So in between the store was up, and who was seen
	// and is not any more has left, or did not renew its membership.
	Follow(ctx context.Context, see func(addrs []string)) error
}

// NewStore makes a Store and connects to nothing yet.
type NewStore func(rawURL string, o Options) (Store, error)

const (
	// confirmBeats is how many heartbeats a known member must be missing from a store that was away, before it is dropped: the store
	// may have lost its memory, and agents say again that they are there. With the usual heartbeat it is the usual --ttl.
	confirmBeats = 3
	// retry is the longest pause before a store that is down is tried again.
	retry = 5 * time.Second
)

// members is a Source that watches a Store, and does not believe it too soon.
type members struct {
	store   Store
	o       Options
	confirm time.Duration
}

func newMembers(store Store, o Options) (*members, error) {
	m := &members{store: store, o: o, confirm: confirmBeats * o.Heartbeat}
	if text := o.Opts[optTTL]; text != "" {
		ttl, err := time.ParseDuration(text)
		if err != nil || ttl <= 0 {
			return nil, fmt.Errorf("%s=%s: want a duration above 0, such as 180s", optTTL, shorten(text))
		}
		m.confirm = ttl
	}
	return m, nil
}

// view is what one Follow says: members, or why it ended.
type view struct {
	addrs []string
	err   error
	over  bool
}

// Watch follows the store, and tries it again when it was lost.
func (m *members) Watch(ctx context.Context, update func([]string)) error {
	w := &memberWatch{members: m, update: update, held: map[string]time.Time{}, bad: map[string]bool{}}
	pause := time.Duration(0)
	for ctx.Err() == nil {
		if w.session(ctx) {
			pause = 0
		}
		pause = min(pause+retry/5, retry, w.o.Heartbeat)
		wait(ctx, pause)
	}
	w.state(none, nil)
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// memberWatch is what one Watch remembers.
type memberWatch struct {
	*members
	update func([]string)

	listed []string             // by the store, when it was last heard; sorted
	held   map[string]time.Time // known members that it does not list → when they are dropped
	up     bool                 // the store is heard
	told   []string             // reported
	said   bool                 // something was reported
	bad    map[string]bool      // entries that were warned of
	down   string               // what state was told
	about  concern              // what that is about
}

// session is one Follow. It tells whether the store was heard at all.
func (w *memberWatch) session(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	views := make(chan view)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := w.store.Follow(ctx, func(addrs []string) {
			select {
			case views <- view{addrs: addrs}:
			case <-ctx.Done():
			}
		})
		select {
		case views <- view{err: err, over: true}:
		case <-ctx.Done():
		}
	}()
	defer func() {
		cancel()
		<-ended
	}()
	w.up = false
	for {
		due := w.due()
		select {
		case <-ctx.Done():
			return w.up
		case v := <-views:
			if v.over {
				w.lost(v.err)
				return w.up
			}
			w.take(v.addrs)
		case <-due:
			w.drop()
		}
	}
}

// due fires when the next held member is to be dropped. Time without the store does not count.
func (w *memberWatch) due() <-chan time.Time {
	if !w.up || len(w.held) == 0 {
		return nil
	}
	first := time.Time{}
	for _, at := range w.held {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return time.After(time.Until(first))
}

func (w *memberWatch) drop() {
	for addr, at := range w.held {
		if !time.Now().Before(at) {
			delete(w.held, addr)
		}
	}
	w.report()
}

// lost keeps what was known.
func (w *memberWatch) lost(err error) {
	if err == nil {
		err = errors.New("it ended the watch")
	}
	if !w.said {
		w.tell(nil)
	}
	w.state(away, fmt.Errorf("%w; the last known members are kept", err))
}

// take reads a list. The first one after the store was away says who is there, but not who left.
func (w *memberWatch) take(addrs []string) {
	now := w.valid(addrs)
	gone := slices.DeleteFunc(slices.Clone(w.listed), func(a string) bool { _, still := slices.BinarySearch(now, a); return still })
	until := time.Now().Add(w.confirm)
	switch {
	case !w.up:
		for addr := range w.held {
			w.held[addr] = until
		}
		fallthrough
	case len(now) == 0 && len(gone) > 1: // all at once is more often an accident than a farewell
		for _, addr := range gone {
			w.held[addr] = until
		}
	}
	for _, addr := range now {
		delete(w.held, addr)
	}
	w.up, w.listed = true, now
	w.report()
}

// valid are the entries that can be understood.
func (w *memberWatch) valid(addrs []string) []string {
	var set addrSet
	for _, a := range addrs {
		if err := set.add(a); err != nil && !w.bad[a] && len(w.bad) < maxBad {
			w.bad[a] = true
			w.o.Warn(fmt.Errorf("discovery: %w", err))
		}
	}
	slices.Sort(set.addrs)
	return set.addrs
}

// maxBad is of how many bad entries one hears.
const maxBad = 100

func (w *memberWatch) report() {
	all := slices.Clone(w.listed)
	var kept []string
	for addr := range w.held {
		kept = append(kept, addr)
	}
	slices.Sort(kept)
	all = append(all, kept...)
	slices.Sort(all)
	if !w.said || !slices.Equal(all, w.told) {
		w.tell(all)
	}
	switch {
	case len(kept) == 0:
		w.state(none, nil)
	default:
		w.state(holding, fmt.Errorf("the store does not list %s any more, after it was away or was emptied at once; kept until it was so for %v",
			shorten(strings.Join(kept, ", ")), w.confirm))
	}
}

func (w *memberWatch) tell(addrs []string) {
	w.told, w.said = addrs, true
	w.update(slices.Clone(addrs))
}

// concern is what a state is about. Texts are no measure: they name one server, and then another.
type concern int

const (
	none concern = iota
	away
	holding
)

// state says what is wrong now; and warns of it when it begins.
func (w *memberWatch) state(about concern, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if about != w.about && err != nil {
		w.o.Warn(fmt.Errorf("discovery: %w", err))
	}
	w.about = about
	if text != w.down {
		w.down = text
		w.o.State(err)
	}
}
