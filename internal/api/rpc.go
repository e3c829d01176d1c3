package api

import (
	"net/http"
	"net/url"

	"berth/internal/fleet"
	"berth/internal/proxy"
	"berth/internal/schedule"
)

// exportsAll tells whether an engine's BuildKit has the exporters that gRPC's clients ask for. Theirs is a BuildKit, not an
// engine's: buildx asks it for archives and images, and only engines that offer gRPC themselves make those.
func exportsAll(n *fleet.Node) bool { return fleet.CompareVersions(n.API, "1.52") >= 0 }

// callBuilder hands a gRPC call to the client's builder, whatever its engine's age.
func callBuilder(s *Server, w http.ResponseWriter, r *request) error {
	s.awaitReady(r.Context())
	who := "gRPC " + Client(r.Request)
	n, err := s.builderOf(who, func(idle []string) (*fleet.Node, error) {
		return s.chooseBuilder(r, schedule.Rules{}, "", idle, isBuilder, exportsAll)
	})
	if err != nil {
		return err
	}
	defer s.builders.stream(who, n.ID, s.o.Now)()
	return s.fleet.Forward(w, r.Request, n.ID, proxy.Options{HTTP2: true, Header: func(h http.Header) {
		s.headers(h)
		h.Set("X-Berth-Node", n.Name)
	}})
}

// The two codes of gRPC that errors before a call's answer have.
const (
	rpcUnavailable = "14"
	rpcInternal    = "13"
)

// writeRPCError says in gRPC's way what went wrong: with status 200 and in headers.
func writeRPCError(w http.ResponseWriter, err error) {
	code := rpcInternal
	if status(err) == http.StatusServiceUnavailable {
		code = rpcUnavailable
	}
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", code)
	h.Set("Grpc-Message", url.PathEscape(err.Error()))
	w.WriteHeader(http.StatusOK)
}
