package main

import (
	"context"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"time"

	"berth/internal/fleet"
)

// Garbage is collected when it is so many percent of what is needed. Most of a manager's memory is the picture of the fleet,
// which lasts, so that Go's 100 would keep as much again. Collecting costs CPU time in proportion to the inverse, of which
// there is enough for a small fleet; for one of more than largeHeap the memory counts more. $GOGC and $GOMEMLIMIT have the last
// word.
const (
	collectAt      = 60
	collectLargeAt = 50
	largeHeap      = 64 << 20
)

// heapLooks is how often the heap's size is looked at.
const heapLooks = time.Minute

// collectorIsSet tells whether the operator has decided.
func collectorIsSet() bool { return os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" }

// keepSmall gives back to the system what only starting needed, once the fleet is known, and from then on keeps the garbage in
// proportion to the fleet.
func (e *serving) keepSmall(ctx context.Context, pauses *lulls) {
	if !e.awaitStarted(ctx) {
		return
	}
	if collectorIsSet() {
		debug.FreeOSMemory()
		return
	}
	percent := collectorPercent(liveHeap(), collectAt)
	debug.SetGCPercent(percent)
	debug.FreeOSMemory()
	looks := time.NewTicker(heapLooks)
	defer looks.Stop()
	for {
		select {
		case <-looks.C:
		case <-pauses.busy:
			if pauses.await(ctx) && worthCollecting(heapObjects(), liveHeap(), percent) {
				runtime.GC()
			}
			continue
		case <-ctx.Done():
			return
		}
		live := liveHeap()
		if next := collectorPercent(live, percent); next != percent {
			percent = next
			debug.SetGCPercent(percent)
		}
		if live > largeHeap && heldHeap() > live/10*14 {
			debug.FreeOSMemory() // left by a storm; a tenth of a second of CPU time at most once a minute
		}
	}
}

// lulls finds the moments in which nobody waits. A collection takes a tenth of a second in a large fleet; during a burst of requests it
// takes as long again from those, and after one it takes nothing from anybody.
type lulls struct {
	last  atomic.Int64  // Unix nanoseconds of a request's begin or end
	awake atomic.Bool   // somebody knows that there are requests
	busy  chan struct{} // there are, after a lull
}

// lull is how long no request begins or ends in one.
const lull = 100 * time.Millisecond

func newLulls() *lulls { return &lulls{busy: make(chan struct{}, 1)} }

// watch has a handler's requests noticed.
func (l *lulls) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.note()
		defer l.note()
		next.ServeHTTP(w, r)
	})
}

func (l *lulls) note() {
	l.last.Store(time.Now().UnixNano())
	if l.awake.CompareAndSwap(false, true) {
		l.busy <- struct{}{} // there is room: awake was false, so it has been read
	}
}

// await returns in the lull that follows what busy told of; false if ctx ended before.
func (l *lulls) await(ctx context.Context) bool {
	for left := lull; left > 0; left = lull - time.Since(time.Unix(0, l.last.Load())) {
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return false
		}
	}
	l.awake.Store(false)
	return true
}

// worthCollecting tells whether half of the garbage is there that would have it collected anyway: so lulls cost at most as many collections
// again.
func worthCollecting(objects, live uint64, percent int) bool {
	return objects > live+live/200*uint64(percent) //nolint:gosec // a percentage of ours
}

// collectorPercent is for a heap of that size. Between half of largeHeap and the whole it stays what it was.
func collectorPercent(live uint64, now int) int {
	switch {
	case live > largeHeap:
		return collectLargeAt
	case live < largeHeap/2:
		return collectAt
	}
	return now
}

// liveHeap is how much the last collection found in use.
func liveHeap() uint64 { return sizes("/gc/heap/live:bytes") }

// heapObjects is how much is in use or waits to be collected.
func heapObjects() uint64 { return sizes("/memory/classes/heap/objects:bytes") }

// heldHeap is how much of the system's memory the heap holds, in use or not.
func heldHeap() uint64 {
	return sizes("/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes", "/memory/classes/heap/free:bytes")
}

// sizes adds up metrics of the runtime. One that this Go does not have counts nothing.
func sizes(names ...string) (sum uint64) {
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			sum += s.Value.Uint64()
		}
	}
	return sum
}

// startingLimit is how long a fleet may be starting: engines that never answer are not waited for.
const startingLimit, startingLooks = 2 * time.Minute, 5 * time.Second

// awaitStarted returns when the containers that are listed are inspected, too; false if ctx ended before.
func (e *serving) awaitStarted(ctx context.Context) bool {
	limit := time.After(startingLimit)
	for {
		select {
		case <-time.After(startingLooks):
			if inspected(e.cluster.Snapshot()) {
				return true
			}
		case <-limit:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

func inspected(snap *fleet.Snapshot) bool {
	return !slices.ContainsFunc(snap.Nodes(), func(n *fleet.Node) bool {
		return n.State == fleet.Pending || slices.ContainsFunc(n.Containers, func(c *fleet.Container) bool { return !c.Inspected })
	})
}
