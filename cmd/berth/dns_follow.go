package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/fleet"
	"berth/internal/names"
)

// nameBook is what an endpoint last told of its containers.
type nameBook struct {
	o   *naming
	e   *fleetEndpoint
	log *slog.Logger

	current atomic.Pointer[namePage]
	serial  uint32 // of the zone; follow's own
	trouble string // that was logged; follow's own
}

type namePage struct {
	view *names.View
	zone *names.Zone
	at   time.Time
}

const (
	// namesEvery is how often the containers are listed although no event told of a change.
	namesEvery = 15 * time.Second
	// namesPause lets what changes together change. In a large and busy fleet it is namesShare times what a list takes, up to
	// namesPauseMax.
	namesPause, namesShare, namesPauseMax = 100 * time.Millisecond, 5, 2 * time.Second
	// namesAgain is when the containers are listed once more after the last change: an engine tells that a container died before it
	// lists it as dead.
	namesAgain = time.Second
	// namesRetry is between attempts to reach an endpoint.
	namesRetry = time.Second
	// namesHold is how long names are told of an endpoint that does not answer. Containers run on without their manager.
	namesHold = time.Minute
	// namesLimit bounds one list.
	namesLimit = 20 * time.Second
)

// namesEvents are those that change names. A health check's commands are not among them: they come all the time.
const namesEvents = `{"type":["container","node","daemon"],"event":["start","die","stop","destroy","rename","pause","unpause","health_status","move",` +
	`"engine_connect","engine_reconnect","engine_disconnect","join","leave","update"]}`

// page is what is known, or nil if that is nothing, or too old to be told.
func (b *nameBook) page() *namePage {
	if p := b.current.Load(); p != nil && time.Since(p.at) < namesHold {
		return p
	}
	return nil
}

// follow keeps the book until ctx ends.
func (b *nameBook) follow(ctx context.Context) error {
	for {
		err := b.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && b.trouble != err.Error() {
			b.trouble = err.Error()
			b.log.Warn("the fleet does not answer: its names are told for a while yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(namesRetry):
		}
	}
}

// session follows the endpoint's events for as long as it tells of them. They are listened to before the list is asked for, so that
// nothing falls between.
func (b *nameBook) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := b.events(ctx)
	if err != nil {
		return err
	}
	defer events.Close() //nolint:errcheck // its end is the session's
	told, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { ended <- tell(events, told) }()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // what the session ended with is known
	}()
	every := time.NewTicker(namesEvery)
	defer every.Stop()
	var again <-chan time.Time
	for {
		began := time.Now()
		if err := b.refresh(ctx); err != nil {
			return err
		}
		pause := min(max(namesPause, namesShare*time.Since(began)), namesPauseMax)
		if b.trouble != "" {
			b.trouble = ""
			b.log.Info("the fleet answers again")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			ended <- err // for the one who waits
			return err
		case <-every.C:
			continue
		case <-again:
			again = nil
			continue
		case <-told:
		}
		again = time.After(namesAgain)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// tell tells that there was an event, until there are no more.
func tell(events io.Reader, told chan<- struct{}) error {
	lines := bufio.NewReader(events)
	for {
		if _, err := lines.ReadSlice('\n'); err != nil && err != bufio.ErrBufferFull { //nolint:errorlint // bufio returns it bare
			return fmt.Errorf("events ended: %w", err)
		}
		select {
		case told <- struct{}{}:
		default:
		}
	}
}

func (b *nameBook) events(ctx context.Context) (io.ReadCloser, error) {
	q := url.Values{"filters": {namesEvents}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.e.base+"/events?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	res, err := b.e.transport.RoundTrip(r)
	if err != nil {
		return nil, b.e.unreachable(err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	said, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return nil, err
	}
	return nil, b.e.refusal(res.StatusCode, said)
}

// refresh reads the list anew.
func (b *nameBook) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, namesLimit)
	defer cancel()
	var list json.RawMessage
	if err := b.e.do(ctx, http.MethodGet, "/containers/json", http.Header{}, nil, &list); err != nil {
		return err
	}
	var nodes []nodeView
	if err := b.e.do(ctx, http.MethodGet, "/nodes", http.Header{}, nil, &nodes); err != nil && bytes.Contains(list, []byte(`"`+fleet.LabelNode+`":`)) {
		return fmt.Errorf("addresses of nodes: %w", err) // a single engine has none, and needs none
	}
	addrs := map[string]netip.Addr{}
	for _, n := range nodes {
		if addr, err := netip.ParseAddr(n.Status.Addr); err == nil && n.Status.State == swarm.NodeStateReady {
			addrs[n.Description.Hostname] = addr
		}
	}
	view, err := names.Read(list, addrs, b.alone())
	if err != nil {
		return err
	}
	b.serial = max(b.serial+1, uint32(time.Now().Unix())) //nolint:gosec // it wraps as serials do
	b.current.Store(&namePage{view, names.NewZone(b.o.domain, b.o.ttl, b.serial, view), time.Now()})
	return nil
}

// alone is the address of an endpoint that is a single engine.
func (b *nameBook) alone() netip.Addr {
	host := "127.0.0.1"
	if u, err := url.Parse(b.e.host); err == nil && strings.HasPrefix(b.e.host, "tcp://") {
		host = resolve(u.Hostname())
	}
	addr, _ := netip.ParseAddr(host) // that of a name that does not resolve is not known
	return addr
}
