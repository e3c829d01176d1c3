package cluster

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"berth/internal/engine"
	"berth/internal/fleet"
)

const (
	// A create that takes longer than this is watched: a ping tells a slow engine from a hung one.
	slowCreate = 250 * time.Millisecond
	// pingLimit is how long a watched engine has for it. That leaves most of a client's two seconds to try elsewhere.
	pingLimit = 600 * time.Millisecond
	// After this much of it, the other nodes are looked at as well.
	pingPatience = 200 * time.Millisecond
	// farewell is how long an engine has to say what it made for a client that left, so that it can be removed at once.
	farewell = 10 * time.Second
)

// watch ends the returned context, which is the client's but for its end, when the engine stops answering pings while a create waits for
// it, after createLimit, or some time after the client has left. A create that is quick costs two timers and no goroutine.
func (d *doubts) watch(client context.Context, e *engine.Engine, node string) (context.Context, func()) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(client))
	var looking sync.WaitGroup
	var once sync.Once
	looking.Add(1)
	look := func() {
		once.Do(func() {
			defer looking.Done()
			d.watching(work, client, cancel, e, node)
		})
	}
	slow := time.AfterFunc(slowCreate, look)
	left := context.AfterFunc(client, look)
	return work, func() {
		slow.Stop()
		left()
		cancel(nil)
		once.Do(looking.Done) // it has not begun, and will not
		looking.Wait()
	}
}

func (d *doubts) watching(work, client context.Context, cancel context.CancelCauseFunc, e *engine.Engine, node string) {
	for began := time.Now(); ; {
		patience := time.AfterFunc(pingPatience, func() { d.start() })
		err := e.Ping(work, pingLimit)
		patience.Stop()
		if err != nil && work.Err() == nil {
			cancel(&engine.UnreachableError{Node: node, Err: err, Sent: true})
			e.Suspect()
			return
		}
		if time.Since(began) > createLimit {
			cancel(&engine.UnreachableError{Node: node, Err: fmt.Errorf("no answer within %s", createLimit), Sent: true})
			return
		}
		if client.Err() != nil {
			select {
			case <-work.Done():
			case <-time.After(farewell):
				cancel(context.Cause(client))
			}
			return
		}
		select {
		case <-work.Done():
			return
		case <-client.Done():
		case <-time.After(8 * slowCreate):
		}
	}
}

// doubts are about all the other nodes when one turns out to be hung: what took it away may have taken others, and a client
// cannot wait for each in turn. All creates share one round of pings: where the manager itself is slow, each would begin one.
type doubts struct {
	c *Cluster

	mu     sync.Mutex
	round  *round
	closed bool
}

// freshRound is how long what a round has found is good enough for another create.
const freshRound = 2 * time.Second

// round is one ping of every healthy node.
type round struct {
	done  chan struct{}
	ended time.Time         // good once done is closed
	quiet map[string]string // node IDs and why they are excluded; likewise
}

// start joins the round that is under way or has just ended, or begins one.
func (d *doubts) start() *round {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.round; r != nil && !r.over() {
		return r
	}
	r := &round{done: make(chan struct{}), quiet: map[string]string{}}
	d.round = r
	if d.closed {
		close(r.done)
	} else {
		d.c.work.Go(func() { d.ask(r) })
	}
	return r
}

// close lets no round begin any more.
func (d *doubts) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

func (r *round) over() bool {
	select {
	case <-r.done:
		return time.Since(r.ended) > freshRound
	default:
		return false
	}
}

// ask pings all at once: those that hang must not make the others wait.
func (d *doubts) ask(r *round) {
	var mu sync.Mutex
	var pings sync.WaitGroup
	for _, n := range d.c.Snapshot().Nodes() {
		e, err := d.c.engineOf(n.ID)
		if n.State != fleet.Healthy || err != nil {
			continue
		}
		pings.Go(func() {
			if e.Ping(context.Background(), pingLimit) == nil {
				return
			}
			e.Suspect()
			mu.Lock()
			defer mu.Unlock()
			r.quiet[n.ID] = "did not answer"
		})
	}
	pings.Wait()
	r.ended = time.Now()
	close(r.done)
}

// add excludes those that did not answer.
func (d *doubts) add(ctx context.Context, exclude map[string]string) {
	r := d.start()
	select {
	case <-r.done:
		maps.Copy(exclude, r.quiet)
	case <-ctx.Done():
	}
}
