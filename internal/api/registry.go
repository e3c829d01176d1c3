package api

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

// login is checked with the registry by any node, and stored nowhere.
func login(s *Server, w http.ResponseWriter, r *request) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return invalidf("request body: %v", err)
	}
	last := errNoNode
	for _, n := range s.nodes() {
		last = s.forward(w, r, n, forwarding{body: b})
		if last == nil || r.Context().Err() != nil || !errors.As(last, new(interface{ Unavailable() })) {
			return last
		}
	}
	return last
}

// askRegistry has any node ask a registry.
func askRegistry(s *Server, w http.ResponseWriter, r *request) error { return s.anyHealthy(w, r) }

// registryHeaders are what an engine needs of a client's request to speak to a registry in its name.
func registryHeaders(h http.Header) http.Header {
	out := http.Header{}
	for k, v := range h {
		if k == "X-Registry-Auth" || k == "X-Registry-Config" || strings.HasPrefix(k, "X-Meta-") {
			out[k] = v
		}
	}
	return out
}
