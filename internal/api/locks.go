package api

import (
	"context"
	"slices"
	"sync"
)

// locks is a set of mutexes by name. Waiting for one ends with the request that waits, and holding one never keeps anybody
// from another.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	slot  chan struct{} // full while held
	users int           // who hold it or wait for it
}

func newLocks() *locks { return &locks{held: map[string]*lock{}} }

// take locks all the names, in one order for everybody, and returns what unlocks them.
func (l *locks) take(ctx context.Context, names []string) (release func(), err error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	var taken []string
	release = func() {
		for _, name := range taken {
			l.unlock(name)
		}
	}
	for _, name := range names {
		if err := l.lock(ctx, name); err != nil {
			release()
			return nil, err
		}
		taken = append(taken, name)
	}
	return release, nil
}

func (l *locks) lock(ctx context.Context, name string) error {
	l.mu.Lock()
	k := l.held[name]
	if k == nil {
		k = &lock{slot: make(chan struct{}, 1)}
		l.held[name] = k
	}
	k.users++
	l.mu.Unlock()
	select {
	case k.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		l.leave(name, k)
		return ctx.Err()
	}
}

func (l *locks) unlock(name string) {
	l.mu.Lock()
	k := l.held[name]
	l.mu.Unlock()
	<-k.slot
	l.leave(name, k)
}

func (l *locks) leave(name string, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, name)
	}
}
