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
	return string(c.AppendStatus(nil, now, new(Ages)))
}

// AppendStatus is StatusAt for many containers, which share their ages.
func (c *Container) AppendStatus(out []byte, now time.Time, ages *Ages) []byte {
	switch {
	case (c.State == "running" || c.State == "paused") && !c.StartedAt.IsZero():
		out = append(append(out, "Up "...), ages.of(now.Sub(c.StartedAt))...)
		switch {
		case c.State == "paused":
			out = append(out, " (Paused)"...)
		case c.Health == "starting":
			out = append(out, " (health: starting)"...)
		case c.Health == "healthy" || c.Health == "unhealthy":
			out = append(append(append(out, " ("...), c.Health...), ')')
		}
		return out
	case c.State == "restarting" && !c.FinishedAt.IsZero():
		out = append(out, "Restarting ("...)
	case c.State == "exited" && !c.FinishedAt.IsZero():
		out = append(out, "Exited ("...)
	default:
		return append(out, c.Status...)
	}
	out = append(strconv.AppendInt(out, int64(c.ExitCode), 10), ") "...)
	return append(append(out, ages.of(now.Sub(c.FinishedAt))...), " ago"...)
}

// Ages remembers how ages are said. The zero value is ready; it is for one goroutine.
type Ages struct {
	said [128]struct {
		seconds int64
		words   string
	}
}

// of is units.HumanDuration, whose words change at whole seconds only.
func (a *Ages) of(d time.Duration) string {
	seconds := int64(max(d, 0) / time.Second)
	s := &a.said[seconds%int64(len(a.said))]
	if s.words == "" || s.seconds != seconds {
		s.seconds, s.words = seconds, units.HumanDuration(d)
	}
	return s.words
}

// Reserved is what the container takes from its node's memory (bytes) and CPUs (billionths).
func (c *Container) Reserved() (memory, nanoCPUs int64) { return c.Memory, c.NanoCPUs }

// Term is the term of the primary that asked for the container; 0 if its manager was alone.
func (c *Container) Term() uint64 {
	term, _ := strconv.ParseUint(c.Labels.Get(LabelTerm), 10, 64) // who writes nonsense there has none
	return term
}
