package rescue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// Options of a Rescuer.
type Options struct {
	Fleet     Fleet
	Knowledge Knowledge
	Keeper    *Keeper
	Networks  Networks // nil if there are none across hosts
	APIMax    string
	// Delay is how long a node may be silent before it is lost.
	Delay time.Duration
	// Check says whether this manager may still act; it is asked before every step. nil for one that always may.
	Check func() error
	// Parallel is how many containers are worked on at a time.
	Parallel int
	// Every is how often the fleet is looked at, RetryMin and RetryMax how long what failed is left alone.
	Every, RetryMin, RetryMax time.Duration
	Log                       *slog.Logger
}

// DefaultOptions are the times and numbers for real fleets.
func DefaultOptions() Options {
	return Options{Delay: 30 * time.Second, Parallel: 8, Every: time.Second, RetryMin: time.Second, RetryMax: 15 * time.Second}
}

// Rescuer starts containers of lost nodes elsewhere. Make it with New; Run it in one manager of a fleet at a time.
type Rescuer struct {
	o   Options
	eng caller

	version uint64 // of the snapshot as last looked at; Run's own
	work    sync.WaitGroup

	mu    sync.Mutex
	busy  map[string]bool   // IDs of the lost containers that are worked on
	tries map[string]*tries // by the same
	again bool              // something is not as it ought to be yet
	// unsure: somebody may have made a container that the snapshot does not show yet.
	unsure bool
}

// tries is what is known of work that did not succeed.
type tries struct {
	why     string // as it was told
	again   time.Time
	wait    time.Duration
	refused map[string]string // nodes that would not start it, and why
}

// New makes a Rescuer. It starts nothing.
func New(o Options) *Rescuer {
	if o.Check == nil {
		o.Check = func() error { return nil }
	}
	return &Rescuer{o: o, eng: newCaller(o.Fleet, o.APIMax), busy: map[string]bool{}, tries: map[string]*tries{}, unsure: true}
}

// Run rescues until ctx ends, and returns when all that it began has ended.
func (r *Rescuer) Run(ctx context.Context) error {
	defer r.work.Wait()
	defer r.forget()
	tick := time.NewTicker(r.o.Every)
	defer tick.Stop()
	for {
		r.pass(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// forget what was tried: another manager goes on from what it sees.
func (r *Rescuer) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries, r.version, r.unsure = map[string]*tries{}, 0, true
}

// Waiting says why a container of a lost node, by its ID, does not run elsewhere yet; "" if there is nothing to say.
func (r *Rescuer) Waiting(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tries[id]; t != nil {
		return t.why
	}
	return ""
}

// found is a container, and the node that it is on.
type found struct {
	node *fleet.Node
	c    *fleet.Container
}

// picture is what there is of lost containers and those in their place.
type picture struct {
	waiting []found          // made for a place, and not in it yet
	spare   []found          // made for a place that another has, and never started
	living  map[string]found // by the ID of a lost one: who has its place now
	aside   []found          // lost ones that are back, by the same
}

// before tells which of two in one place stays there: the one that has run, or the older one.
func (f found) before(o found) bool {
	if a, b := f.c.State == "created", o.c.State == "created"; a != b {
		return b
	}
	if f.c.Created != o.c.Created {
		return f.c.Created < o.c.Created
	}
	return f.c.ID < o.c.ID
}

// look finds out what there is. Those that lost their place in turn count for nobody's.
func look(whole []*fleet.Node) picture {
	p := picture{living: map[string]found{}}
	lost := map[string]bool{}
	var all []found
	for _, n := range whole {
		for _, c := range n.Facts().Rescued() {
			if c.Waiting() && c.Moved == nil {
				p.waiting = append(p.waiting, found{n, c})
				continue
			}
			all = append(all, found{n, c})
			for _, id := range c.Rescued.From {
				lost[id] = true
			}
		}
	}
	if len(all) == 0 {
		return p
	}
	first := map[string]found{} // by the last one lost: a manager that was cut off may have made a second
	for _, f := range all {
		if lost[f.c.ID] || f.c.Waiting() {
			continue
		}
		id := f.c.Rescued.From[0]
		if has, double := first[id]; !double || f.before(has) {
			first[id] = f
		}
	}
	for _, f := range all {
		if has := first[f.c.Rescued.From[0]]; has.c != nil && has.c != f.c && !lost[f.c.ID] && !f.c.Waiting() {
			if f.c.State == "created" {
				p.spare = append(p.spare, f)
			} else {
				p.living[f.c.ID] = has
			}
		}
	}
	for _, f := range first {
		for _, id := range f.c.Rescued.From {
			p.living[id] = f
		}
	}
	for _, n := range whole {
		if n.State != fleet.Healthy {
			continue
		}
		for _, c := range n.Containers {
			if _, replaced := p.living[c.ID]; !replaced {
				continue
			}
			if _, is := fleet.Stale(c.Name, c.ID); !is && c.Occupies() {
				p.aside = append(p.aside, found{n, c})
			}
		}
	}
	return p
}

// pass goes the next step with everything that is not as it ought to be.
func (r *Rescuer) pass(ctx context.Context) {
	s, now := r.o.Fleet.Snapshot(), time.Now()
	lost := r.o.Keeper.lost(r.o.Delay, now)
	if s.Version() == r.version && len(lost) == 0 && !r.unfinished() {
		return
	}
	if len(lost) > 0 {
		r.census(ctx)
		s = r.o.Fleet.Snapshot()
	}
	r.version = s.Version()
	p := look(r.o.Fleet.Whole())
	wanted := map[string]bool{}
	for _, f := range append(p.waiting, p.spare...) {
		if f.node.State == fleet.Healthy {
			r.begin(ctx, wanted, f.c.Rescued.From[0], func(ctx context.Context) (*record, error) { return nil, r.drop(ctx, f) })
		}
	}
	back := map[string]bool{}
	for _, f := range p.aside {
		back[p.living[f.c.ID].c.ID] = true
		r.begin(ctx, wanted, f.c.ID, func(ctx context.Context) (*record, error) { return recordOf(f), r.setAside(ctx, f, p.living[f.c.ID]) })
	}
	started := map[string]bool{}
	for _, f := range p.living {
		if f.c.ToStart() && f.node.State == fleet.Healthy && !back[f.c.ID] && !started[f.c.ID] {
			started[f.c.ID] = true
			r.begin(ctx, wanted, f.c.Rescued.From[0], func(ctx context.Context) (*record, error) { return recordOf(f), r.startLate(ctx, f) })
		}
	}
	for _, l := range lost {
		switch f, taken := p.living[l.ID]; {
		case taken && f.c.ToStart(): // above, once its node answers
		case taken:
			r.o.Keeper.taken(l.ID)
		case !r.elsewhere(s, &l):
			r.begin(ctx, wanted, l.ID, func(ctx context.Context) (*record, error) { return &l, r.rescue(ctx, &l) })
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.tries {
		if !wanted[id] && !r.busy[id] {
			delete(r.tries, id)
		}
	}
	r.again = len(wanted) > 0
}

// recordOf is what is told of a container.
func recordOf(f found) *record {
	return &record{ID: f.c.ID, Name: f.c.Name, Image: f.c.Image, Node: site{f.node.ID, f.node.Addr, f.node.Name}}
}

func (r *Rescuer) unfinished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.again || len(r.busy) > 0
}

// elsewhere tells whether a lost container is on a node that answers, itself or one that has moved: by its ID, or by its Swarm ID under
// the same name, since containers of an image that was committed from one have its Swarm ID, too.
func (r *Rescuer) elsewhere(s *fleet.Snapshot, l *record) bool {
	for _, f := range append(s.WithID(l.ID, 1), s.WithSwarmID(l.SwarmID)...) {
		if f.Node.State == fleet.Healthy && (f.Container.ID == l.ID || f.Container.Name == l.Name) {
			return true
		}
	}
	return false
}

// begin does work for a lost container unless there is some already, or it failed a moment ago.
func (r *Rescuer) begin(ctx context.Context, wanted map[string]bool, id string, do func(context.Context) (*record, error)) {
	wanted[id] = true
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tries[id]
	if r.busy[id] || len(r.busy) >= r.o.Parallel || t != nil && time.Now().Before(t.again) || ctx.Err() != nil {
		return
	}
	r.busy[id] = true
	r.work.Go(func() {
		l, err := do(ctx)
		r.mu.Lock()
		delete(r.busy, id)
		if err == nil {
			delete(r.tries, id)
		}
		r.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			r.failed(id, l, err)
		}
	})
}

// waitError is why something has to wait, in words for the user; where it is not, an engine failed.
type waitError struct{ why string }

func (e *waitError) Error() string { return e.why }

// startError says that a node would not start a container.
type startError struct {
	node *fleet.Node
	err  error
}

func (e *startError) Error() string { return "start on " + e.node.Name + ": " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// failed notes when to try again, and tells each reason once.
func (r *Rescuer) failed(id string, l *record, err error) {
	r.mu.Lock()
	t := r.tries[id]
	if t == nil {
		t = &tries{refused: map[string]string{}}
		r.tries[id] = t
	}
	t.wait = min(max(2*t.wait, r.o.RetryMin), r.o.RetryMax)
	t.again = time.Now().Add(t.wait)
	var no *startError
	if errors.As(err, &no) {
		t.refused[no.node.ID] = "would not start it"
	} else if errors.As(err, new(*waitError)) {
		clear(t.refused) // nobody is left, so all are asked again
	} else if !enginecall.Refused(err) {
		r.unsure = true
	}
	news := t.why != err.Error()
	t.why = err.Error()
	r.mu.Unlock()
	if !news {
		return
	}
	if l == nil {
		r.o.Log.Warn("what was left of a rescue could not be removed yet", "error", err)
		return
	}
	r.o.Log.Warn("a container of a lost node has to wait", "container", l.Name, "node", l.Node.Name, "reason", err)
	r.o.Fleet.Tell(l.Node.node(), EventWaiting, l.ID, map[string]string{
		"name": l.Name, "image": l.Image, "from": l.Node.Name, "reason": err.Error(),
	})
}

// refusals are the nodes that would not start a container.
func (r *Rescuer) refusals(id string) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]string{}
	if t := r.tries[id]; t != nil {
		for node, why := range t.refused {
			all[node] = why
		}
	}
	return all
}
