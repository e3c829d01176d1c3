package metrics

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"berth/internal/fleet"
)

// Mux serves /metrics, /healthz and /readyz. looked ends when every engine was tried once.
func (m *Metrics) Mux(s Source, looked <-chan struct{}) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(s.Snapshot(), looked); err != nil {
			say(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		say(w, http.StatusOK, "ok")
	})
	return mux
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // a client that is gone cannot be told
}

// ready says why clients had better be sent elsewhere.
func ready(snap *fleet.Snapshot, looked <-chan struct{}) error {
	select {
	case <-looked:
	default:
		return errors.New("not all engines were tried yet")
	}
	nodes := snap.Nodes()
	for _, n := range nodes {
		if n.State == fleet.Healthy {
			return nil
		}
	}
	if len(nodes) == 0 {
		return errors.New("the fleet has no nodes")
	}
	return fmt.Errorf("none of the %d nodes answers; %s: %s", len(nodes), nodes[0].Name, nodes[0].Error)
}
