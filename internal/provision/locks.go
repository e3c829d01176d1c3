package provision

import (
	"context"
	"time"
)

const (
	defaultLockWait = 5 * time.Minute
	lockPoll        = 2 * time.Second
)

// withPackages runs a script that installs packages, alone. Fresh hosts update themselves behind one's back, and only some of the
// package managers wait for each other: here, one that was overtaken all the same is run once more.
func (h *host) withPackages(ctx context.Context, script string) error {
	deadline := time.Now().Add(h.config.LockWait)
	for {
		if err := h.waitPackages(ctx, deadline); err != nil {
			return err
		}
		said, err := h.sh(ctx, script, nil)
		if err == nil || !lockText.MatchString(said) || time.Now().After(deadline) {
			return err
		}
		h.say("Another program was quicker to lock the packages: trying again")
		if err := pause(ctx, lockPoll); err != nil {
			return err
		}
	}
}

// waitPackages waits until no other program has the packages locked.
func (h *host) waitPackages(ctx context.Context, deadline time.Time) error {
	if h.family != debian {
		return nil // dnf and yum wait by themselves, zypper and apk when told to
	}
	for told := ""; ; {
		said, err := h.sh(ctx, holderScript, nil)
		if err != nil {
			return err
		}
		holder := lastLine(said)
		if holder == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return advise("Wait for its end, or stop it there; then provision again.",
				"the host's packages are locked by another program, still after %s: %s", h.config.LockWait, holder)
		}
		if holder != told {
			h.say("Waiting for another program to finish with the packages: %s", holder)
			told = holder
		}
		if err := pause(ctx, lockPoll); err != nil {
			return err
		}
	}
}

// holderScript names who holds a lock of dpkg or apt, if anybody does. They are locks of fcntl(2), which no tool of a small system
// lists; the kernel does.
const holderScript = `for f in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock; do
  [ -e "$f" ] || continue
  pid=$(awk -v inode=":$(stat -c %i "$f")" '$2 == "POSIX" && substr($6, length($6) - length(inode) + 1) == inode {print $5; exit}' /proc/locks)
  [ -n "$pid" ] || continue
  echo "$(tr '\000' ' ' <"/proc/$pid/cmdline" 2>/dev/null | sed 's/ *$//') (process $pid has $f)"
  exit 0
done`

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
