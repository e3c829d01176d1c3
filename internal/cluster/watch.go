package cluster

import (
	"context"
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

// watch ends the returned context when the engine stops answering pings while a create waits for it, or some time after the
// client has left. A create that is quick costs two timers and no goroutine.
func watch(work, client context.Context, e *engine.Engine, node string, d *doubts) (context.Context, func()) {
	work, cancel := context.WithCancelCause(work)
	var looking sync.WaitGroup
	var once sync.Once
	looking.Add(1)
	look := func() {
		once.Do(func() {
			defer looking.Done()
			watching(work, client, cancel, e, node, d)
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

func watching(work, client context.Context, cancel context.CancelCauseFunc, e *engine.Engine, node string, d *doubts) {
	for {
		patience := time.AfterFunc(pingPatience, func() { d.start(client) })
		err := e.Ping(work, pingLimit)
		patience.Stop()
		if err != nil && work.Err() == nil {
			cancel(&engine.UnreachableError{Node: node, Err: err, Sent: true})
			e.Suspect()
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

// doubts are about all the other nodes when one turns out to be hung: what took it away may have taken others,
// and the client cannot wait for each in turn.
type doubts struct {
	c    *Cluster
	once sync.Once
	wg   sync.WaitGroup

	mu    sync.Mutex
	quiet []string // node IDs
}

// start pings every healthy node, all at once.
func (d *doubts) start(ctx context.Context) {
	d.once.Do(func() {
		for _, n := range d.c.Snapshot().Nodes() {
			e, err := d.c.engineOf(n.ID)
			if n.State != fleet.Healthy || err != nil {
				continue
			}
			d.wg.Go(func() {
				if e.Ping(ctx, pingLimit) == nil {
					return
				}
				e.Suspect()
				d.mu.Lock()
				defer d.mu.Unlock()
				d.quiet = append(d.quiet, n.ID)
			})
		}
	})
}

// add excludes those that did not answer.
func (d *doubts) add(ctx context.Context, exclude map[string]string) {
	d.start(ctx)
	d.wg.Wait()
	for _, id := range d.quiet {
		exclude[id] = "did not answer"
	}
}
