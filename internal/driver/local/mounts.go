package local

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPlan is what differs between the box's view of the file system and this computer's.
type mountPlan struct {
	Binds []bind
}

// bind puts a file or directory of this computer elsewhere in the box.
type bind struct{ From, To string }

// apply makes the box's view: its own /run, /proc and /sys, and the binds. It runs in the box's own mount namespace.
//
// Mounts that this computer makes later are seen in the box, and those that it takes away go there as well, or the box would
// keep every disk and namespace busy that was there when it started; nothing that the box mounts is seen outside.
func (m mountPlan) apply() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("part mounts from the computer's: %w", err)
	}
	// What is bound is picked up first: it may lie below what is covered next.
	var trees []tree
	for _, b := range m.Binds {
		t, err := pickUp(b.From, b.To)
		if err != nil {
			return err
		}
		defer t.close()
		trees = append(trees, t)
	}
	if err := coverRun(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := coverSys(); err != nil {
		return err
	}
	for _, t := range trees {
		if err := t.makePlace(); err != nil {
			return err
		}
		if err := t.putDown(); err != nil {
			return err
		}
	}
	// As under systemd: volumes with propagation (-v x:y:rshared) need it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts with containers: %w", err)
	}
	return nil
}

// coverRun gives the box an empty /run. What is mounted below this computer's is let go, not only hidden: other boxes' network
// namespaces are among it.
func coverRun() error {
	if err := detachBelow("/run"); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := os.Mkdir("/run/lock", 0o755); err != nil {
		return fmt.Errorf("fill /run: %w", err)
	}
	if info, err := os.Lstat("/var/run"); err == nil && info.IsDir() {
		if err := unix.Mount("/run", "/var/run", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /var/run: %w", err)
		}
	}
	return nil
}

// coverSys mounts the /sys of the box's network, with the cgroups and whatever else was mounted below it where they were.
func coverSys() error {
	points, err := mountsBelow("/sys")
	if err != nil {
		return err
	}
	slices.Sort(points) // what is mounted in another one comes with it
	var kept []tree
	for _, p := range points {
		covered := slices.ContainsFunc(kept, func(t tree) bool { return strings.HasPrefix(p, t.to+"/") || p == t.to })
		if p == "/sys" || covered {
			continue
		}
		t, err := pickUp(p, p)
		if err != nil {
			return err
		}
		defer t.close()
		kept = append(kept, t)
	}
	if err := detachBelow("/sys"); err != nil {
		return err
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	for _, t := range kept {
		if err := t.putDown(); err != nil {
			return err
		}
	}
	return nil
}

// tree is a part of the file system that was picked up, with what is mounted in it.
type tree struct {
	fd       int
	from, to string
}

func pickUp(from, to string) (tree, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return tree{}, fmt.Errorf("pick up %s: %w", from, err)
	}
	return tree{fd, from, to}, nil
}

func (t tree) putDown() error {
	if err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, t.to, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return fmt.Errorf("mount %s on %s: %w", t.from, t.to, err)
	}
	return nil
}

func (t tree) close() { _ = unix.Close(t.fd) } // its copy in the file system is its own

// makePlace makes the mount point where there is none, as dockerd itself makes its directories.
func (t tree) makePlace() error {
	var info unix.Stat_t
	if err := unix.Fstat(t.fd, &info); err != nil {
		return fmt.Errorf("look at %s: %w", t.from, err)
	}
	if info.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.MkdirAll(t.to, 0o711); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(t.to), 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	f, err := os.OpenFile(t.to, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	return f.Close()
}

// detachBelow takes away all mounts at and below dir.
func detachBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// mountsBelow lists the mount points at and below dir, in the order in which they were mounted.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if p := unescapeMount(fields[4]); p == dir || strings.HasPrefix(p, dir+"/") {
			points = append(points, p)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return points, nil
}
