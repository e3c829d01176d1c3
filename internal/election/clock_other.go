//go:build !linux

package election

import "time"

var started = time.Now()

// now is a time that never goes backwards.
func now() time.Duration { return time.Since(started) }
