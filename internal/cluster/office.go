package cluster

import (
	"context"
	"strconv"

	"berth/internal/engine"
	"berth/internal/fleet"
)

// Office is the right to create containers, which at most one of several managers has at a time.
type Office interface {
	// Hold returns a context that ends when the office is lost, with the reason as its cause, and the term of office; an error if this
	// manager does not hold it.
	Hold(ctx context.Context) (context.Context, context.CancelFunc, uint64, error)
	// Check says whether it is held in that term still. A process that was stopped for long may act before any context ends.
	Check(term uint64) error
	// Term is the current one, or 0.
	Term() uint64
}

// termKey is the context key of the office that a create is made in.
type termKey struct{}

type inTerm struct {
	office Office
	term   uint64
}

// inOffice is what a create runs under.
func (c *Cluster) inOffice(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if c.o.Office == nil {
		return ctx, func() {}, nil
	}
	ctx, leave, term, err := c.o.Office.Hold(ctx)
	if err != nil {
		return nil, nil, err
	}
	return context.WithValue(ctx, termKey{}, inTerm{c.o.Office, term}), leave, nil
}

// stillInOffice is asked right before an engine is, and again before a client is told: a primary that slept in between may have a
// successor, which has not seen what it made.
func stillInOffice(ctx context.Context) error {
	in, ok := ctx.Value(termKey{}).(inTerm)
	if !ok {
		return nil
	}
	return in.office.Check(in.term)
}

// ownLabels are what a container is labelled with beside what its client says.
func ownLabels(ctx context.Context, swarmID string) map[string]string {
	labels := map[string]string{fleet.LabelSwarmID: swarmID}
	if in, ok := ctx.Value(termKey{}).(inTerm); ok {
		labels[fleet.LabelTerm] = strconv.FormatUint(in.term, 10)
	}
	return labels
}

// settleDoubles removes containers that a primary before this one had asked for and that came into being only after it was gone, when
// their names were given away again: a name is one container's. Their clients were never told of them, and they were never started.
// It is called while an engine publishes.
func (c *Cluster) settleDoubles(e *engine.Engine, n *fleet.Node) {
	if c.o.Office == nil || n.State != fleet.Healthy {
		return
	}
	term := c.o.Office.Term()
	if term == 0 {
		return
	}
	var s *fleet.Snapshot
	for _, ct := range n.Containers {
		if ct.State != "created" || ct.Promised {
			continue
		}
		if s == nil {
			s = c.Snapshot()
		}
		if c.isDouble(s, n, ct, term) {
			c.dropDouble(e, n, ct.ID)
		}
	}
}

// isDouble tells whether a newer container of that name exists elsewhere.
func (c *Cluster) isDouble(s *fleet.Snapshot, n *fleet.Node, ct *fleet.Container, term uint64) bool {
	made := ct.Term()
	if made == 0 || made >= term {
		return false
	}
	for _, other := range s.Named(ct.Name) {
		if other.Node.ID != n.ID && other.Container.Term() > made {
			return true
		}
	}
	return false
}

func (c *Cluster) dropDouble(e *engine.Engine, n *fleet.Node, id string) {
	c.work.Go(func() {
		if err := c.removeNow(e, n, id); err != nil {
			c.o.Log.Warn("a container that an earlier primary made too late could not be removed", "node", n.Name, "container", id, "error", err)
			return
		}
		c.o.Log.Info("removed a container that an earlier primary made too late", "node", n.Name, "container", id)
	})
}
