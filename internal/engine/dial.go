package engine

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"berth/internal/fleet"
	"berth/internal/proxy"
)

// dialer keeps idle and broken peers from lasting for ever.
var dialer = net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}

// DialUnix reaches an engine on a unix socket.
func DialUnix(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
}

// DialTCP reaches an engine on host:port, with TLS unless config is nil. The name to verify is the address's host unless
// config says another.
func DialTCP(addr string, config *tls.Config) func(context.Context) (net.Conn, error) {
	if config == nil {
		return func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }
	}
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(addr) // an address without a port fails at dial, with a better error
	}
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	}
	return func(ctx context.Context) (net.Conn, error) {
		raw, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		c := tls.Client(raw, config)
		if err := c.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // the handshake's error is the one to tell
			return nil, fmt.Errorf("TLS: %w", err)
		}
		return c, nil
	}
}

// apiHTTP2 is the API version since which engines take gRPC on a plain connection without an upgrade. The route for that is
// to go away some day; over TLS it is still needed, since plain HTTP/1.1 is what was agreed upon there.
const apiHTTP2 = "1.52"

// dialHTTP2 opens a connection on which the engine expects HTTP/2.
func (e *Engine) dialHTTP2(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	_, secure := c.(*tls.Conn)
	if !secure && fleet.CompareVersions(e.Node().API, apiHTTP2) >= 0 {
		return c, nil
	}
	return proxy.UpgradeHTTP2(ctx, c)
}
