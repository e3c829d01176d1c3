//go:build linux || darwin || freebsd

package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// quietSocket returns a function that tells whether nothing is there to be read from c, not even its end; nil if c is no
// socket. Nobody else may be reading.
func quietSocket(c net.Conn) func() bool {
	socket, ok := bottom(c).(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	var quiet bool
	fds := make([]unix.PollFd, 1)
	look := func(fd uintptr) {
		fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		n, err := unix.Poll(fds, 0)
		quiet = n == 0 && err == nil // an interrupted look may be wrong, which costs a connection
	}
	secure, _ := c.(*tls.Conn)
	return func() bool {
		quiet = false
		if raw.Control(look) != nil || !quiet {
			return false
		}
		return secure == nil || quietTLS(secure)
	}
}

// quietTLS tells whether nothing has been decrypted that was not read.
func quietTLS(c *tls.Conn) bool {
	if c.SetReadDeadline(time.Unix(1, 0)) != nil {
		return false
	}
	var b [1]byte
	_, err := c.Read(b[:])
	return errors.Is(err, os.ErrDeadlineExceeded) && c.SetReadDeadline(time.Time{}) == nil
}
