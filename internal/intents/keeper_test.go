package intents

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"berth/internal/fleet"
)

// store is a Shelf whose moods are the test's.
type store struct {
	mu      sync.Mutex
	data    []byte
	version int
	err     error  // of every call
	mute    bool   // no call is answered before its context ends
	deaf    bool   // a save is done, and its answer lost: asked again, it is a conflict
	before  func() // once, before the next save
	saves   int
}

func (s *store) answer(ctx context.Context) error {
	s.mu.Lock()
	err, mute := s.err, s.mute
	s.mu.Unlock()
	if mute {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (s *store) Load(ctx context.Context) ([]byte, string, error) {
	if err := s.answer(ctx); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		return nil, "", nil
	}
	return s.data, strconv.Itoa(s.version), nil
}

func (s *store) Save(ctx context.Context, data []byte, version string) error {
	if err := s.answer(ctx); err != nil {
		return err
	}
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := strconv.Itoa(s.version); s.data == nil && version != "" || s.data != nil && version != now {
		return ErrConflict
	}
	s.data = data
	s.version++
	s.saves++
	if s.deaf {
		s.deaf = false
		return ErrConflict
	}
	return nil
}

func (s *store) Close() error { return nil }

func (s *store) be(set func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set()
}

func share(s *store, seed map[string]fleet.Intent) (*Keeper, *bytes.Buffer) {
	log := &bytes.Buffer{}
	return Share(s, Sharing{Seed: seed, Log: slog.New(slog.NewTextHandler(log, nil))}), log
}

func put(t *testing.T, k *Keeper, id string, version uint64) {
	t.Helper()
	if _, err := k.Put(t.Context(), id, version, drain); err != nil {
		t.Fatal(err)
	}
}

func wantVersions(t *testing.T, k *Keeper, want map[string]uint64) {
	t.Helper()
	for id, v := range want {
		if got := k.All()[id].Version; got != v {
			t.Errorf("%s is of version %d, want %d; all: %v", id, got, v, k.All())
		}
	}
}

func TestAnotherNodesChangeMakesTheEditRunAgain(t *testing.T) {
	s := &store{}
	one, _ := share(s, nil)
	two, _ := share(s, nil)
	put(t, one, "a", 0)
	s.before = func() { put(t, two, "b", 0) }
	edits := 0
	got, err := one.Put(t.Context(), "a", 1, func(i fleet.Intent) fleet.Intent {
		edits++
		return drain(i)
	})
	if err != nil || got.Version != 2 || edits != 2 {
		t.Errorf("%+v, %v after %d edits", got, err, edits)
	}
	wantVersions(t, one, map[string]uint64{"a": 2, "b": 1})
}

func TestTheSameNodesChangeMakesAnUpdateStale(t *testing.T) {
	s := &store{}
	one, _ := share(s, nil)
	two, _ := share(s, nil)
	s.before = func() { put(t, two, "a", 0) }
	var stale *StaleError
	if _, err := one.Put(t.Context(), "a", 0, drain); !errors.As(err, &stale) || errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want a StaleError", err)
	}
	wantVersions(t, one, map[string]uint64{"a": 1}) // it has seen why
}

func TestASaveWhoseAnswerWasLostIsFound(t *testing.T) {
	s := &store{deaf: true}
	k, _ := share(s, nil)
	got, err := k.Put(t.Context(), "a", 0, drain)
	if err != nil || got.Version != 1 || got.Availability != fleet.Drain || s.saves != 1 {
		t.Errorf("%+v, %v after %d saves", got, err, s.saves)
	}
}

func TestAStoreThatIsAwayChangesNothing(t *testing.T) {
	for name, set := range map[string]func(*store){
		"refuses":      func(s *store) { s.err = errors.New("connection refused") },
		"says nothing": func(s *store) { s.mute = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &store{}
				k, _ := share(s, nil)
				put(t, k, "a", 0)
				ctx, cancel := context.WithCancel(t.Context())
				var told []error
				changes := 0
				done := make(chan error, 1)
				go func() {
					done <- k.Follow(ctx, time.Second, func() { changes++ }, func(err error) { told = append(told, err) })
				}()
				s.be(func() { set(s) })
				time.Sleep(30 * time.Second)
				began := time.Now()
				if _, err := k.Put(t.Context(), "a", 1, drain); !errdefs.IsUnavailable(err) {
					t.Errorf("Put: %v, want unavailable", err)
				}
				if took := time.Since(began); took > patience {
					t.Errorf("Put took %v", took)
				}
				wantVersions(t, k, map[string]uint64{"a": 1})
				s.be(func() { s.err, s.mute = nil, false })
				other, _ := share(s, nil)
				put(t, other, "b", 0)
				time.Sleep(patience + 2*time.Second)
				cancel()
				<-done
				if len(told) != 2 || told[0] == nil || told[1] != nil || changes != 1 {
					t.Errorf("told %v, %d changes; want one error, nil, and one change", told, changes)
				}
				wantVersions(t, k, map[string]uint64{"a": 1, "b": 1})
			})
		})
	}
}

func TestAnEmptyStoreGetsWhatWasInTheFile(t *testing.T) {
	s := &store{err: errors.New("not there yet")}
	seed := map[string]fleet.Intent{"a": {Availability: fleet.Pause, Version: 4}}
	one, log := share(s, seed)
	if err := one.Refresh(t.Context()); !errdefs.IsUnavailable(err) || len(one.All()) != 0 {
		t.Errorf("before there is a store: %v, %v", err, one.All())
	}
	s.err = nil
	if err := one.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantVersions(t, one, map[string]uint64{"a": 4})
	if !strings.Contains(log.String(), "taken over into the store") {
		t.Errorf("log: %s", log)
	}
	two, log := share(s, map[string]fleet.Intent{"a": {Version: 9}, "z": {Version: 9}})
	put(t, two, "a", 4)
	wantVersions(t, two, map[string]uint64{"a": 5, "z": 0})
	if log.Len() > 0 {
		t.Errorf("log: %s", log)
	}
	s.data, s.version = nil, 0 // it is lost
	put(t, two, "b", 0)
	wantVersions(t, two, map[string]uint64{"a": 5, "b": 1})
	if !strings.Contains(log.String(), "the store has lost what") {
		t.Errorf("log: %s", log)
	}
}

// A store that lost its memory may be given an old one by the first manager that comes back to it; who knows better says so.
func TestTheNewestIsPutBack(t *testing.T) {
	s := &store{}
	late, _ := share(s, nil)
	put(t, late, "a", 0)
	put(t, late, "b", 0)
	k, log := share(s, nil)
	put(t, k, "a", 1)
	s.data = nil
	put(t, late, "b", 1)
	wantVersions(t, late, map[string]uint64{"a": 1, "b": 2})
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantVersions(t, k, map[string]uint64{"a": 2, "b": 2})
	if !strings.Contains(log.String(), "nodes=1") {
		t.Errorf("log: %s", log)
	}
	s.data = nil
	put(t, late, "b", 2)
	wantVersions(t, late, map[string]uint64{"a": 1, "b": 3})
	if _, err := k.Put(t.Context(), "b", 2, drain); err == nil {
		t.Error("an update from an older version was taken")
	}
	wantVersions(t, k, map[string]uint64{"a": 2, "b": 3})
}

// A document that cannot be read, such as a later berth's, is never written over.
func TestADocumentOfALaterVersionIsLeftAlone(t *testing.T) {
	s := &store{data: []byte(`{"Version":9}`), version: 1}
	k, _ := share(s, map[string]fleet.Intent{"a": {Version: 1}})
	if _, err := k.Put(t.Context(), "a", 0, drain); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("Put: %v", err)
	}
	if s.saves != 0 {
		t.Error("it was replaced")
	}
}
