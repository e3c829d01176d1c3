package hostlock

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestOneHoldsALockAtATime(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	unlock, err := Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := Lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Lock(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second holder: %v", err)
	}
	unlock()
	again, err := Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
}
