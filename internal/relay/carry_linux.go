package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
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
	var in sync.WaitGroup
	in.Go(func() { input(stream, client) })
	output(client, stream)
	in.Wait()
	_ = stream.Reset() // nothing is left to say; it frees what a manager that does not listen would hold
}

// input carries what the client says, and passes its end on. A client that has died looks the same to who reads; it shows when
// there is something to tell it.
func input(stream *yamux.Stream, client *net.UnixConn) {
	_, err := io.Copy(stream, client)
	var refused *yamux.StreamError
	switch {
	case errors.As(err, &refused): // the manager takes no more, but may have something to say
	case err != nil:
		_ = stream.Reset() // fails only if it has ended
	default:
		_ = stream.CloseWrite() // likewise
	}
}

// output carries what the manager says. After its end the client is given a moment to end its own.
func output(client *net.UnixConn, stream *yamux.Stream) {
	_, err := io.Copy(client, stream)
	if err != nil || client.CloseWrite() != nil {
		_ = client.Close() // cut, as the stream was, or gone: both end the input
		return
	}
	_ = client.SetReadDeadline(time.Now().Add(linger)) // fails only on a closed one
	_ = stream.SetWriteDeadline(time.Now().Add(linger))
}
