package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// http2Check is how long an HTTP/2 connection may be silent before the engine is asked whether it is there, and how long it
// may take to say so.
const http2Check = 15 * time.Second

// IsRPC tells whether a request is a gRPC call. New engines take BuildKit's calls on the API's address without an upgrade,
// and buildx's remote driver makes them.
func IsRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// NewHTTP2Transport returns a pool of HTTP/2 connections to one engine, for gRPC. dial opens a connection on which the
// engine expects HTTP/2 at once.
func NewHTTP2Transport(dial func(ctx context.Context) (net.Conn, error)) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialLimit)
			defer cancel()
			return dial(ctx)
		},
		IdleConnTimeout:    idleLifetime,
		DisableCompression: true,
		Protocols:          new(http.Protocols),
		HTTP2:              &http.HTTP2Config{SendPingTimeout: http2Check, PingTimeout: http2Check},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// traced is how net/http tells what a carry does.
func traced(rt http.RoundTripper) carry {
	return func(r *http.Request, inform func(int, textproto.MIMEHeader)) (*http.Response, bool, error) {
		t := trip{inform: inform}
		res, err := rt.RoundTrip(r.WithContext(t.trace(r.Context())))
		t.end()
		return res, t.connected.Load(), err
	}
}

// trip follows one RoundTrip.
type trip struct {
	inform    func(int, textproto.MIMEHeader)
	connected atomic.Bool
	mu        sync.Mutex
	over      bool // RoundTrip has returned
}

func (t *trip) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { t.connected.Store(true) },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			t.mu.Lock()
			defer t.mu.Unlock()
			if !t.over && t.inform != nil {
				t.inform(code, h)
			}
			return nil
		},
	})
}

func (t *trip) end() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
}

// UpgradeHTTP2 asks the engine at the other end of a fresh connection for BuildKit's gRPC services and returns a connection
// that speaks HTTP/2. An error means that conn is closed.
func UpgradeHTTP2(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { closeRaw(conn) })
	up, err := upgradeHTTP2(conn)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		closeRaw(conn)
		return nil, fmt.Errorf("upgrade to HTTP/2: %w", err)
	}
	return up, nil
}

func upgradeHTTP2(conn net.Conn) (net.Conn, error) {
	const ask = "POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(conn, ask); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodPost})
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, errors.Join(fmt.Errorf("the engine answered %s", res.Status), res.Body.Close())
	}
	return &resumed{conn, buffered(in)}, nil
}

// resumed is a connection of which something has been read too much.
type resumed struct {
	net.Conn
	first []byte
}

func (r *resumed) Read(p []byte) (int, error) {
	if len(r.first) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.first)
	r.first = r.first[n:]
	return n, nil
}
