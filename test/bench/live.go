package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lags follows the events of an endpoint and tells how long after the engine's own time each came.
type lags struct {
	cancel context.CancelFunc
	seen   chan time.Duration
}

func followLags(ctx context.Context, c *client, action string) (*lags, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addr+version+"/events", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	res, err := c.http.Do(r) //nolint:bodyclose // the reader does
	if err != nil {
		cancel()
		return nil, err
	}
	l := &lags{cancel, make(chan time.Duration, 1<<16)}
	go func() { // ends with the stream
		defer close(l.seen)
		defer res.Body.Close()
		for d := json.NewDecoder(res.Body); ; {
			var ev struct {
				Action   string
				TimeNano int64 `json:"timeNano"`
			}
			if d.Decode(&ev) != nil {
				return
			}
			if ev.Action == action {
				l.seen <- time.Since(time.Unix(0, ev.TimeNano))
			}
		}
	}()
	return l, nil
}

// stop waits a moment for n of them, and ends.
func (l *lags) stop(n int) []time.Duration {
	var all []time.Duration
	patience := time.After(5 * time.Second)
	for len(all) < n {
		select {
		case d, ok := <-l.seen:
			if !ok {
				return all
			}
			all = append(all, d)
		case <-patience:
			n = len(all)
		}
	}
	l.cancel()
	for d := range l.seen {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

func (b *bench) measureEvents(ctx context.Context) error {
	const rate, count = 500, 1500
	var p50, p99 ratios
	lost := 0
	for round := range rounds {
		// The first engine is asked directly too, so its events come to both.
		viaBerth, err := followLags(ctx, b.fleet, "exec_detach")
		if err != nil {
			return err
		}
		directly, err := followLags(ctx, b.direct, "exec_detach")
		if err != nil {
			return err
		}
		tick := time.NewTicker(time.Second / rate)
		for i := range count {
			<-tick.C
			if _, err := b.sim.do(ctx, http.MethodPost, fmt.Sprintf("/event?engine=0&id=x&n=%d-%d", round, i)); err != nil {
				return err
			}
		}
		tick.Stop()
		got, floor := viaBerth.stop(count), directly.stop(count)
		if len(floor) == 0 || len(got) == 0 {
			return errors.New("no events came")
		}
		lost += count - len(got)
		p50 = append(p50, float64(median(got))/float64(median(floor)))
		p99 = append(p99, float64(at(got, 0.99))/float64(at(floor, 0.99)))
	}
	b.add(fmt.Sprintf("events, %d a second: lag p50 over direct", rate), p50.median(), 2, "×")
	b.add("  p99", p99.median(), 4, "×")
	b.add("  lost or doubled", max(float64(lost), -float64(lost)), 0.5, "")
	return nil
}

// stream opens an exec that echoes, and returns its connection.
func stream(ctx context.Context, c *client, container string) (net.Conn, *bufio.Reader, error) {
	var made struct {
		ID string `json:"Id"`
	}
	err := c.want(ctx, http.StatusCreated, http.MethodPost, "/containers/"+container+"/exec", `{"AttachStdin":true,"AttachStdout":true,"Tty":true,"Cmd":["cat"]}`, &made)
	if err != nil {
		return nil, nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, nil, err
	}
	body := `{"Detach":false,"Tty":true}`
	_, err = fmt.Fprintf(conn, "POST %s/exec/%s/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %d\r\n\r\n%s", version, made.ID, len(body), body)
	if err != nil {
		return nil, nil, err
	}
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, nil, err
		}
		if strings.TrimSpace(line) == "" {
			return conn, in, nil
		}
	}
}

func (b *bench) measureStreams(ctx context.Context) error {
	var list []struct {
		ID string `json:"Id"`
	}
	if err := b.direct.want(ctx, 200, http.MethodGet, "/containers/json?limit=1", "", &list); err != nil || len(list) == 0 {
		return fmt.Errorf("the first engine has no container: %w", err)
	}
	var p50 ratios
	for range rounds {
		floor, err := roundTrips(ctx, b.direct, list[0].ID)
		if err != nil {
			return err
		}
		took, err := roundTrips(ctx, b.fleet, list[0].ID)
		if err != nil {
			return err
		}
		p50 = append(p50, float64(took)/float64(floor))
	}
	b.add("stream: round trip of a byte, p50 over direct", p50.median(), 2.3, "×")
	before, err := b.m.inUse(ctx)
	if err != nil {
		return err
	}
	var conns []net.Conn
	for range b.o.streams {
		c, _, err := stream(ctx, b.fleet, list[0].ID)
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	time.Sleep(time.Second)
	after, err := b.m.inUse(ctx)
	for _, c := range conns {
		err = errors.Join(err, c.Close())
	}
	b.add("  memory of one at rest", (after-before)/1024/float64(b.o.streams), 20, "KiB")
	return err
}

func roundTrips(ctx context.Context, c *client, container string) (p50 time.Duration, err error) {
	conn, in, err := stream(ctx, c, container)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	took, _, err := timed(1000, 1, func(int) error {
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		_, err := in.ReadByte()
		return err
	})
	return median(took), err
}

func (b *bench) measureDead(ctx context.Context) error {
	for _, way := range []struct {
		ill, well string
		must      float64
	}{{"refuse", "listen", 1}, {"hang", "resume", 15}} {
		if _, err := b.sim.do(ctx, http.MethodPost, "/"+way.ill+"?engine=0"); err != nil {
			return err
		}
		noticed, err := b.until(ctx, b.o.nodes-1)
		if err != nil {
			return err
		}
		began := time.Now()
		id, err := createAndStart(ctx, b.fleet, "meanwhile-"+way.ill)
		if err != nil {
			return err
		}
		created := time.Since(began)
		if _, err := b.sim.do(ctx, http.MethodPost, "/"+way.well+"?engine=0"); err != nil {
			return err
		}
		back, err := b.until(ctx, b.o.nodes)
		if err != nil {
			return err
		}
		b.add("an engine that begins to "+way.ill+": shown", noticed.Seconds(), way.must, "s")
		b.add("  a create meanwhile", created.Seconds(), 5, "s")
		b.add("  back in use", back.Seconds(), 3, "s")
		if err := b.fleet.want(ctx, http.StatusNoContent, http.MethodDelete, "/containers/"+id+"?force=1", "", nil); err != nil {
			return err
		}
	}
	return nil
}

// until waits for so many healthy nodes.
func (b *bench) until(ctx context.Context, n int) (time.Duration, error) {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var i info
		if err := b.fleet.want(ctx, 200, http.MethodGet, "/info", "", &i); err != nil {
			return 0, err
		}
		if healthy(i) == n {
			return time.Since(began), nil
		}
		if time.Since(began) > time.Minute {
			return 0, fmt.Errorf("%d nodes are healthy after a minute, want %d", healthy(i), n)
		}
	}
}

// soak creates and removes at a rate and looks for what grows, and for events that are lost or doubled.
func (b *bench) soak(ctx context.Context) error {
	events, err := followActions(ctx, b.fleet)
	if err != nil {
		return err
	}
	end := time.Now().Add(b.o.soak)
	tick := time.NewTicker(time.Second / time.Duration(b.o.rate))
	defer tick.Stop()
	report := time.NewTicker(max(b.o.soak/20, time.Second))
	defer report.Stop()
	fmt.Println("   TIME  CREATES  MEMORY MiB  THREADS  DESCRIPTORS")
	type life struct {
		id  string
		err error
	}
	done := make(chan life, b.o.rate*10)
	created := map[string]bool{}
	for n := 0; time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-done:
			if l.err != nil {
				return l.err
			}
			created[l.id] = true
		case <-report.C:
			if err := b.report(time.Until(end), len(created)); err != nil {
				return err
			}
		case <-tick.C:
			n++
			go func() {
				id, err := b.oneLife(ctx, "soak"+strconv.Itoa(n))
				done <- life{id, err}
			}()
			if under := n - len(created); under > b.o.rate*5 {
				return fmt.Errorf("%d lives are under way at once: the rate is too high for this computer", under)
			}
		}
	}
	time.Sleep(3 * time.Second) // the last ones end
	for len(done) > 0 {
		l := <-done
		if l.err != nil {
			return l.err
		}
		created[l.id] = true
	}
	return events.check(created)
}

func (b *bench) oneLife(ctx context.Context, name string) (id string, err error) {
	if id, err = createAndStart(ctx, b.fleet, name); err != nil {
		return "", err
	}
	return id, b.fleet.want(ctx, http.StatusNoContent, http.MethodDelete, "/containers/"+id+"?force=1", "", nil)
}

func (b *bench) report(left time.Duration, created int) error {
	rss, err1 := b.m.status("VmRSS")
	threads, err2 := b.m.status("Threads")
	fds, err3 := b.m.descriptors()
	fmt.Printf("%7s  %7d  %10.1f  %7d  %11d\n", left.Round(time.Second), created, float64(rss)/1024, threads, fds)
	return errors.Join(err1, err2, err3)
}

// actions counts what happened to each container.
type actions struct {
	cancel context.CancelFunc
	seen   map[string]int // "create ID"
	ended  chan struct{}
}

func followActions(ctx context.Context, c *client) (*actions, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addr+version+"/events", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	res, err := c.http.Do(r) //nolint:bodyclose // the reader does
	if err != nil {
		cancel()
		return nil, err
	}
	a := &actions{cancel, map[string]int{}, make(chan struct{})}
	go func() { // ends with the stream
		defer close(a.ended)
		defer res.Body.Close()
		for d := json.NewDecoder(res.Body); ; {
			var ev struct {
				Type, Action string
				Actor        struct {
					ID         string
					Attributes map[string]string
				}
			}
			if err := d.Decode(&ev); err != nil {
				return
			}
			if ev.Type == "container" && strings.HasPrefix(ev.Actor.Attributes["name"], "soak") {
				a.seen[ev.Action+" "+ev.Actor.ID]++
			}
		}
	}()
	return a, nil
}

// check wants each event of the containers that were created once. What an engine made of a create that was given up, and tried
// elsewhere, has events too: it must be gone without ever having run.
func (a *actions) check(created map[string]bool) error {
	a.cancel()
	<-a.ended
	givenUp := map[string]bool{}
	for key, n := range a.seen {
		action, id, _ := strings.Cut(key, " ")
		if n != 1 && action != "die" {
			return fmt.Errorf("event %s came %d times", key, n)
		}
		if created[id] {
			continue
		}
		givenUp[id] = true
		if action == "start" {
			return fmt.Errorf("container %s runs, and nobody was told of it", id)
		}
	}
	for id := range created {
		for _, action := range []string{"create", "start", "destroy"} {
			if a.seen[action+" "+id] == 0 {
				return fmt.Errorf("event %s %s was lost", action, id)
			}
		}
	}
	for id := range givenUp {
		if a.seen["create "+id] != a.seen["destroy "+id] {
			return fmt.Errorf("container %s was given up and is still there, or an event of it was lost", id)
		}
	}
	fmt.Printf("%d created, started and removed; each event came once; %d more were given up and removed\n", len(created), len(givenUp))
	return nil
}
