package election

import (
	"time"

	"golang.org/x/sys/unix"
)

// now is the time since the computer started, its sleep included: time.Now's monotonic clock stands still while the computer sleeps,
// and the store's does not.
func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(started) // a kernel before 2.6.39
	}
	return time.Duration(t.Nano())
}

var started = time.Now()
