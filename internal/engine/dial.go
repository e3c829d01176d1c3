package engine

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
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
