// Package electiontest is the suite that every Leaser must pass.
package electiontest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/internal/election"
)

// Server is a store that runs for the suite.
type Server struct {
	// New makes the Leaser of a candidate for the lease in one place of the store.
	New func(t *testing.T, place, addr string) election.Leaser
	// TTL is what New asks for, and Slack how long after it the store may still keep a lease.
	TTL, Slack time.Duration
	// Steal deletes the leader's key.
	Steal func(t *testing.T, place string)
	// Stop and Start end the server and bring it back with what it knew.
	Stop, Start func(t *testing.T)
}

// Run runs the suite.
func Run(t *testing.T, s Server) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, Server)
	}{
		{"one leads", oneLeads},
		{"a lease that is not renewed ends", ends},
		{"a lease that is renewed lasts", lasts},
		{"a key that was deleted is lost", stolen},
		{"managers follow each other", follow},
		{"the store stops and starts", stopped},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
	}
}

func (s Server) open(t *testing.T, place, addr string) election.Leaser {
	t.Helper()
	l := s.New(t, place, addr)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

const (
	a = "10.0.0.1:3376"
	b = "10.0.0.2:3376"
)

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func acquire(t *testing.T, l election.Leaser) election.Lease {
	t.Helper()
	lease, err := l.Acquire(limited(t))
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	return lease
}

func release(t *testing.T, l election.Lease) {
	t.Helper()
	if err := l.Release(limited(t)); err != nil {
		t.Errorf("release: %v", err)
	}
}

func wantLeader(t *testing.T, l election.Leaser, want election.Leader) {
	t.Helper()
	got, err := l.Leader(limited(t))
	if err != nil || got != want {
		t.Errorf("leader %+v, %v, want %+v", got, err, want)
	}
}

func oneLeads(t *testing.T, s Server) {
	first, second := s.open(t, "one", a), s.open(t, "one", b)
	wantLeader(t, second, election.Leader{})
	lease := acquire(t, first)
	if lease.TTL() < s.TTL/2 || lease.TTL() > 2*s.TTL {
		t.Errorf("a lease of %v, asked for %v", lease.TTL(), s.TTL)
	}
	_, err := second.Acquire(limited(t))
	held, ok := errors.AsType[*election.HeldError](err)
	if !ok || held.Leader != (election.Leader{Addr: a, Term: lease.Term()}) {
		t.Errorf("a second candidate: %v", err)
	}
	wantLeader(t, second, election.Leader{Addr: a, Term: lease.Term()})
	other := acquire(t, s.open(t, "one/more", b)) // of another fleet
	release(t, other)
	release(t, lease)
	release(t, lease) // once more is no error
	wantLeader(t, first, election.Leader{})
	next := acquire(t, second)
	if next.Term() <= lease.Term() {
		t.Errorf("term %d follows term %d", next.Term(), lease.Term())
	}
	release(t, lease) // of old: it takes nothing from the new one
	wantLeader(t, first, election.Leader{Addr: b, Term: next.Term()})
	release(t, next)
}

// take asks again and again until the lease is free.
func take(t *testing.T, l election.Leaser, within time.Duration) election.Lease {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var lease election.Lease
		if lease, err = l.Acquire(limited(t)); err == nil {
			return lease
		}
	}
	t.Fatalf("no lease within %v: %v", within, err)
	return nil
}

func ends(t *testing.T, s Server) {
	first, second := s.open(t, "ends", a), s.open(t, "ends", b)
	began := time.Now()
	lease := silence(t, first)
	next := take(t, second, s.TTL+s.Slack)
	if took := time.Since(began); took < lease.TTL() {
		t.Errorf("a lease of %v was another's after %v", lease.TTL(), took)
	}
	if next.Term() <= lease.Term() {
		t.Errorf("term %d follows term %d", next.Term(), lease.Term())
	}
	if err := lease.Renew(limited(t)); !errors.Is(err, election.ErrLost) {
		t.Errorf("renew a lease that is another's: %v", err)
	}
	release(t, lease)
	wantLeader(t, second, election.Leader{Addr: b, Term: next.Term()})
	release(t, next)
}

// silence acquires a lease of which the store hears nothing more.
func silence(t *testing.T, l election.Leaser) election.Lease {
	t.Helper()
	lease := acquire(t, l)
	if m, ok := l.(interface{ Mute() }); ok { // one whose sessions are kept alive by a library
		m.Mute()
	}
	return lease
}

func lasts(t *testing.T, s Server) {
	first, second := s.open(t, "lasts", a), s.open(t, "lasts", b)
	lease := acquire(t, first)
	for end := time.Now().Add(lease.TTL() + s.Slack); time.Now().Before(end); time.Sleep(lease.TTL() / 4) {
		if err := lease.Renew(limited(t)); err != nil {
			t.Fatalf("renew: %v", err)
		}
		if _, err := second.Acquire(limited(t)); err == nil {
			t.Fatal("two leases at once")
		}
	}
	release(t, lease)
}

func stolen(t *testing.T, s Server) {
	first, second := s.open(t, "stolen", a), s.open(t, "stolen", b)
	lease := acquire(t, first)
	s.Steal(t, "stolen")
	if err := lease.Renew(limited(t)); !errors.Is(err, election.ErrLost) {
		t.Errorf("renew after the key was deleted: %v", err)
	}
	next := take(t, second, 5*time.Second)
	if next.Term() <= lease.Term() {
		t.Errorf("term %d follows term %d", next.Term(), lease.Term())
	}
	release(t, lease)
	wantLeader(t, first, election.Leader{Addr: b, Term: next.Term()})
	release(t, next)
}

// manager campaigns until it is stopped.
type manager struct {
	addr   string
	cancel context.CancelFunc
	done   chan struct{}
	tenure atomic.Pointer[election.Tenure] // nil when it does not lead
	leader atomic.Pointer[election.Leader] // as it was told
}

// managers know of each other's tenures.
type managers struct {
	t     *testing.T
	mu    sync.Mutex
	terms []uint64
}

func (all *managers) start(l election.Leaser, addr string) *manager {
	ctx, cancel := context.WithCancel(context.Background())
	m := &manager{addr: addr, cancel: cancel, done: make(chan struct{})}
	o := election.Options{
		Advertise: addr,
		Changed:   func(l election.Leader, _ bool) { m.leader.Store(&l) },
		Warn:      func(err error) { all.t.Logf("%s: %v", addr, err) },
	}
	go func() {
		defer close(m.done)
		err := election.Run(ctx, l, o, func(ctx context.Context, tenure *election.Tenure) error {
			m.tenure.Store(tenure)
			defer m.tenure.Store(nil)
			all.mu.Lock()
			all.terms = append(all.terms, tenure.Term())
			all.mu.Unlock()
			<-ctx.Done()
			return ctx.Err()
		})
		if err != nil {
			all.t.Errorf("%s: Run: %v", addr, err)
		}
	}()
	all.t.Cleanup(m.stop)
	return m
}

func (m *manager) stop() {
	m.cancel()
	<-m.done
}

func (m *manager) leads() bool {
	t := m.tenure.Load()
	return t != nil && t.Valid()
}

// await waits until exactly one of the managers leads, and fails if ever two do.
func (all *managers) await(within time.Duration, of ...*manager) *manager {
	all.t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if m := all.leading(of...); m != nil {
			return m
		}
	}
	all.t.Fatalf("nobody leads after %v", within)
	return nil
}

func (all *managers) leading(of ...*manager) (leader *manager) {
	all.t.Helper()
	for _, m := range of {
		if m.leads() {
			if leader != nil {
				all.t.Fatalf("%s and %s lead at once", leader.addr, m.addr)
			}
			leader = m
		}
	}
	return leader
}

func (all *managers) rising() {
	all.t.Helper()
	all.mu.Lock()
	defer all.mu.Unlock()
	for i := 1; i < len(all.terms); i++ {
		if all.terms[i] <= all.terms[i-1] {
			all.t.Errorf("terms %v", all.terms)
		}
	}
}

func follow(t *testing.T, s Server) {
	all := &managers{t: t}
	first, second := all.start(s.open(t, "follow", a), a), all.start(s.open(t, "follow", b), b)
	leader := all.await(10*time.Second, first, second)
	for end := time.Now().Add(s.TTL + s.TTL/2); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if all.leading(first, second) != leader {
			t.Fatal("the leader changed without a reason")
		}
	}
	other := first
	if leader == first {
		other = second
	}
	if told := other.leader.Load(); told == nil || told.Addr != leader.addr {
		t.Errorf("%s was told that %+v leads, and it is %s", other.addr, told, leader.addr)
	}
	began := time.Now()
	leader.stop()
	if got := all.await(s.TTL, other); got != other {
		t.Fatal("nobody follows")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("after a farewell the next one led after %v", took)
	}
	all.rising()
}

func stopped(t *testing.T, s Server) {
	all := &managers{t: t}
	first, second := all.start(s.open(t, "stopped", a), a), all.start(s.open(t, "stopped", b), b)
	leader := all.await(10*time.Second, first, second)
	tenure := leader.tenure.Load()
	s.Stop(t)
	began := time.Now()
	for tenure.Valid() {
		if time.Since(began) > s.TTL {
			t.Fatalf("it leads %v after the store was stopped", time.Since(began))
		}
		time.Sleep(2 * time.Millisecond)
	}
	if all.leading(first, second) != nil {
		t.Error("one leads without the store")
	}
	s.Start(t)
	all.await(s.TTL+s.Slack+10*time.Second, first, second)
	all.rising()
}
