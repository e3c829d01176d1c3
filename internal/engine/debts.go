package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/fleet"
)

// A debt is a refresh that is owed to the picture: something has changed, and nobody has looked yet. Debts are paid after a
// while, those due together by one call; or at once, if a client wants to see (Settle). So a change costs its client no
// further call, and who reads sees all that was done before.
type debt struct {
	details bool      // of a container, not its row alone
	ripe    time.Time // when it may be paid
}

const (
	// settle is how long what an event tells of waits for the other events of the same change.
	settle = 100 * time.Millisecond
	// calmRate is how many events a second a fleet may have without any waiting longer, and patienceMost how long it may wait for the
	// other debts of its engine where so much happens that looking would be most of the manager's work.
	calmRate     = 50
	patienceMost = 5 * time.Second
	// promise is how long a new container waits for its start, which is what most are made for.
	promise = time.Second
	// rowsAtOnce bounds how many containers are asked for in one call: their IDs stand in its URL.
	rowsAtOnce = 100
)

// Changed tells that a client has changed an object. It returns at once.
func (e *Engine) Changed(kind fleet.Kind, id string) { e.later(kind, id, false) }

// Changing tells that a client's request is about to change an object, and may have at any moment; changed, that it has been
// answered. It may be called again, and then does nothing.
func (e *Engine) Changing(kind fleet.Kind, id string) (changed func()) {
	key := objectOf(kind, id)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changing[key]++
	e.count()
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.changing[key]--; e.changing[key] == 0 {
			delete(e.changing, key)
		}
		e.owe(key, false, settle)
		e.count()
	})
}

// patience is how long a ripe debt waits for others. It grows with the rate of the whole fleet's events. Who wants to see sooner does,
// by Settle.
func (e *Engine) patience() time.Duration {
	if e.o.EventRate == nil {
		return 0
	}
	return min(patienceMost, settle*time.Duration(max(0, e.o.EventRate()-calmRate))/calmRate)
}

// later asks for a refresh in a moment.
func (e *Engine) later(kind fleet.Kind, id string, details bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.owe(objectOf(kind, id), details, settle)
}

// owe notes a debt, which is ripe after wait. The caller holds mu.
func (e *Engine) owe(key object, details bool, wait time.Duration) {
	if !e.running || e.ctx.Err() != nil {
		return
	}
	ripe := time.Now().Add(wait)
	d, had := e.debts[key]
	if had && d.ripe.Before(ripe) {
		ripe = d.ripe
	}
	e.debts[key] = debt{details || had && d.details, ripe}
	e.count()
	switch {
	case !e.paying:
		e.paying = true
		e.wg.Go(e.pay)
	case ripe.Before(e.payAt):
		select {
		case e.wake <- struct{}{}:
		default: // it looks anew anyway
		}
	}
}

// pay pays the debts as they fall due, until there is none.
func (e *Engine) pay() {
	for {
		wait, none := e.payDue()
		if none {
			return
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-e.wake:
		case <-e.ctx.Done():
		}
		t.Stop()
	}
}

// payDue begins what is ripe if one has waited long enough, and tells how long the next has time.
func (e *Engine) payDue() (wait time.Duration, none bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		clear(e.debts)
	}
	now, patience := time.Now(), e.patience()
	var ripe []object
	due := false
	wait = promise // patience may have changed by then
	for key, d := range e.debts {
		left := d.ripe.Sub(now)
		if left <= 0 {
			ripe = append(ripe, key)
		}
		if left += patience; left <= 0 {
			due = true
			continue
		}
		wait = min(wait, left)
	}
	if due {
		e.begin(ripe)
	}
	e.count()
	e.paying, e.payAt = len(e.debts) > 0, now.Add(wait)
	return wait, !e.paying
}

// begin refreshes what is owed, rows together. The caller holds mu.
func (e *Engine) begin(keys []object) []*flight {
	fs := make([]*flight, 0, len(keys))
	var group []boarded
	depart := func() {
		if full := group; len(full) > 0 {
			e.wg.Go(func() { e.flyTogether(full) })
			group = nil
		}
	}
	for _, key := range keys {
		fs = append(fs, e.board(key, false, func(key object, f *flights) {
			if key.kind != fleet.KindContainer || f.now.details || !e.inspected(key.id) {
				e.wg.Go(func() { e.fly(key, f) })
				return
			}
			if group = append(group, boarded{key, f}); len(group) == rowsAtOnce {
				depart()
			}
		}))
	}
	depart()
	return fs
}

// boarded is an object whose refresh is about to begin.
type boarded struct {
	key object
	fs  *flights
}

// inspected tells whether a container's row is all that a refresh needs. The caller holds mu.
func (e *Engine) inspected(id string) bool {
	c, ok := e.node.Find(id)
	return ok && c.Inspected
}

// single are the kinds of which a refresh is of all, so that there is at most one of each.
var single = [...]fleet.Kind{fleet.KindImage, fleet.KindNetwork, fleet.KindVolume}

// bit is where a kind is counted; containers come first.
func bit(kind fleet.Kind) int {
	for i, k := range single {
		if k == kind {
			return i + 1
		}
	}
	return 0
}

// Tally counts the engines of a fleet that are unsettled, so that those who would wait see at once that they need not.
type Tally struct{ kinds [len(single) + 1]atomic.Int64 }

// None tells whether no engine has to settle anything of a kind.
func (t *Tally) None(kind fleet.Kind) bool { return t.kinds[bit(kind)].Load() == 0 }

// Unsettled tells whether Settle may have something to wait for. It takes no lock.
func (e *Engine) Unsettled(kind fleet.Kind) bool { return e.unsettled.Load()&(1<<bit(kind)) != 0 }

// count keeps Unsettled: debts, flights and what is changing. The caller holds mu.
func (e *Engine) count() {
	var now uint32
	containers := len(e.debts) + len(e.flights) + len(e.changing)
	if containers > 0 {
		for i, kind := range single {
			key := object{kind: kind}
			_, owed := e.debts[key]
			_, flying := e.flights[key]
			_, changing := e.changing[key]
			for _, has := range [...]bool{owed, flying, changing} {
				if has {
					now |= 2 << i
					containers--
				}
			}
		}
	}
	if containers > 0 {
		now |= 1
	}
	was := e.unsettled.Swap(now)
	if e.o.Unsettled == nil || was == now {
		return
	}
	for i := range e.o.Unsettled.kinds {
		if d := int64(now>>i&1) - int64(was>>i&1); d != 0 {
			e.o.Unsettled.kinds[i].Add(d)
		}
	}
}

// Settle begins all refreshes of a kind that are owed. What it returns waits until the published node shows all changes of
// which the engine has told, or whose requests it has answered. An engine that stops answering is not waited for.
func (e *Engine) Settle(kind fleet.Kind) (wait func(context.Context)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var owed []object
	for key := range e.debts {
		if key.kind == kind {
			owed = append(owed, key)
		}
	}
	for key := range e.changing {
		if _, twice := e.debts[key]; key.kind == kind && !twice {
			owed = append(owed, key)
		}
	}
	flying := e.begin(owed)
	for key, fs := range e.flights {
		if key.kind == kind {
			flying = append(flying, fs.now)
		}
	}
	lost := e.lost.Done()
	return func(ctx context.Context) {
		for _, f := range flying {
			select {
			case <-f.done:
			case <-lost:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}
