package election

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a store whose clock and moods are the test's.
type store struct {
	mu      sync.Mutex
	ttl     time.Duration
	term    uint64
	holder  string
	until   time.Time
	err     error         // of every call
	delay   time.Duration // of every call
	renewed int
}

type candidate struct {
	*store
	addr string
}

func (s *store) answer(ctx context.Context) error {
	s.mu.Lock()
	delay, err := s.delay, s.err
	s.mu.Unlock()
	pause(ctx, delay)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c candidate) Acquire(ctx context.Context) (Lease, error) {
	if err := c.answer(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holder != "" && time.Now().Before(c.until) {
		return nil, &HeldError{Leader{c.holder, c.term}}
	}
	c.term++
	c.holder, c.until = c.addr, time.Now().Add(c.ttl)
	return &fakeLease{c, c.term}, nil
}

func (c candidate) Leader(context.Context) (Leader, error) { return Leader{}, nil }
func (c candidate) Close() error                           { return nil }

type fakeLease struct {
	candidate
	term uint64
}

func (l *fakeLease) TTL() time.Duration { return l.ttl }
func (l *fakeLease) Term() uint64       { return l.term }

func (l *fakeLease) Renew(ctx context.Context) error {
	if err := l.answer(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store.term != l.term || !time.Now().Before(l.until) {
		return ErrLost
	}
	l.until = time.Now().Add(l.ttl)
	l.renewed++
	return nil
}

func (l *fakeLease) Release(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store.term == l.term {
		l.holder = ""
	}
	return nil
}

const ttl = 20 * time.Second

// inBubble runs with a clock that only moves when all wait.
func inBubble(t *testing.T, test func(t *testing.T, s *store, o Options)) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		test(t, &store{ttl: ttl}, Options{Advertise: "a", clock: func() time.Duration { return time.Since(began) }})
	})
}

func TestTheContextEndsBeforeTheLease(t *testing.T) {
	inBubble(t, func(t *testing.T, s *store, o Options) {
		ctx, cancel := context.WithCancel(t.Context())
		var said []string
		o.Warn = func(err error) {
			if err != nil {
				said = append(said, err.Error())
			}
		}
		began := time.Now()
		err := Run(ctx, candidate{s, "a"}, o, func(work context.Context, tenure *Tenure) error {
			time.Sleep(3 * ttl) // renewed all the while
			if work.Err() != nil || !tenure.Valid() {
				t.Errorf("after %v of renewals: %v", time.Since(began), work.Err())
			}
			s.mu.Lock()
			s.err = errors.New("the store is down")
			until := s.until
			s.mu.Unlock()
			<-work.Done()
			if tenure.Valid() || work.Err() == nil {
				t.Error("valid after its context's end")
			}
			if left := time.Until(until); left <= 0 || left > ttl/3 {
				t.Errorf("the context ended %v before the lease", left)
			}
			cancel()
			return work.Err()
		})
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		if all := strings.Join(said, "\n"); !strings.Contains(all, "the store is down") || len(said) != 1 {
			t.Errorf("warnings:\n%s", all)
		}
	})
}

// A renewal counts from when it was sent, however late its answer comes.
func TestRenewalsCountFromTheirStart(t *testing.T) {
	inBubble(t, func(t *testing.T, s *store, o Options) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.delay = 4 * time.Second
		if err := Run(ctx, candidate{s, "a"}, o, func(work context.Context, tenure *Tenure) error {
			if left := tenure.Left(); left != 16*time.Second-4*time.Second {
				t.Errorf("an answer that took 4 s leaves %v of 16 s", left)
			}
			time.Sleep(2 * ttl)
			if !tenure.Valid() {
				t.Error("slow answers ended it")
			}
			s.mu.Lock()
			s.delay = 10 * time.Second // longer than a call may take
			s.mu.Unlock()
			<-work.Done()
			cancel()
			return nil
		}); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// A process that was stopped finds that it does not lead before it does anything, although its timers did not fire yet.
func TestStoppedProcess(t *testing.T) {
	var jumped time.Duration
	clock := func() time.Duration { return jumped }
	tenure := newTenure(7, clock, time.Hour)
	ctx := tenureContext{context.Background(), tenure}
	if ctx.Err() != nil || !tenure.Valid() {
		t.Fatal("over at once")
	}
	jumped = time.Hour // which the timer cannot know
	select {
	case <-ctx.Done():
	default:
		t.Error("the context is not over")
	}
	if ctx.Err() == nil || tenure.Valid() || tenure.Left() != 0 {
		t.Error("it believes that it leads")
	}
	tenure.extend(2 * time.Hour)
	if tenure.Valid() {
		t.Error("a renewal that was answered late brought it back")
	}
}

func TestLostLeaseEndsTheWork(t *testing.T) {
	inBubble(t, func(t *testing.T, s *store, o Options) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		terms := []uint64{}
		var leaders []string
		o.Changed = func(l Leader, self bool) {
			if self {
				l.Addr += " (self)"
			}
			leaders = append(leaders, l.Addr)
		}
		if err := Run(ctx, candidate{s, "a"}, o, func(work context.Context, tenure *Tenure) error {
			terms = append(terms, tenure.Term())
			if len(terms) == 2 {
				cancel()
			} else {
				s.mu.Lock()
				s.term++ // somebody took it
				s.holder = "b"
				s.mu.Unlock()
			}
			<-work.Done()
			return work.Err()
		}); err != nil {
			t.Errorf("Run: %v", err)
		}
		if len(terms) != 2 || terms[0] != 1 || terms[1] != 3 {
			t.Errorf("terms %v", terms)
		}
		if got := strings.Join(leaders, ","); got != "a (self),,b,a (self)," {
			t.Errorf("leaders %s", got)
		}
	})
}

func TestWorkThatEndsGivesTheLeaseBack(t *testing.T) {
	inBubble(t, func(t *testing.T, s *store, o Options) {
		broken := errors.New("broken")
		if err := Run(t.Context(), candidate{s, "a"}, o, func(context.Context, *Tenure) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("Run: %v", err)
		}
		if s.holder != "" {
			t.Error("the lease was kept")
		}
	})
}

func TestFarewellLetsTheNextLead(t *testing.T) {
	inBubble(t, func(t *testing.T, s *store, o Options) {
		first, stop := context.WithCancel(t.Context())
		second, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		leads := make(chan string, 2)
		campaign := func(ctx context.Context, addr string) {
			o := o
			o.Advertise = addr
			wg.Go(func() {
				if err := Run(ctx, candidate{s, addr}, o, func(work context.Context, _ *Tenure) error {
					leads <- addr
					<-work.Done()
					return nil
				}); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
			synctest.Wait()
		}
		campaign(first, "a")
		campaign(second, "b")
		if got := <-leads; got != "a" {
			t.Errorf("%s leads first", got)
		}
		began := time.Now()
		stop()
		if got := <-leads; got != "b" {
			t.Errorf("%s leads then", got)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the next one leads after %v", took)
		}
		cancel()
		wg.Wait()
	})
}
