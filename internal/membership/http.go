package membership

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	maxWait = 5 * time.Minute
	// look is how often a reader who waits is checked for members whose time has ended.
	look = time.Second
)

var tokenForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Handler answers the service's calls.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /clusters", s.create)
	mux.HandleFunc("GET /clusters/{token}", s.list)
	mux.HandleFunc("POST /clusters/{token}", s.put)
	mux.HandleFunc("DELETE /clusters/{token}/{addr}", s.remove)
	return mux
}

func (s *Service) create(w http.ResponseWriter, _ *http.Request) {
	token, err := s.Create()
	if err != nil {
		refuse(w, err)
		return
	}
	_, _ = io.WriteString(w, token) // a client that is gone cannot be told
}

func (s *Service) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1024))
	addr := strings.TrimSpace(string(body))
	ttl, ttlErr := strconv.Atoi(r.URL.Query().Get("ttl"))
	switch {
	case err != nil || !isAddr(addr):
		http.Error(w, "the body must be one address, host:port", http.StatusBadRequest)
	case ttlErr != nil || ttl <= 0:
		http.Error(w, "ttl must be a number of seconds above 0", http.StatusBadRequest)
	default:
		refuse(w, s.known(r, func(token string) error { return s.Put(token, addr, time.Duration(ttl)*time.Second) }))
	}
}

func (s *Service) remove(w http.ResponseWriter, r *http.Request) {
	refuse(w, s.known(r, func(token string) error { return s.Remove(token, r.PathValue("addr")) }))
}

// known calls do with a token that has a token's form.
func (s *Service) known(r *http.Request, do func(token string) error) error {
	token := r.PathValue("token")
	if !tokenForm.MatchString(token) {
		return ErrUnknown
	}
	return do(token)
}

// list answers with the members; to a reader who has them already, once they differ or its patience ends.
func (s *Service) list(w http.ResponseWriter, r *http.Request) {
	wait, err := strconv.Atoi(r.URL.Query().Get("wait"))
	if err != nil || wait < 0 {
		wait = 0
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(time.Duration(wait)*time.Second, maxWait))
	defer cancel()
	for {
		var addrs []string
		var changed <-chan struct{}
		err := s.known(r, func(token string) (err error) {
			addrs, changed, err = s.Members(token)
			return err
		})
		if err != nil {
			refuse(w, err)
			return
		}
		if addrs == nil {
			addrs = []string{}
		}
		body, err := json.Marshal(addrs)
		if err != nil {
			refuse(w, err)
			return
		}
		if tag := etag(body); r.Header.Get("If-None-Match") != tag || ctx.Err() != nil {
			answer(w, r, tag, body)
			return
		}
		select {
		case <-changed:
		case <-time.After(look):
		case <-ctx.Done():
		}
	}
}

func answer(w http.ResponseWriter, r *http.Request, tag string, body []byte) {
	w.Header().Set("Etag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // a client that is gone cannot be told
}

func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}

func isAddr(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	n, notNumber := strconv.Atoi(port)
	return err == nil && notNumber == nil && host != "" && n > 0 && n < 65536 && !strings.ContainsAny(addr, " \t\r\n/")
}

// refuse answers with an error; nil is success without a body.
func refuse(w http.ResponseWriter, err error) {
	switch {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case errors.Is(err, ErrUnknown):
		http.Error(w, "no such token: make one with `berth swarm create`", http.StatusNotFound)
	case errors.Is(err, ErrFull):
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
