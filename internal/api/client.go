package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"strconv"
)

// clientKey is the context key of the identity that a connection gives its requests.
type clientKey struct{}

// ConnContext is for http.Server.ConnContext: it notes whose a connection on a unix socket is. Without it all clients of a
// unix socket are one.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid, ok := peerUID(u)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, clientKey{}, "uid "+strconv.Itoa(uid))
}

// identity tells clients apart for what a node should remember of them: the certificate, the user behind a unix socket, or
// the address. It is no authorization.
func identity(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		return "cert " + hex.EncodeToString(sum[:])
	}
	if who, ok := r.Context().Value(clientKey{}).(string); ok {
		return who
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "local"
	}
	return "addr " + host
}
