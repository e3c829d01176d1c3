package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peer asks the kernel about the other end of a socket, without reading from it: an end of its output alone (half-close) is
// not its death. The zero peer knows nothing.
type peer struct {
	raw syscall.RawConn
	// tls peers end their output inside TLS and leave the socket open, so a socket that ends later is their death.
	tls  bool
	unix bool
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
	_, isUnix := socket.(*net.UnixConn)
	return peer{raw, isTLS, isUnix}
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
func (p peer) unread() int { return p.ask(unix.TIOCINQ) }

const (
	letReadLimit = 5 * time.Second // a peer that has not read the head by then has lost nothing by waiting
	letReadGrace = 5 * time.Millisecond
	letReadStep  = 100 * time.Microsecond
)

// letRead gives the peer time to read what was written at since, apart from what comes next. A unix socket tells when that
// has happened. TCP tells only that it has arrived, so some milliseconds must do. TLS keeps writes apart by itself. Mostly
// nothing is left to wait for: a program needs longer to start than a client to read a head.
func (p peer) letRead(since time.Time) {
	if p.raw == nil || p.tls {
		return
	}
	for {
		age := time.Since(since)
		if age >= letReadLimit || p.ask(unix.TIOCOUTQ) == 0 && (p.unix || age >= letReadGrace) {
			return
		}
		time.Sleep(letReadStep)
	}
}

// ask reads the length of one of the socket's queues.
func (p peer) ask(queue uint) int {
	if p.raw == nil {
		return 0
	}
	n := 0
	err := p.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), queue) }) // a stream socket always answers
	if err != nil {
		return 0 // closed on our side, which its user knows
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
