package cluster

import (
	"slices"
	"testing"

	"berth/internal/fleet"
)

// What another manager tells is told once, byte for byte, whether it was this one's own, was heard before or is repeated by a third.
func TestHear(t *testing.T) {
	c := New(Options{Backlog: 256})
	n := &fleet.Node{ID: "n1", Name: "host1", Addr: "10.0.0.1:2376"}
	_, live := c.Subscribe(t.Context())
	c.Tell(n, "move", "c1", map[string]string{"from": "host2"})
	own := <-live
	told := []string{string(own.Raw)}
	if err := c.Hear(own.Raw, 0); err != nil {
		t.Error(err)
	}
	other := New(Options{Backlog: 256})
	for range 2 {
		other.Tell(n, "move", "c1", map[string]string{"from": "host2"})
	}
	heard, _ := other.Subscribe(t.Context())
	for range 2 {
		for _, ev := range heard {
			if err := c.Hear(ev.Raw, heard[1].TimeNano); err != nil {
				t.Error(err)
			}
		}
	}
	told = append(told, string(heard[0].Raw), string(heard[1].Raw))
	backlog, _ := c.Subscribe(t.Context())
	var got []string
	for _, ev := range backlog {
		got = append(got, string(ev.Raw))
		ev.Seq, ev.Replay = 0, false
		if ev.NodeID != "n1" || ev.Node != "host1" || ev.Type != "container" || ev.Action != "move" || ev.ActorID != "c1" || ev.Scope != "local" || len(ev.Attributes) == 0 {
			t.Errorf("remembered as %+v", ev)
		}
	}
	if !slices.Equal(got, told) {
		t.Errorf("remembered %q, want %q", got, told)
	}
	// What was over before is no news.
	if ev := <-live; string(ev.Raw) != told[2] || len(live) != 0 {
		t.Errorf("news: %s and %d more, want %s", ev.Raw, len(live), told[2])
	}
	for _, wrong := range []string{`{`, `[]`, `{}`, `{"Type":"container","Action":"move"}`} {
		if c.Hear([]byte(wrong), 0) == nil {
			t.Errorf("%s was taken for an event", wrong)
		}
	}
}
