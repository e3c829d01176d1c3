//go:build !linux && !darwin && !freebsd

package proxy

import "net"

// quietSocket knows nothing here.
func quietSocket(net.Conn) func() bool { return nil }
