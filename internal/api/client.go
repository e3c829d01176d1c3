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

// WithClient makes r a request of a client that another manager has told apart.
func WithClient(r *http.Request, who string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), clientKey{}, who))
}

// Client tells clients apart for what a node should remember of them: by the certificate, the user behind a unix socket, or the
// address. It is no authorization.
func Client(r *http.Request) string {
	if who, ok := r.Context().Value(clientKey{}).(string); ok {
		return who
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		return "cert " + hex.EncodeToString(sum[:])
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "local"
	}
	return "addr " + host
}
