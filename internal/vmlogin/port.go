package vmlogin

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
)

// Ports are taken from below those that systems give to outgoing connections, so that a machine that was off finds its own again.
const (
	firstPort = 20000
	lastPort  = 32000
	loopback  = "127.0.0.1"
)

// FreePort is a port of 127.0.0.1 that nothing listens on and that is none of those taken.
func FreePort(taken ...int) (int, error) {
	const tries = 200
	for range tries {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // no secret
		if !slices.Contains(taken, port) && PortFree(port) == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port was found on %s from %d to %d", loopback, firstPort, lastPort)
}

// PortFree is an error if something listens on that port of 127.0.0.1.
func PortFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port))) //nolint:noctx // it does not wait
	if err != nil {
		return err
	}
	return l.Close()
}
