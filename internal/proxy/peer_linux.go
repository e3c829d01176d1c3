package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer asks the kernel about the other end of a socket, without reading from it: an end of its output alone (half-close) is
// not its death. The zero peer knows nothing.
type peer struct {
	raw syscall.RawConn
	// tls peers end their output inside TLS and leave the socket open, so a socket that ends later is their death.
	tls bool
}

func newPeer(c net.Conn) peer {
	socket, ok := bottom(c).(syscall.Conn)
	if !ok {
		return peer{}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return peer{} // closed already: the first read says so
	}
	_, isTLS := c.(*tls.Conn)
	return peer{raw, isTLS}
}

// gone tells whether the peer can neither send nor receive any more.
func (p peer) gone() bool {
	return p.state()&(unix.POLLHUP|unix.POLLERR) != 0
}

// ended tells whether the peer's socket has ended its output.
func (p peer) ended() bool {
	return p.state()&unix.POLLRDHUP != 0
}

// waitGone waits until the peer is gone; false means that the wait was ended by a read deadline or by closing. ended is what
// p.ended said when the peer's output was over. It counts as a read: nobody else may be reading. It rests in Go's poller,
// which wakes it for every change of the socket.
func (p peer) waitGone(ended bool) bool {
	if p.raw == nil {
		return false
	}
	mask := int16(unix.POLLHUP | unix.POLLERR)
	if p.tls && !ended {
		mask |= unix.POLLRDHUP
	}
	err := p.raw.Read(func(fd uintptr) bool { return pollNow(fd)&mask != 0 })
	return err == nil
}

// unread is how many bytes wait in the socket.
func (p peer) unread() int {
	if p.raw == nil {
		return 0
	}
	n := 0
	err := p.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }) // a stream socket always answers
	if err != nil {
		return 0
	}
	return n
}

func (p peer) state() int16 {
	if p.raw == nil {
		return 0
	}
	var events int16
	if err := p.raw.Control(func(fd uintptr) { events = pollNow(fd) }); err != nil {
		return 0 // closed on our side, which its user knows
	}
	return events
}

func pollNow(fd uintptr) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(fds, 0)
		if err == nil {
			return fds[0].Revents
		}
		if !errors.Is(err, unix.EINTR) {
			return 0
		}
	}
}
