// Package intentstest is the suite that every Shelf must pass.
package intentstest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"berth/internal/fleet"
	"berth/internal/intents"
)

// Server is a store that runs for the suite.
type Server struct {
	// New makes a manager's Shelf for the document in one place of the store.
	New func(t *testing.T, place string) intents.Shelf
	// Wipe deletes the document.
	Wipe func(t *testing.T, place string)
	// Stop and Start end the server and bring it back with what it knew; nil for a store that is no server.
	Stop, Start func(t *testing.T)
}

// Run runs the suite.
func Run(t *testing.T, s Server) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, Server)
	}{
		{"who loaded an older document cannot save", conflicts},
		{"a document that was deleted and made again is another", again},
		{"no change is lost", race},
		{"a large document", large},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
	}
	if s.Stop == nil {
		return
	}
	t.Run("managers see each other's changes", func(t *testing.T) { follow(t, s) })
	t.Run("a store that lost its memory", func(t *testing.T) { lost(t, s) })
	t.Run("the store stops and starts", func(t *testing.T) { stopped(t, s) })
}

func (s Server) open(t *testing.T, place string) intents.Shelf {
	t.Helper()
	shelf := s.New(t, place)
	t.Cleanup(func() {
		if err := shelf.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return shelf
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func load(t *testing.T, s intents.Shelf, want string) string {
	t.Helper()
	data, version, err := s.Load(limited(t))
	if err != nil || string(data) != want || (version == "") != (want == "") {
		t.Fatalf("Load = %q of version %q, %v, want %q", data, version, err, want)
	}
	return version
}

func save(t *testing.T, s intents.Shelf, data, version string) {
	t.Helper()
	if err := s.Save(limited(t), []byte(data), version); err != nil {
		t.Fatalf("Save(%q, version %q): %v", data, version, err)
	}
}

func refused(t *testing.T, s intents.Shelf, data, version string) {
	t.Helper()
	if err := s.Save(limited(t), []byte(data), version); !errors.Is(err, intents.ErrConflict) {
		t.Errorf("Save(%q, version %q): %v, want ErrConflict", data, version, err)
	}
}

func conflicts(t *testing.T, s Server) {
	one, two := s.open(t, "conflicts"), s.open(t, "conflicts")
	load(t, one, "")
	save(t, one, "a", "")
	refused(t, two, "b", "")
	first := load(t, two, "a")
	save(t, two, "b", first)
	refused(t, one, "c", first)
	second := load(t, one, "b")
	if second == first {
		t.Errorf("version %q twice", first)
	}
	save(t, one, "a", second) // the content of the first version is not the first version
	if third := load(t, two, "a"); third == second {
		t.Errorf("version %q twice", third)
	}
	load(t, s.open(t, "conflicts/other"), "") // another fleet's
}

func again(t *testing.T, s Server) {
	one := s.open(t, "again")
	save(t, one, "a", "")
	save(t, one, "b", load(t, one, "a"))
	old := load(t, one, "b")
	s.Wipe(t, "again")
	refused(t, one, "c", old)
	load(t, one, "")
	save(t, one, "d", "")
	refused(t, one, "c", old)
	load(t, one, "d")
}

func race(t *testing.T, s Server) {
	const writers, changes = 4, 10
	var wg sync.WaitGroup
	for range writers {
		shelf := s.open(t, "race")
		wg.Go(func() {
			for range changes {
				for {
					data, version, err := shelf.Load(limited(t))
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(string(data)) // nothing is 0
					err = shelf.Save(limited(t), []byte(strconv.Itoa(n+1)), version)
					if err == nil {
						break
					}
					if !errors.Is(err, intents.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	load(t, s.open(t, "race"), strconv.Itoa(writers*changes))
}

// large is what a thousand nodes take.
func large(t *testing.T, s Server) {
	shelf := s.open(t, "large")
	data := string(bytes.Repeat([]byte("intents "), 50<<10))
	save(t, shelf, data, "")
	load(t, shelf, data)
}

// manager keeps intents until the test ends.
type manager struct {
	*intents.Keeper
	changed chan struct{}
	failed  chan error
}

const every = 50 * time.Millisecond

func (s Server) manager(t *testing.T, place string, seed map[string]fleet.Intent) *manager {
	t.Helper()
	m := &manager{
		Keeper:  intents.Share(s.open(t, place), intents.Sharing{Seed: seed, Log: slog.New(slog.DiscardHandler)}),
		changed: make(chan struct{}, 100), failed: make(chan error, 100),
	}
	if err := m.Refresh(limited(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- m.Follow(ctx, every, func() { m.changed <- struct{}{} }, func(err error) { m.failed <- err })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow ended with %v", err)
		}
	})
	return m
}

func (m *manager) put(t *testing.T, id string, a fleet.Availability) {
	t.Helper()
	if _, err := m.Put(limited(t), id, m.All()[id].Version, setting(a)); err != nil {
		t.Fatalf("Put: %v", err)
	}
	if got := m.All()[id].Availability; got != a {
		t.Errorf("who has put %q sees %q", a, got)
	}
}

func setting(a fleet.Availability) func(fleet.Intent) fleet.Intent {
	return func(i fleet.Intent) fleet.Intent {
		i.Availability = a
		return i
	}
}

func (m *manager) await(t *testing.T, id string, want fleet.Availability) {
	t.Helper()
	end := time.After(10 * time.Second)
	for m.All()[id].Availability != want {
		select {
		case <-m.changed:
		case <-end:
			t.Fatalf("%s is %q, want %q", id, m.All()[id].Availability, want)
		}
	}
}

func follow(t *testing.T, s Server) {
	seed := map[string]fleet.Intent{"old": {Availability: fleet.Drain, Version: 3}}
	one := s.manager(t, "follow", seed)
	two := s.manager(t, "follow", map[string]fleet.Intent{"older": {Availability: fleet.Drain, Version: 1}})
	for _, m := range []*manager{one, two} {
		if len(m.All()) != 1 || m.All()["old"].Version != 3 {
			t.Errorf("at first there is %v, want %v", m.All(), seed)
		}
	}
	one.put(t, "a", fleet.Pause)
	two.await(t, "a", fleet.Pause)
	two.put(t, "a", fleet.Active)
	two.put(t, "b", fleet.Drain)
	one.await(t, "b", fleet.Drain)
	one.await(t, "a", fleet.Active)
	if got := one.All()["a"].Version; got != 2 {
		t.Errorf("two changes made version %d", got)
	}
}

func lost(t *testing.T, s Server) {
	one, two := s.manager(t, "lost", nil), s.manager(t, "lost", nil)
	one.put(t, "a", fleet.Pause)
	two.await(t, "a", fleet.Pause)
	s.Wipe(t, "lost")
	two.put(t, "b", fleet.Drain)
	one.await(t, "b", fleet.Drain)
	late := s.manager(t, "lost", nil)
	if got := late.All()["a"]; got.Availability != fleet.Pause || got.Version != 1 {
		t.Errorf("after the store had lost it: %+v", got)
	}
}

func stopped(t *testing.T, s Server) {
	m, shelf := s.manager(t, "stopped", nil), s.open(t, "stopped")
	m.put(t, "a", fleet.Pause)
	_, version, err := shelf.Load(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	s.Stop(t)
	select {
	case err := <-m.failed:
		away(t, "Follow", err)
	case <-time.After(20 * time.Second):
		t.Fatal("that the store is away was not told")
	}
	began := time.Now()
	_, err = m.Put(context.Background(), "a", 1, setting(fleet.Active))
	away(t, "Put", err)
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("Put took %v to say so", took)
	}
	if err := shelf.Save(limited(t), nil, version); err == nil || errors.Is(err, intents.ErrConflict) {
		t.Errorf("Save at a store that is away: %v", err)
	}
	if got := m.All()["a"].Availability; got != fleet.Pause {
		t.Errorf("without the store it is %q", got)
	}
	s.Start(t)
	select {
	case err := <-m.failed:
		if err != nil {
			t.Errorf("told twice: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("that the store is back was not told")
	}
	m.put(t, "a", fleet.Drain)
	s.manager(t, "stopped", nil).await(t, "a", fleet.Drain)
}

func away(t *testing.T, what string, err error) {
	t.Helper()
	if _, ok := errors.AsType[*intents.UnavailableError](err); !ok {
		t.Errorf("%s at a store that is away: %v, want an UnavailableError", what, err)
	}
}
