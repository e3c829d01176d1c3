package api

import (
	"net/http"
	"strings"
)

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
