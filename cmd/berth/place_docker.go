package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"berth/internal/api"
)

var createPath = regexp.MustCompile(`^(/v[0-9.]+)?/containers/create$`)

// lookout stands in front of an endpoint and lets a docker client look, and change nothing. The container that it would create is
// placed instead.
type lookout struct {
	endpoint *fleetEndpoint
	proxy    *httputil.ReverseProxy

	mu     sync.Mutex
	asked  bool
	answer api.Placement
	err    error
}

func newLookout(e *fleetEndpoint) (*lookout, error) {
	base, err := url.Parse(e.base)
	if err != nil {
		return nil, err
	}
	l := &lookout{endpoint: e}
	l.proxy = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(base) },
		Transport: e.transport,
		ErrorLog:  log.New(io.Discard, "", 0), // the user is told
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			l.learn(api.Placement{}, e.unreachable(err))
			refuseDocker(w, http.StatusBadGateway, "no endpoint")
		},
	}
	return l, nil
}

// ServeHTTP answers the docker client.
func (l *lookout) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch m := createPath.FindStringSubmatch(r.URL.Path); {
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header.Get("Upgrade") == "":
		l.proxy.ServeHTTP(w, r)
	case r.Method == http.MethodPost && m != nil:
		l.learn(l.ask(m[1], r))
		// An error ends the client's work; of a create that went well it would expect a container.
		refuseDocker(w, http.StatusForbidden, "berth place creates nothing")
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/images/create"):
		// --pull always: the client goes on when it is told that the pull has ended.
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"berth place pulls nothing"}` + "\n"))
	default:
		refuseDocker(w, http.StatusForbidden, "berth place changes nothing: "+r.Method+" "+r.URL.Path)
	}
}

func refuseDocker(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message}) // a client that is gone cannot be told
}

// learn keeps the first answer.
func (l *lookout) learn(a api.Placement, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.asked {
		l.asked, l.answer, l.err = true, a, err
	}
}

// ask asks the endpoint about the container that the client would create.
func (l *lookout) ask(version string, r *http.Request) (api.Placement, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return api.Placement{}, fmt.Errorf("read what docker run asks for: %w", err)
	}
	header := http.Header{}
	if node := r.Header.Get("X-Berth-Node"); node != "" { // of the client's HttpHeaders
		header.Set("X-Berth-Node", node)
	}
	q := r.URL.Query()
	out, err := l.endpoint.rehearse(r.Context(), version, header, api.Rehearsal{
		Explain:  true,
		Requests: []api.RehearsedCreate{{Name: q.Get("name"), Platform: q.Get("platform"), Body: body}},
	})
	if err != nil {
		return api.Placement{}, err
	}
	return out[0], nil
}

// readDockerRun has the docker client read the arguments of a docker run, and returns where its container would go.
func readDockerRun(ctx context.Context, e *fleetEndpoint, args []string) (api.Placement, error) {
	docker, err := findDocker()
	if err != nil {
		return api.Placement{}, err
	}
	l, err := newLookout(e)
	if err != nil {
		return api.Placement{}, err
	}
	dir, err := os.MkdirTemp("", "berth-place-") // 0700
	if err != nil {
		return api.Placement{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an empty folder in /tmp
	socket := filepath.Join(dir, "docker.sock")
	listen, err := listenUnix(ctx, socket)
	if err != nil {
		return api.Placement{}, err
	}
	server := &http.Server{Handler: l, ErrorLog: log.New(io.Discard, "", 0)} //nolint:gosec // the one client is ours
	done := make(chan error, 1)
	go func() { done <- server.Serve(listen) }()
	err = l.watch(ctx, docker, socket, args)
	closed := server.Close()
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		return api.Placement{}, errors.Join(err, served)
	}
	if err := errors.Join(err, closed); err != nil {
		return api.Placement{}, err
	}
	return l.answer, l.err
}

// watch runs the client until it has asked for its container; an error is why it did not. Detached, it does not want a
// terminal. What may not be detached (-a) may be created.
func (l *lookout) watch(ctx context.Context, docker, socket string, args []string) error {
	var first error
	for _, verb := range [][]string{{"run", "--detach"}, {"create"}} {
		err := runDocker(ctx, docker, socket, append(verb, args...))
		l.mu.Lock()
		asked := l.asked
		l.mu.Unlock()
		switch {
		case asked:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case first == nil:
			first = err
		}
	}
	return first
}

// findDocker finds the stock client. berth itself may be installed under that name.
func findDocker() (string, error) {
	const needed = "berth place needs the docker client to read docker run's arguments (a Compose file needs none): "
	path, err := exec.LookPath("docker")
	if err != nil {
		return "", errors.New(needed + "docker is not in PATH")
	}
	if self, err := os.Executable(); err == nil && sameFile(self, path) {
		return "", errors.New(needed + path + " is berth")
	}
	return path, nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// runDocker runs the client, which never ends well here: the error is what it said.
func runDocker(ctx context.Context, docker, socket string, args []string) error {
	cmd := exec.CommandContext(ctx, docker, append([]string{"--host", "unix://" + socket}, args...)...) //nolint:gosec // no shell; it is the user's own command line
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"}, name)
	})
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if text := strings.TrimPrefix(strings.TrimSpace(said.String()), "docker: "); text != "" {
		return errors.New(text)
	}
	if err != nil {
		return fmt.Errorf("docker %s: %w", args[0], err)
	}
	return errors.New("docker run makes no container of these arguments")
}
