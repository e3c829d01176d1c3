// Package hostlock holds locks that all berths of a user share on this computer, whatever store they work on: what a hypervisor keeps for
// all its machines is looked at and changed by one of them at a time.
package hostlock

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// every is how often a lock that another holds is tried.
const every = 50 * time.Millisecond

// Lock waits for the lock of that name, which the kernel lets go with the process. name is a program's, never a user's.
func Lock(ctx context.Context, name string) (unlock func(), err error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "berth")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := flock.New(filepath.Join(dir, name+".lock"), flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, every); err != nil {
		return nil, fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	return func() { _ = l.Close() }, nil // the kernel lets go even if this fails
}
