package cluster

import (
	"strings"
	"testing"
	"time"

	"berth/internal/fleet"
)

func TestSwarmEventsAreToldOnce(t *testing.T) {
	id, local := strings.Repeat("s", 25), strings.Repeat("f", 64)
	var s swarmEvents
	for _, tt := range []struct {
		kind, action, id, scope string
		after                   time.Duration
		want                    bool
	}{
		{"network", "create", id, "swarm", 0, true},
		{"network", "create", id, "swarm", time.Second, false},
		{"network", "create", id, "local", time.Second, false},
		{"network", "connect", id, "local", time.Second, true},
		{"network", "connect", id, "local", time.Second, true},
		{"network", "create", local, "local", time.Second, true},
		{"network", "remove", id, "swarm", time.Second, true},
		{"network", "create", id, "swarm", 2 * time.Minute, true},
		{"node", "update", "n", "swarm", 0, false},
		{"container", "start", "c", "local", 0, true},
		{"container", "start", "c", "", 0, true},
	} {
		ev := fleet.Event{Type: tt.kind, Action: tt.action, ActorID: tt.id, Scope: tt.scope, TimeNano: int64(tt.after)}
		if got := s.pass(ev); got != tt.want {
			t.Errorf("%s %s %.3s of scope %q after %s: %t", tt.kind, tt.action, tt.id, tt.scope, tt.after, got)
		}
	}
}
