package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` keeps its names, so that it can be used to look into a box.
const netnsDir = "/run/netns"

func netnsPath(name string) string { return filepath.Join(netnsDir, name) }

// ensureNetNS opens the namespace of that name, after making it if there is none.
func ensureNetNS(name string) (netns.NsHandle, error) {
	ns, err := openNetNS(name)
	if err != nil || ns.IsOpen() {
		return ns, err
	}
	if err := shareNetNSDir(); err != nil {
		return netns.None(), err
	}
	// A name without a namespace is what a crash or a reboot leaves.
	if err := os.Remove(netnsPath(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return netns.None(), fmt.Errorf("make namespace %s: %w", name, err)
	}
	if err := makeNetNS(name); err != nil {
		return netns.None(), fmt.Errorf("make namespace %s: %w", name, err)
	}
	return netns.GetFromName(name)
}

// openNetNS is None where there is no such namespace.
func openNetNS(name string) (netns.NsHandle, error) {
	path := netnsPath(name)
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); errors.Is(err, unix.ENOENT) || (err == nil && fs.Type != unix.NSFS_MAGIC) {
		return netns.None(), nil
	} else if err != nil {
		return netns.None(), fmt.Errorf("look for namespace %s: %w", path, err)
	}
	return netns.GetFromPath(path)
}

// makeNetNS has a thread make the namespace and come back. If it cannot come back, the thread ends.
func makeNetNS(name string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer func() { _ = home.Close() }()
		ns, err := netns.NewNamed(name)
		if err == nil {
			err = ns.Close()
		}
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// shareNetNSDir prepares the directory as `ip netns` does, which would otherwise cover our names with a copy of themselves.
func shareNetNSDir() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", netnsDir, err)
	}
	err := unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount yet
		if err = unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", netnsDir, err)
	}
	return nil
}

// deleteNetNS also takes the directory away once it is empty. Neither step can hit a namespace of someone else's: a mount
// with something below it is busy, a directory with something in it is not empty.
func deleteNetNS(name string) error {
	path := netnsPath(name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	if left, err := os.ReadDir(netnsDir); err == nil && len(left) == 0 {
		_ = unix.Unmount(netnsDir, unix.UMOUNT_NOFOLLOW)
		_ = os.Remove(netnsDir)
	}
	return nil
}
