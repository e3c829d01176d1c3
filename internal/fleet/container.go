package fleet

import (
	"strconv"
	"time"

	"github.com/docker/go-units"
)

// Occupies tells whether the container holds memory, CPU and names on its node. All do: a stopped one may be started by
// its engine at any time.
func (c *Container) Occupies() bool { return c.State != "removing" && c.State != "dead" }

// Running tells whether its processes exist.
func (c *Container) Running() bool {
	return c.State == "running" || c.State == "paused" || c.State == "restarting"
}

// StatusAt is the text of the STATUS column at a time, in the words of moby's container.State.String. now is the engine's
// clock. Where the times are not known yet it is what the engine said.
func (c *Container) StatusAt(now time.Time) string {
	switch c.State {
	case "running", "paused":
		if c.StartedAt.IsZero() {
			return c.Status
		}
		s := "Up " + units.HumanDuration(now.Sub(c.StartedAt))
		switch {
		case c.State == "paused":
			return s + " (Paused)"
		case c.Health == "starting":
			return s + " (health: starting)"
		case c.Health == "healthy" || c.Health == "unhealthy":
			return s + " (" + c.Health + ")"
		}
		return s
	case "restarting":
		if c.FinishedAt.IsZero() {
			return c.Status
		}
		return "Restarting (" + strconv.Itoa(c.ExitCode) + ") " + units.HumanDuration(now.Sub(c.FinishedAt)) + " ago"
	case "exited":
		if c.FinishedAt.IsZero() {
			return c.Status
		}
		return "Exited (" + strconv.Itoa(c.ExitCode) + ") " + units.HumanDuration(now.Sub(c.FinishedAt)) + " ago"
	}
	return c.Status
}

// Reserved is what the container takes from its node's memory (bytes) and CPUs (billionths).
func (c *Container) Reserved() (memory, nanoCPUs int64) { return c.Memory, c.NanoCPUs }

// AddUp computes the Sum of a node's containers.
func AddUp(cs []*Container) Sum {
	var s Sum
	for _, c := range cs {
		s.Memory += c.Memory
		s.NanoCPUs += c.NanoCPUs
		switch {
		case c.State == "paused":
			s.Paused++
		case c.Running():
			s.Running++
		default:
			s.Stopped++
		}
	}
	return s
}

// Term is the term of the primary that asked for the container; 0 if its manager was alone.
func (c *Container) Term() uint64 {
	term, _ := strconv.ParseUint(c.Labels.Get(LabelTerm), 10, 64) // who writes nonsense there has none
	return term
}
