package replica

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"berth/internal/proxy"
)

const (
	// headerToken and headerClient are what a replica adds to a request that it hands on.
	headerToken  = "Berth-Handed-By"
	headerClient = "Berth-Client"
	// noPrimary is how long a request waits for a primary to be elected. Clients of the API wait for as long as it takes; most elections
	// are over before.
	noPrimary = 30 * time.Second
	// retryNew is how often it looks whether this manager has become the primary itself, or the primary answers again.
	retryNew = 100 * time.Millisecond
	// readBack is how long a client that has changed something reads from the primary as well: by then the engines' events have told us.
	readBack = 2 * time.Second
	// defaultSign is for primaries that are busy with much else.
	defaultSign = 5 * time.Second
	// clients bounds of how many that is remembered.
	clients = 4096
)

// Options of a Handler.
type Options struct {
	// Standing says who is the primary.
	Standing *Standing
	// Local answers requests on this manager.
	Local http.Handler
	// Dial opens a connection to another manager, which speaks HTTP/1.1 on it, or HTTP/2 at once.
	Dial func(ctx context.Context, addr string, http2 bool) (net.Conn, error)
	// Client says whose a request is, and WithClient makes it a request of that client.
	Client     func(*http.Request) string
	WithClient func(r *http.Request, who string) *http.Request
	Tunnels    *proxy.Tunnels
	// Sign is after what time without an answer the primary is asked for a sign of life, and how long it may take to give one. 0 is 5 s.
	Sign time.Duration
}

// Handler hands on what is the primary's to do.
type Handler struct {
	o     Options
	wrote *lru.Cache[string, time.Time]
	mu    sync.Mutex
	peer  *peer // the current primary; nil if nothing was handed to one yet
}

// NewHandler makes a Handler. It starts nothing.
func NewHandler(o Options) *Handler {
	wrote, _ := lru.New[string, time.Time](clients) // fails for no size only
	return &Handler{o: o, wrote: wrote}
}

// Close frees the connections to the primary that rest.
func (h *Handler) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.peer != nil {
		h.peer.close()
		h.peer = nil
	}
}

// ServeHTTP answers one request of a client, or of another manager.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, who := r.Header.Get(headerToken), r.Header.Get(headerClient)
	r.Header.Del(headerToken)
	r.Header.Del(headerClient)
	handed := token != "" && h.o.Standing.ours(token)
	if handed {
		r = h.o.WithClient(r, who)
	}
	switch {
	case h.o.Standing.self():
		h.o.Local.ServeHTTP(w, r)
	case handed:
		refuse(w, errDeposed) // it is not handed on twice, or it might go round in circles
	case isRead(r):
		h.read(w, r)
	default:
		h.wrote.Add(h.o.Client(r), time.Now())
		h.write(w, r)
	}
}

// isRead tells whether a request changes nothing. Streams of output are reads, attach over a websocket is none. How the overlay
// networks are only the primary knows.
func isRead(r *http.Request) bool {
	return r.URL.Path != "/berth/overlay" && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions) && r.Header.Get("Upgrade") == ""
}

// read answers from our own view, but a client that has just written through us is to see what it wrote.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) {
	if at, wrote := h.wrote.Get(h.o.Client(r)); wrote && time.Since(at) < readBack && !local(r.URL.Path) {
		if addr, token, _ := h.o.Standing.where(); addr != "" && !h.to(addr).isSilent() && h.hand(w, r, addr, token) == nil {
			return
		}
	}
	h.o.Local.ServeHTTP(w, r)
}

// local are the paths that tell of the manager itself, and those whose answers go on for longer than a primary's tenure.
func local(path string) bool {
	for _, end := range []string{"/_ping", "/info", "/version", "/events"} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	return false
}

// write waits for a primary that can be reached and hands the request to it. One that was cut off in the middle is not tried again:
// it may have been carried out.
func (h *Handler) write(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), noPrimary)
	defer cancel()
	last := errNobody
	for {
		addr, token, changed := h.o.Standing.where()
		if addr != "" {
			err := h.hand(w, r, addr, token)
			switch {
			case err == nil:
				return
			case !proxy.NotSent(err):
				refuse(w, err)
				return
			}
			last = err
		}
		select {
		case <-changed:
		case <-time.After(retryNew):
		case <-ctx.Done():
			refuse(w, last)
			return
		}
		if h.o.Standing.self() {
			h.o.Local.ServeHTTP(w, r)
			return
		}
	}
}

// hand moves a request to the primary. An error means that nothing was answered.
func (h *Handler) hand(w http.ResponseWriter, r *http.Request, addr, token string) error {
	p := h.to(addr)
	ctx, answered, release := p.whileAlive(r.Context())
	defer release()
	out := r.Clone(ctx)
	out.Host = "docker"
	if r.Body != nil {
		out.Body = io.NopCloser(r.Body) // another primary may be given it
	}
	out.Header.Set(headerToken, token)
	out.Header.Set(headerClient, h.o.Client(r))
	options := proxy.Options{Tunnels: h.o.Tunnels, Hijack: mayHijack(r), HTTP2: proxy.IsRPC(r), Modify: func(*http.Response) error {
		answered()
		return nil
	}}
	if err := proxy.Forward(w, out, p.Target, options); err != nil {
		if silent, ok := errors.AsType[*errSilent](context.Cause(ctx)); ok {
			return silent
		}
		return &handError{addr, err}
	}
	return nil
}

// mayHijack tells whether a request's answer may be a stream that no header asked for: attach and exec.
func mayHijack(r *http.Request) bool {
	path := r.URL.Path
	return r.Method == http.MethodPost && (strings.HasSuffix(path, "/attach") || strings.Contains(path, "/exec/") && strings.HasSuffix(path, "/start"))
}

// to is how the primary at addr is reached; connections to the one before are let go.
func (h *Handler) to(addr string) *peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.peer == nil || h.peer.Name != addr {
		if h.peer != nil {
			h.peer.close()
		}
		h.peer = newPeer(addr, cmp.Or(h.o.Sign, defaultSign), func(ctx context.Context, http2 bool) (net.Conn, error) { return h.dial(ctx, addr, http2) })
	}
	return h.peer
}

func (h *Handler) dial(ctx context.Context, addr string, http2 bool) (net.Conn, error) {
	c, err := h.o.Dial(ctx, addr, http2)
	if err != nil {
		return nil, &proxy.NotSentError{Node: addr, Err: err}
	}
	return c, nil
}

// handError says that the primary was not reached, in classic Swarm's words.
type handError struct {
	addr string
	err  error
}

func (e *handError) Error() string {
	err := e.err
	for {
		var unsent *proxy.NotSentError
		if !errors.As(err, &unsent) {
			return fmt.Sprintf("Unable to reach primary cluster manager (%s): %v", e.addr, err)
		}
		err = unsent.Err // which says the address once more
	}
}
func (e *handError) Unwrap() error { return e.err }

type nobody struct{}

var errNobody error = nobody{}

func (nobody) Error() string {
	return fmt.Sprintf("no elected primary cluster manager for %s; is the store of --replication reachable?", noPrimary)
}

// refuse answers as the API does when a manager cannot act.
func refuse(w http.ResponseWriter, err error) {
	body, _ := json.Marshal(map[string]string{"message": err.Error()}) // strings always encode
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write(append(body, '\n')) // the client may be gone
}
