package relay

import (
	"io"
	"math"
	"net"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

// config is the same on both sides.
func config() *yamux.Config {
	c := yamux.DefaultConfig()
	// Ends a side whose other one is gone without a word; until then containers' connections would be taken and not answered.
	c.KeepAliveInterval, c.ConnectionWriteTimeout = 5*time.Second, 10*time.Second
	c.MaxIncomingStreams = math.MaxUint32 // as many as the container's clients open
	c.MaxStreamWindowSize = 1 << 20       // what one that nobody reads from can hold
	c.LogOutput = io.Discard              // errors come back from the calls
	return c
}

// line is a connection made of two streams. yamux wants deadlines for its writes; one that is stuck is ended by the keep-alive
// instead, which closes the line.
type line struct {
	io.Reader
	io.WriteCloser // its Close ends both directions
}

func (line) LocalAddr() net.Addr              { return addr("here") }
func (line) RemoteAddr() net.Addr             { return addr("there") }
func (line) SetDeadline(time.Time) error      { return nil }
func (line) SetReadDeadline(time.Time) error  { return nil }
func (line) SetWriteDeadline(time.Time) error { return nil }
