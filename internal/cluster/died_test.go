package cluster

import (
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// An engine tells of a container's end before it lists it as ended, and of nothing after that when the container ended by itself.
func TestAContainerThatDiedIsNotTakenForRunning(t *testing.T) {
	r := newRig(t, 1, func(o *dockertest.Options) { o.Containers, o.SlowCleanup = 1, 500*time.Millisecond })
	c1 := func(s *fleet.Snapshot) *fleet.Container { return s.Nodes()[0].Containers[0] }
	r.await(t, "its times are known", func(s *fleet.Snapshot) bool { return c1(s).Inspected })
	id := c1(r.Snapshot()).ID
	r.daemons[0].Exit(id, 3)
	r.await(t, "it has exited", func(s *fleet.Snapshot) bool { return c1(s).State == "exited" && c1(s).ExitCode == 3 })
	asked := 0
	for _, q := range r.daemons[0].Requests() {
		if q.Path == "/containers/json" {
			asked++
		}
	}
	if asked > 1+5 {
		t.Errorf("%d lists were asked for", asked)
	}
}
