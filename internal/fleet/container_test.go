package fleet

import (
	"testing"
	"time"

	"github.com/docker/go-units"
	"pgregory.net/rapid"
)

// The texts are those of moby's container.State.String.
func TestStatusAt(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		c    Container
		want string
	}{
		{Container{State: "running", StartedAt: ago(300 * time.Millisecond)}, "Up Less than a second"},
		{Container{State: "running", StartedAt: ago(time.Second)}, "Up 1 second"},
		{Container{State: "running", StartedAt: ago(59 * time.Second)}, "Up 59 seconds"},
		{Container{State: "running", StartedAt: ago(90 * time.Second)}, "Up About a minute"},
		{Container{State: "running", StartedAt: ago(5 * time.Minute)}, "Up 5 minutes"},
		{Container{State: "running", StartedAt: ago(75 * time.Minute)}, "Up About an hour"},
		{Container{State: "running", StartedAt: ago(47 * time.Hour)}, "Up 47 hours"},
		{Container{State: "running", StartedAt: ago(13 * 24 * time.Hour)}, "Up 13 days"},
		{Container{State: "running", StartedAt: ago(3 * 7 * 24 * time.Hour)}, "Up 3 weeks"},
		{Container{State: "running", StartedAt: ago(800 * 24 * time.Hour)}, "Up 2 years"},
		{Container{State: "running", StartedAt: now.Add(time.Second)}, "Up Less than a second"}, // by a clock that is a little off
		{Container{State: "running", StartedAt: ago(5 * time.Minute), Health: "starting"}, "Up 5 minutes (health: starting)"},
		{Container{State: "running", StartedAt: ago(5 * time.Minute), Health: "healthy"}, "Up 5 minutes (healthy)"},
		{Container{State: "running", StartedAt: ago(5 * time.Minute), Health: "unhealthy"}, "Up 5 minutes (unhealthy)"},
		{Container{State: "paused", StartedAt: ago(5 * time.Minute), Health: "healthy"}, "Up 5 minutes (Paused)"},
		{Container{State: "restarting", ExitCode: 7, FinishedAt: ago(3 * time.Second)}, "Restarting (7) 3 seconds ago"},
		{Container{State: "exited", FinishedAt: ago(2 * time.Hour)}, "Exited (0) 2 hours ago"},
		{Container{State: "exited", ExitCode: 137, FinishedAt: ago(time.Second), Health: "unhealthy"}, "Exited (137) 1 second ago"},
		{Container{State: "created", Status: "Created"}, "Created"},
		{Container{State: "dead", Status: "Dead"}, "Dead"},
		{Container{State: "removing", Status: "Removal In Progress"}, "Removal In Progress"},

		// While the times are not known, the engine's last words stand.
		{Container{State: "running", Status: "Up 9 minutes"}, "Up 9 minutes"},
		{Container{State: "restarting", Status: "Restarting (1) 2 seconds ago"}, "Restarting (1) 2 seconds ago"},
		{Container{State: "exited", Status: "Exited (1) 2 seconds ago"}, "Exited (1) 2 seconds ago"},
	} {
		if got := tt.c.StatusAt(now); got != tt.want {
			t.Errorf("%s, health %q, since %v: %q, want %q", tt.c.State, tt.c.Health, now.Sub(tt.c.StartedAt), got, tt.want)
		}
	}
}

func TestAgesAreSaidAsOnTheirOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ages := new(Ages)
		for _, seconds := range rapid.SliceOfN(rapid.Int64Range(-5, 100_000_000), 1, 300).Draw(t, "seconds") {
			d := time.Duration(seconds)*time.Second + time.Duration(rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
			if got, want := ages.of(d), units.HumanDuration(d); got != want {
				t.Fatalf("%s is %q, want %q", d, got, want)
			}
		}
	})
}

func TestStatesOfContainers(t *testing.T) {
	for state, want := range map[string][2]bool{ // its processes exist, it holds its place
		"created": {false, true}, "running": {true, true}, "paused": {true, true}, "restarting": {true, true}, "exited": {false, true},
		"removing": {false, false}, "dead": {false, false},
	} {
		c := Container{State: state}
		if got := [2]bool{c.Running(), c.Occupies()}; got != want {
			t.Errorf("%s: running and occupying = %v, want %v", state, got, want)
		}
	}
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"1.9", "1.41", -1}, {"1.41", "1.41", 0}, {"2.0", "1.99", 1}, {"1.41", "1.41.1", -1}, {"1.41", "1.41.0", 0}, {"20.10.24", "20.9.30", 1}, {"", "1.0", -1},
	} {
		if got := CompareVersions(tt.a, tt.b); got != tt.want {
			t.Errorf("CompareVersions(%s, %s) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := CompareVersions(tt.b, tt.a); got != -tt.want {
			t.Errorf("CompareVersions(%s, %s) = %d, want %d", tt.b, tt.a, got, -tt.want)
		}
	}
	n := &Node{API: "1.47", MinAPI: "1.40"}
	for version, want := range map[string]string{"1.24": "/v1.40/x", "1.41": "/v1.41/x", "1.51": "/v1.47/x"} {
		if got := n.Path(version, "/x"); got != want {
			t.Errorf("Path(%s) = %s, want %s", version, got, want)
		}
	}
	if got := new(Node).Path("1.41", "/x"); got != "/v1.41/x" {
		t.Errorf("Path on a node that never spoke = %s", got)
	}
}
