//go:build linux || darwin || freebsd

package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// socket reads a plain socket and holds no memory while it waits: that is borrowed once there is something to be read.
type socket struct {
	raw syscall.RawConn
	try func(fd uintptr) bool
	got *block
	n   int
	err error
}

// newSocket returns nil for what is no plain socket, such as TLS and SSH.
func newSocket(c net.Conn) *socket {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	raw, err := c.(syscall.Conn).SyscallConn() //nolint:errcheck,forcetypeassert // both are
	if err != nil {
		return nil // closed already: the first read says so
	}
	s := &socket{raw: raw}
	s.try = s.read
	return s
}

// next returns what has come, in a block that the caller gives back.
func (s *socket) next() (b *block, n int, err error) {
	s.got, s.n, s.err = nil, 0, nil
	if err := s.raw.Read(s.try); err != nil {
		return nil, 0, err
	}
	b, s.got = s.got, nil
	return b, s.n, s.err
}

// read tells whether the wait is over.
func (s *socket) read(fd uintptr) bool {
	b := getBuffer()
	n, err := syscall.Read(int(fd), b[:])
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(int(fd), b[:])
	}
	switch {
	case errors.Is(err, syscall.EAGAIN):
		putBuffer(b)
		return false
	case err != nil:
		n, err = 0, os.NewSyscallError("read", err)
	case n == 0:
		err = io.EOF
	}
	s.got, s.n, s.err = b, n, err
	return true
}
