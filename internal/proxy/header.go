package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// hop holds the headers that speak of one connection, not of the message.
var hop = map[string]bool{
	"Connection":          true,
	"Keep-Alive":          true,
	"Proxy-Authenticate":  true,
	"Proxy-Authorization": true,
	"Proxy-Connection":    true,
	"Te":                  true,
	"Trailer":             true,
	"Transfer-Encoding":   true,
	"Upgrade":             true,
}

// private tells which request headers are for the fleet's endpoint and not for an engine. Expect is among them because
// net/http answers it as soon as the body is first read.
func private(key string) bool {
	return key == "Authorization" || key == "Expect" || strings.HasPrefix(key, "X-Berth-")
}

// outgoing makes the engine's request from the client's, without its body. The path goes as the client escaped it, the query
// as it was written. Engines ignore Host; a fixed one keeps the pool to one key.
func outgoing(r *http.Request) *http.Request {
	out := (&http.Request{
		Method: r.Method,
		URL: &url.URL{
			Scheme: "http", Host: "docker",
			Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery,
		},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Host:   "docker",
		Header: make(http.Header, len(r.Header)+1),
	}).WithContext(r.Context())
	named := r.Header["Connection"]
	for k, vv := range r.Header {
		if endToEnd(k, named) && !private(k) {
			out.Header[k] = vv
		}
	}
	if hasToken(r.Header["Te"], "trailers") {
		out.Header["Te"] = []string{"trailers"}
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // or net/http puts its own
	}
	return out
}

// copyEndToEnd copies what is not bound to src's connection. Values are shared, not cloned: neither side edits them in place.
func copyEndToEnd(dst, src http.Header) {
	named := src["Connection"]
	for k, vv := range src {
		if endToEnd(k, named) {
			dst[k] = vv
		}
	}
}

// endToEnd tells whether a header may pass; named is what Connection says.
func endToEnd(key string, named []string) bool {
	return !hop[key] && (len(named) == 0 || !hasToken(named, key))
}

// hasToken looks for a token in comma-separated header values, whatever its case.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// asksUpgrade tells whether the client wants to leave HTTP. Like engines it looks at Upgrade alone. An offer of HTTP/2 on the
// same connection (curl --http2 makes one with every first request) has settings along with it and may be ignored.
func asksUpgrade(r *http.Request) bool {
	_, offer := r.Header["Http2-Settings"]
	return r.Header.Get("Upgrade") != "" && !offer
}
