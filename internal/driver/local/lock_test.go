package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLockIsHeldByOneAndLeavesNoFile, though each takes the file along.
func TestLockIsHeldByOneAndLeavesNoFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	inside, most := 0, 0
	var mu sync.Mutex // stands for the kernel's state, guards both
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			unlock, err := lockNetwork(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			if _, err := os.Stat(lockPath); err != nil {
				t.Error(err)
			}
			mu.Lock()
			inside--
			mu.Unlock()
			unlock()
		})
	}
	all.Wait()
	if most != 1 {
		t.Errorf("%d held the lock at once", most)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := tryLock(path); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second one = %v, want EWOULDBLOCK", err)
	}
	// Its holder takes the file along; the next one is a lock of its own.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
}

func TestWaitForTheLockEndsWithItsContext(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	unlock, err := lockNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lockNetwork(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a held lock = %v, want the context's end", err)
	}
}
