package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPath is where all berths of this computer, whatever their store, take turns in changing the network.
const lockPath = "/run/berth-local.lock"

// retryEvery is how often a lock that another process holds is asked for.
const retryEvery = 20 * time.Millisecond

var errLockGone = errors.New("the lock file was removed")

// lockNetwork waits until no other berth changes the network. The lock ends with unlock or with the process.
//
// The file goes with the lock, so that nothing is left in /run; one who waited for a file that is gone takes the next.
func lockNetwork(ctx context.Context) (unlock func(), err error) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		f, err := tryLock(lockPath)
		if err == nil {
			return func() {
				_ = os.Remove(lockPath) // while it is held: see tryLock
				_ = f.Close()           // which is what unlocks
			}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, errLockGone) {
			return nil, fmt.Errorf("lock the network: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another berth that changes the network (%s): %w", lockPath, ctx.Err())
		case <-tick.C:
		}
	}
}

// tryLock fails with EWOULDBLOCK while another has it, and with errLockGone where that one took the file along.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	held, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if named, err := os.Lstat(path); err != nil || !os.SameFile(held, named) {
		return nil, errors.Join(errLockGone, f.Close())
	}
	return f, nil
}
