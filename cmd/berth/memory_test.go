package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"berth/internal/fleet"
)

func TestCollectorPercentFollowsTheHeap(t *testing.T) {
	now := collectAt
	for _, tt := range []struct {
		live uint64
		want int
	}{{0, collectAt}, {largeHeap, collectAt}, {largeHeap + 1, collectLargeAt}, {largeHeap / 2, collectLargeAt}, {largeHeap/2 - 1, collectAt}} {
		if now = collectorPercent(tt.live, now); now != tt.want {
			t.Errorf("with %d bytes in use garbage is collected at %d %%, want %d", tt.live, now, tt.want)
		}
	}
}

func TestAFleetIsKnownWhenItsContainersAreInspected(t *testing.T) {
	node := func(state fleet.State, inspected ...bool) *fleet.Node {
		n := &fleet.Node{ID: "n", State: state}
		for _, is := range inspected {
			n.Containers = append(n.Containers, &fleet.Container{Inspected: is})
		}
		return n
	}
	for _, tt := range []struct {
		node *fleet.Node
		want bool
	}{{node(fleet.Pending), false}, {node(fleet.Healthy), true}, {node(fleet.Healthy, true, false), false}, {node(fleet.Unhealthy, true), true}} {
		if got := inspected(new(fleet.Snapshot).Replace(tt.node)); got != tt.want {
			t.Errorf("%s with %d containers is known: %v, want %v", tt.node.State, len(tt.node.Containers), got, tt.want)
		}
	}
}

func TestTheRuntimeTellsTheSizesThatAreAskedFor(t *testing.T) {
	runtime.GC()
	if live, held := liveHeap(), heldHeap(); live == 0 || held < live {
		t.Errorf("%d bytes live of %d held", live, held)
	}
}

func TestALullBeginsWhenNoRequestHasForAWhile(t *testing.T) {
	l := newLulls()
	h := l.watch(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ask := func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/_ping", nil)) }
	for range 2 { // the second time after a lull
		ask()
		ask()
		select {
		case <-l.busy:
		default:
			t.Fatal("nobody was told of the requests")
		}
		began := time.Now()
		if !l.await(t.Context()) {
			t.Fatal("no lull")
		}
		if took := time.Since(began); took < lull/2 {
			t.Errorf("a lull after %s", took)
		}
	}
	ask()
	<-l.busy
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l.await(ctx) {
		t.Error("a lull although nobody waits for one any more")
	}
}

func TestHalfOfTheGarbageIsWorthCollecting(t *testing.T) {
	for _, tt := range []struct {
		objects, live uint64
		percent       int
		want          bool
	}{{100, 100, 50, false}, {12_400, 10_000, 50, false}, {12_600, 10_000, 50, true}, {12_600, 10_000, 60, false}} {
		if got := worthCollecting(tt.objects, tt.live, tt.percent); got != tt.want {
			t.Errorf("%d objects, %d live, at %d %%: %v, want %v", tt.objects, tt.live, tt.percent, got, tt.want)
		}
	}
}
