package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"slices"
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
func (e *serving) keepSmall(ctx context.Context) {
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
	for {
		select {
		case <-time.After(heapLooks):
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
