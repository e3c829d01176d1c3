package fleet

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Whatever containers come, change and go, the tally that follows them is that of the list as it is then.
func TestTheTallyFollowsItsContainers(t *testing.T) {
	states := rapid.SampledFrom([]string{"running", "paused", "exited", "created"})
	made := rapid.Custom(func(t *rapid.T) *Container {
		c := &Container{State: states.Draw(t, "state"), Memory: rapid.Int64Range(0, 9).Draw(t, "memory"), NanoCPUs: rapid.Int64Range(0, 9).Draw(t, "cpus")}
		switch rapid.IntRange(0, 6).Draw(t, "kind") {
		case 0:
			c.Relay = true
		case 1:
			c.Wanted = []Port{{HostPort: 80}}
		case 2:
			c.NetworkMode = "host"
		case 3:
			c.Reschedule = RescheduleEmpty
		case 4:
			c.Moved = &Move{From: "x"}
		case 5:
			c.Rescued = &Rescue{From: []string{"x"}}
		}
		return c
	})
	rapid.Check(t, func(t *rapid.T) {
		known := map[int]*Container{}
		var was []*Container
		var followed tally
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				id := rapid.IntRange(0, 9).Draw(t, "id")
				if rapid.Bool().Draw(t, "gone") {
					delete(known, id)
					continue
				}
				known[id] = made.Draw(t, "container")
				known[id].ID = fmt.Sprint(id)
			}
			var is []*Container
			for id := range 10 {
				if c, ok := known[id]; ok {
					is = append(is, c)
				}
			}
			followed = followed.after(was, is)
			if whole := (tally{}).after(nil, is); followed != whole {
				t.Fatalf("followed %+v, whole %+v", followed, whole)
			}
			was = is
		}
	})
}
