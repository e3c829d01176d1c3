//go:build !linux && !darwin && !freebsd

package proxy

import "net"

type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) next() (*block, int, error) { panic("there is none") }
