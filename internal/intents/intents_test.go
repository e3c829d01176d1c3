package intents

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"berth/internal/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *Keeper {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func drain(i fleet.Intent) fleet.Intent {
	i.Availability = fleet.Drain
	return i
}

func TestIntentsSurviveTheManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "intents.json")
	f := open(t, path)
	if len(f.All()) != 0 {
		t.Fatalf("a new file holds %v", f.All())
	}
	got, err := f.Put(t.Context(), "a", 0, func(i fleet.Intent) fleet.Intent {
		return fleet.Intent{Availability: fleet.Pause, Labels: map[string]string{"size": "xxl"}}
	})
	if err != nil || got.Version != 1 {
		t.Fatalf("Put = %+v, %v", got, err)
	}
	if _, err := f.Put(t.Context(), "a", 1, drain); err != nil {
		t.Fatal(err)
	}
	want := map[string]fleet.Intent{"a": {Availability: fleet.Drain, Labels: map[string]string{"size": "xxl"}, Version: 2}}
	if diff := cmp.Diff(want, open(t, path).All()); diff != "" {
		t.Error(diff)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".intents*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAnUpdateFromAnOldStateIsRefused(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "i"))
	if _, err := f.Put(t.Context(), "a", 0, drain); err != nil {
		t.Fatal(err)
	}
	var stale *StaleError
	if _, err := f.Put(t.Context(), "a", 0, drain); !errors.As(err, &stale) {
		t.Errorf("got %v, want a StaleError", err)
	}
}

// Two managers of one machine store are two Keepers of one file.
func TestManagersOnOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "i")
	one, two := open(t, path), open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 100)
	done := make(chan error, 1)
	go func() {
		done <- two.Follow(ctx, time.Millisecond, func() { changed <- struct{}{} }, func(err error) { t.Error(err) })
	}()
	if _, err := one.Put(t.Context(), "a", 0, drain); err != nil {
		t.Fatal(err)
	}
	<-changed
	if got := two.All()["a"].Availability; got != fleet.Drain {
		t.Errorf("the other manager sees %q", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Follow ended with %v", err)
	}
	var wg sync.WaitGroup
	for _, f := range []*Keeper{one, two} {
		wg.Go(func() {
			for range 20 {
				for {
					_, err := f.Put(t.Context(), "n", f.All()["n"].Version, drain)
					if err == nil {
						break
					}
					var stale *StaleError
					if !errors.As(err, &stale) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if got := open(t, path).All()["n"].Version; got != 40 {
		t.Errorf("40 changes by two managers made version %d", got)
	}
}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "i")
	for _, tt := range []struct{ text, want string }{
		{"{", path}, {`{"Version":9}`, "version 9"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
}
