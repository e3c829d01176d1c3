package engine

import (
	"context"
	"errors"
	"testing"
)

func TestClientsGoFirst(t *testing.T) {
	c := NewCourtesy()
	ctx, cancel := context.WithCancel(t.Context())
	work := func() func() {
		t.Helper()
		done, err := c.after(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	for range 10 * politeAtOnce { // nobody waits
		work()
	}
	end, other := c.begin(), c.begin()
	first := work()
	for range politeAtOnce - 1 {
		work()
	}
	end()
	end() // counts once
	got := make(chan error)
	go func() {
		_, err := c.after(ctx)
		got <- err
	}()
	first()
	if err := <-got; err != nil { // its turn, although a client waits
		t.Fatal(err)
	}
	cancel()
	if _, err := c.after(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("a turn too many: %v", err)
	}
	other()
	if _, err := c.after(ctx); err != nil {
		t.Fatalf("nobody waits: %v", err)
	}
}
