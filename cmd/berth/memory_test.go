package main

import (
	"runtime"
	"testing"

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
