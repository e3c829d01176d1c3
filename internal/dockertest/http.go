package dockertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// request is an HTTP request on its way to a handler.
type request struct {
	*http.Request
	daemon  *Daemon
	version string // the API version it speaks
	path    string // without the version
	name    string // what stands for the route's {…}
}

// atLeast says whether the request speaks API version v or a newer one.
func (r *request) atLeast(v string) bool { return compareVersions(r.version, v) >= 0 }

// flag reads a boolean parameter as the engine does: anything but these words is true.
func (r *request) flag(key string) bool { return truthy(r.URL.Query().Get(key)) }

func truthy(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// param is a query parameter.
func (r *request) param(key string) string { return r.URL.Query().Get(key) }

// apiError is an answer with a status and {"message": …}.
type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string { return e.message }

func fail(status int, format string, args ...any) error {
	return &apiError{status, fmt.Sprintf(format, args...)}
}

// errAnswered is returned by handlers that have written their error in a form of their own.
var errAnswered = errors.New("answered")

var versionPrefix = regexp.MustCompile(`^/v([0-9.]+)(/.*)$`)

// ServeHTTP answers one API request; the daemon's listener leads here, and Do does.
func (d *Daemon) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	if !d.enter() {
		panic(http.ErrAbortHandler)
	}
	defer d.handlers.Done()
	r := &request{Request: hr, daemon: d, version: d.opt.APIVersion, path: hr.URL.Path}
	if m := versionPrefix.FindStringSubmatch(r.path); m != nil {
		r.version, r.path = m[1], m[2]
	}
	d.requests.Add(1)
	if !d.opt.NoRequestLog {
		d.faults.record(hr.Method, r.path)
	}
	w, after := d.strike(w, hr, r.path)
	if w == nil {
		return
	}
	defer after()
	d.dispatch(w, r)
}

// enter counts a handler, unless the daemon is closing.
func (d *Daemon) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.handlers.Add(1)
	}
	return !d.closed
}

func (d *Daemon) dispatch(w http.ResponseWriter, r *request) {
	if strings.Contains(r.URL.Path, "//") {
		clean := *r.URL
		clean.Path = path.Clean(clean.Path)
		w.Header().Set("Location", clean.String())
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	if r.Method == http.MethodOptions {
		d.setHeaders(w, r)
		w.WriteHeader(http.StatusOK)
		return
	}
	h, name := d.find(r.Method, r.path)
	if h == nil {
		d.writeError(w, fail(http.StatusNotFound, "page not found"))
		return
	}
	r.name = name
	d.setHeaders(w, r)
	if d.refuseVersion(w, r) {
		return
	}
	a := &answer{ResponseWriter: w}
	if err := h(d, a, r); err != nil && !errors.Is(err, errAnswered) {
		d.writeError(a, err)
	}
	a.send()
}

// answer keeps a handler's JSON until the handler has returned. Handlers write it under Daemon.mu, and a client that does not
// read, or a hung daemon, must not keep the lock from everyone else.
type answer struct {
	http.ResponseWriter
	status int
	body   []byte
}

// Unwrap lets http.ResponseController flush and take over.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) send() {
	if a.body == nil {
		return
	}
	a.Header().Set("Content-Type", "application/json")
	a.WriteHeader(a.status)
	// A client that has gone is no error of ours.
	_, _ = a.Write(a.body)
}

func (d *Daemon) setHeaders(w http.ResponseWriter, _ *request) {
	h := w.Header()
	h.Set("Server", "Docker/"+d.opt.ServerVersion+" (linux)")
	h.Set("Api-Version", d.opt.APIVersion)
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")
}

// refuseVersion is the version gate. The two texts and their content types are the engine's.
func (d *Daemon) refuseVersion(w http.ResponseWriter, r *request) bool {
	if compareVersions(r.version, d.opt.APIVersion) > 0 {
		w.Header().Del("Docker-Experimental")
		d.writeError(w, fail(http.StatusBadRequest, "client version %s is too new. Maximum supported API version is %s",
			r.version, d.opt.APIVersion))
		return true
	}
	if compareVersions(r.version, d.opt.MinAPIVersion) < 0 {
		w.Header().Del("Docker-Experimental")
		text := fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, "+
			"please upgrade your client to a newer version", r.version, d.opt.MinAPIVersion)
		if d.speaks("1.44") {
			d.writeError(w, fail(http.StatusBadRequest, "%s", text))
		} else {
			http.Error(w, text, http.StatusBadRequest)
		}
		return true
	}
	return false
}

// speaks says whether the daemon is new enough for API version v.
func (d *Daemon) speaks(v string) bool { return compareVersions(d.opt.APIVersion, v) >= 0 }

func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(as), len(bs)) {
		if c := versionPart(as, i) - versionPart(bs, i); c != 0 {
			return c
		}
	}
	return 0
}

func versionPart(parts []string, i int) int {
	if i >= len(parts) {
		return 0
	}
	n, err := strconv.Atoi(parts[i])
	if err != nil {
		return 0 // the engine reads what it cannot read as 0, too
	}
	return n
}

func (d *Daemon) writeError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var api *apiError
	if errors.As(err, &api) {
		status = api.status
	}
	writeJSON(w, status, map[string]string{"message": err.Error()})
}

// writeJSON answers with v and the newline that the engine's encoder adds.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("dockertest: encode %T: %v", v, err))
	}
	if a, ok := w.(*answer); ok {
		a.status, a.body = status, append(b, '\n')
		return
	}
	a := &answer{ResponseWriter: w, status: status, body: append(b, '\n')}
	a.send()
}

func flush(w http.ResponseWriter) {
	// It fails for a client that has gone.
	_ = http.NewResponseController(w).Flush()
}

// decode reads a JSON body. eof is the text for an empty one; badStatus the status of Engine 20.10 for garbage on this
// route, which differs from one to the next (newer engines answer 400 everywhere).
func (r *request) decode(v any, badStatus int, eof string) error {
	if ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(ct) != "application/json" &&
		(ct != "" || r.ContentLength != 0) {
		return fail(http.StatusBadRequest, "Content-Type specified (%s) must be 'application/json'", r.Header.Get("Content-Type"))
	}
	if r.daemon.speaks("1.42") {
		badStatus = http.StatusBadRequest
	}
	err := json.NewDecoder(r.Body).Decode(v)
	if errors.Is(err, io.EOF) {
		return fail(badStatus, "%s", eof)
	}
	if err != nil {
		return fail(badStatus, "%s", err)
	}
	return nil
}

// number reads an integer parameter; absent is def.
func (r *request) number(key string, def, badStatus int) (int, error) {
	s := r.param(key)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fail(badStatus, `strconv.Atoi: parsing %q: invalid syntax`, s)
	}
	return n, nil
}

// Do sends the daemon a request without a network in between: d.Do("POST", "/containers/web/start", nil). body is sent as
// JSON unless it is nil or []byte. Hang and Refuse do not touch it. A status of 0 means that a fault dropped the request. Do must not be used for streams that
// do not end, nor for attach and exec start.
func (d *Daemon) Do(method, target string, body any) (status int, answer []byte) {
	defer func() {
		if r := recover(); r != nil && r != http.ErrAbortHandler { //nolint:errorlint // a panic value
			panic(r)
		}
	}()
	var raw []byte
	switch b := body.(type) {
	case nil:
	case []byte:
		raw = b
	default:
		var err error
		if raw, err = json.Marshal(b); err != nil {
			panic(fmt.Sprintf("dockertest: encode %T: %v", body, err))
		}
	}
	r := httptest.NewRequestWithContext(context.Background(), method, target, bytes.NewReader(raw))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Code, w.Body.Bytes()
}
