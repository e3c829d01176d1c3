package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-yamux/v5"
	"golang.org/x/sys/unix"
)

// Join takes connections from the relay that Hold keeps, and carries them over in and out until the manager at their other
// end goes, or ctx ends.
func Join(ctx context.Context, in, out *os.File) error {
	in, err := pollable(in)
	if err != nil {
		return err
	}
	if out, err = pollable(out); err != nil {
		return err
	}
	return join(ctx, line{in, both{out, in}}, desk)
}

// pollable makes reads and writes of a standard stream end when it is closed.
func pollable(f *os.File) (*os.File, error) {
	fd := int(f.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("relay: %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// both closes what belongs together.
type both struct {
	io.WriteCloser
	in io.Closer
}

func (b both) Close() error { return errors.Join(b.WriteCloser.Close(), b.in.Close()) }

func join(ctx context.Context, manager net.Conn, desk string) error {
	door, err := fetch(ctx, desk)
	if err != nil {
		return errors.Join(fmt.Errorf("relay: %w", err), manager.Close())
	}
	defer door.Close() //nolint:errcheck // ours is a copy
	session, err := yamux.Client(manager, config(), nil)
	if err != nil {
		return errors.Join(fmt.Errorf("relay: %w", err), manager.Close())
	}
	defer context.AfterFunc(ctx, func() { _ = session.Close() })()
	var work sync.WaitGroup
	defer work.Wait()
	defer session.Close() //nolint:errcheck // it has ended, or is to
	work.Go(func() {
		<-session.CloseChan()
		_ = door.Close() // ends Accept
	})
	for {
		c, err := door.Accept()
		if session.IsClosed() {
			if err == nil {
				_ = c.Close() // it came too late
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		client, ok := c.(*net.UnixConn)
		if !ok {
			return errors.Join(fmt.Errorf("relay: a connection of type %T", c), c.Close())
		}
		work.Go(func() { carry(ctx, client, session) })
	}
}

// linger is how long a client may go on sending after it was told the end of what is sent to it.
const linger = 10 * time.Second

// carry moves one connection both ways, each direction's end for itself.
func carry(ctx context.Context, client *net.UnixConn, session *yamux.Session) {
	defer client.Close() //nolint:errcheck // both directions have ended
	stream, err := session.OpenStream(ctx)
	if err != nil {
		return // the session has ended, and the client sees its end
	}
	t := &transit{client: client, stream: stream}
	var in sync.WaitGroup
	in.Go(t.input)
	t.output()
	in.Wait()
	_ = stream.Reset() // nothing is left to say; it frees what a manager that does not listen would hold
}

// transit is one connection on its way.
type transit struct {
	client     *net.UnixConn
	stream     *yamux.Stream
	outputOver atomic.Bool
}

// input carries what the client says. Its end is passed on; its death, which looks the same to who reads, ends the output too.
func (t *transit) input() {
	_, err := io.Copy(t.stream, t.client)
	var reset *yamux.StreamError
	switch {
	case errors.As(err, &reset):
		return // the manager takes no more, but may have something to say
	case err != nil:
		_ = t.stream.Reset() // fails only if it has ended
		return
	}
	_ = t.stream.CloseWrite() // one that cannot be told has ended, which output sees
	if t.awaitDeath() && !t.outputOver.Load() {
		_ = t.stream.Reset() // as above
	}
}

// awaitDeath waits until the client has closed both directions; false means that we did.
func (t *transit) awaitDeath() bool {
	raw, err := t.client.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}} // a hang-up is always told
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return err == nil
}

// output carries what the manager says. After its end the client is given a moment to end its own.
func (t *transit) output() {
	_, err := io.Copy(t.client, t.stream)
	t.outputOver.Store(true)
	if err != nil && !errors.Is(err, syscall.EPIPE) || t.client.CloseWrite() != nil {
		_ = t.client.Close() // cut, as the stream was, or gone: both end the input
		return
	}
	_ = t.client.SetReadDeadline(time.Now().Add(linger)) // fails only on a closed one
	_ = t.stream.SetWriteDeadline(time.Now().Add(linger))
}
