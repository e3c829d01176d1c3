package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// desk is where Join asks Hold for the listener: a name in the container's own network namespace, where nobody else is.
const desk = "@berth-relay"

// Hold listens at path until ctx ends, and gives the listener to each Join that asks. It accepts nothing itself: so the
// socket lasts as long as the container, and who connects while no manager is there waits in the kernel's queue.
//
// The socket takes the place of one that was left there in one step, and stays when Hold ends: an engine that starts a
// container with a mount of it must find it, or it would make a folder of that name.
func Hold(ctx context.Context, path string) error { return hold(ctx, path, desk) }

func hold(ctx context.Context, path, desk string) error {
	door, err := listen(path)
	if err != nil {
		return err
	}
	defer door.Close() //nolint:errcheck // it ends with the process
	at, err := net.ListenUnix("unix", &net.UnixAddr{Name: desk, Net: "unix"})
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = at.Close() })() // which ends the loop
	for {
		c, err := at.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		err = errors.Join(hand(c, door), c.Close())
		if err != nil {
			fmt.Fprintln(os.Stderr, "relay:", err) //nolint:errcheck // the container's log is the only place to say it
		}
	}
}

// listen makes the socket beside its place, and moves it there. Only the container's root, who is that of other containers
// too, may use it.
func listen(path string) (*net.UnixListener, error) {
	fresh := filepath.Join(filepath.Dir(path), ".new.sock")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("relay: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if info, statErr := os.Lstat(path); statErr == nil && info.IsDir() {
		err = os.Remove(path) // an engine made it for a container that was there before us
	}
	if err == nil {
		err = os.Chmod(fresh, 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay: %w", err), l.Close())
	}
	return l, nil
}

// hand passes the listener to another process.
func hand(to *net.UnixConn, door *net.UnixListener) error {
	if err := to.SetDeadline(time.Now().Add(deskLimit)); err != nil {
		return err
	}
	raw, err := door.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		_, _, failed = to.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, failed)
}

const (
	deskLimit = 5 * time.Second // a relay that has just been started may not be at its desk yet
	deskRetry = 10 * time.Millisecond
)

// fetch asks for the listener.
func fetch(ctx context.Context, desk string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, deskLimit)
	defer cancel()
	c, err := reach(ctx, desk)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // only read from
	if err := c.SetDeadline(time.Now().Add(deskLimit)); err != nil {
		return nil, err
	}
	b, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(b, rights)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("no listener came"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("no listener came"), err)
	}
	f := os.NewFile(uintptr(fds[0]), "listener")
	defer f.Close() //nolint:errcheck // the listener has a descriptor of its own
	return net.FileListener(f)
}

func reach(ctx context.Context, desk string) (*net.UnixConn, error) {
	for {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: desk, Net: "unix"})
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(deskRetry):
		}
	}
}
