package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Registrar keeps addresses in the place that a discovery URL names.
type Registrar interface {
	// Register makes addr a member for ttl more. It is called again before that is over, as long as addr is to be a member, and for one
	// address only.
	Register(ctx context.Context, addr string, ttl time.Duration) error
	// Leave ends the membership. One that has ended is no error.
	Leave(ctx context.Context, addr string) error
	// Close ends the connections to the place. Memberships stay until their time is over, or end with it.
	Close() error
}

// ErrReadOnly says that members of such a place are written there by hand.
var ErrReadOnly = errors.New("not implemented in this discovery service: nodes:// and file:// are written by hand")

// ParseRegistrar makes the Registrar that rawURL names: token://HOST:PORT/TOKEN or token+http://HOST:PORT/TOKEN, or a store's. For
// a place that is only read the error is ErrReadOnly.
func ParseRegistrar(rawURL string, o Options) (Registrar, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if scheme, rest, ok := strings.Cut(strings.TrimSpace(rawURL), "://"); ok && isToken(scheme) {
		return newToken(scheme, rest, o)
	}
	if store, err := o.store(rawURL); store != nil || err != nil {
		return store, err
	}
	if _, err := Parse(rawURL, o); err != nil {
		return nil, err
	}
	return nil, ErrReadOnly
}

// NewToken asks the discovery service at base (https://HOST:PORT, or http://) for a new token, and returns the discovery URL of it.
func NewToken(ctx context.Context, base string, o Options) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("discovery service %q: want https://HOST:PORT, or http://HOST:PORT", shorten(base))
	}
	t := &token{base: strings.TrimSuffix(u.String(), "/") + "/clusters"}
	if t.client, err = httpClient(o.Opts); err != nil {
		return "", err
	}
	body, _, err := t.call(ctx, http.MethodPost, t.base, "", "")
	if err != nil {
		return "", err
	}
	scheme := "token"
	if u.Scheme == "http" {
		scheme = "token+http"
	}
	return scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/") + "/" + strings.TrimSpace(string(body)), nil
}

func isToken(scheme string) bool { return scheme == "token" || scheme == "token+http" }

// token is a fleet at a token service: ours (`berth discovery serve`), or one with the calls of classic Swarm's.
type token struct {
	base   string // …/clusters or …/clusters/TOKEN
	host   string // for error texts, which must not hold the token
	o      Options
	client *http.Client
}

// callLimit bounds a call that waits for nothing.
const callLimit = 10 * time.Second

func newToken(scheme, rest string, o Options) (*token, error) {
	at := strings.LastIndexByte(rest, '/')
	if at <= 0 || at == len(rest)-1 || strings.ContainsAny(rest, "?#@ ") {
		return nil, fmt.Errorf("%s:// names no service and token: write %s://HOST:PORT/TOKEN, as `berth swarm create` prints it", scheme, scheme)
	}
	host, _, _ := strings.Cut(rest, "/")
	proto := "https://"
	if scheme == "token+http" {
		proto = "http://"
	}
	client, err := httpClient(o.Opts)
	if err != nil {
		return nil, err
	}
	return &token{base: proto + rest[:at] + "/clusters/" + url.PathEscape(rest[at+1:]), host: host, o: o, client: client}, nil
}

// httpClient trusts the system's authorities, or the one that the option token.cacertfile names.
func httpClient(opts map[string]string) (*http.Client, error) {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: callLimit, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute}
	path := opts["token.cacertfile"]
	if path == "" {
		return &http.Client{Transport: t}, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("token.cacertfile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("token.cacertfile: %s holds no certificate", path)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: t}, nil
}

// Watch asks again and again. A service that knows how to wait tells of a change at once; others are asked every heartbeat.
func (t *token) Watch(ctx context.Context, update func([]string)) error {
	defer t.client.CloseIdleConnections()
	w := &tokenWatch{token: t, update: update}
	for ctx.Err() == nil {
		pause := w.round(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// tokenWatch is what one Watch remembers.
type tokenWatch struct {
	*token
	update func([]string)
	tag    string   // of the last list, from a service that can wait
	last   []string // reported
	told   bool     // last was reported
	failed string   // the trouble that was warned about
	empty  time.Time
}

// emptyFor is how many heartbeats a list must be empty before it empties the fleet: a service that lost its memory is empty, too,
// and its members say again within a heartbeat that they are there.
const emptyFor = 3

// round asks once, and says how long to pause.
func (w *tokenWatch) round(ctx context.Context) time.Duration {
	beat := w.o.Heartbeat
	ask, cancel := context.WithTimeout(ctx, beat+callLimit)
	defer cancel()
	query := w.base
	if w.tag != "" {
		query += "?wait=" + strconv.Itoa(max(1, int(beat/time.Second)))
	}
	body, tag, err := w.call(ask, http.MethodGet, query, "", w.tag)
	if ctx.Err() != nil {
		return 0
	}
	if err == nil && body != nil {
		err = w.take(body)
	}
	if err != nil {
		if w.failed != err.Error() {
			w.failed = err.Error()
			err = fmt.Errorf("%w; the last known members are kept", err)
			w.o.Warn(err)
			w.o.State(err)
		}
		if !w.told {
			w.tell(nil)
		}
		return min(beat, 5*time.Second)
	}
	if w.failed != "" {
		w.o.State(nil)
	}
	w.failed = ""
	waits := w.tag != "" || tag != ""
	w.tag = tag
	switch {
	case !w.empty.IsZero():
		w.tag = "" // look at the clock again soon, changed or not
		return min(beat, time.Second)
	case waits:
		return 0
	}
	return beat
}

// take reports a list, unless it is the same, or empty for too short a time.
func (w *tokenWatch) take(body []byte) error {
	var addrs []string
	if err := json.Unmarshal(body, &addrs); err != nil {
		return fmt.Errorf("discovery service %s: this is no list of members: %w", w.host, err)
	}
	var set addrSet
	for _, a := range addrs {
		if err := set.add(a); err != nil {
			w.o.Warn(fmt.Errorf("discovery service %s: %w", w.host, err))
		}
	}
	slices.Sort(set.addrs)
	if len(set.addrs) > 0 || len(w.last) == 0 {
		w.empty = time.Time{}
	} else {
		if w.empty.IsZero() {
			w.empty = time.Now()
		}
		if time.Since(w.empty) < emptyFor*w.o.Heartbeat {
			return nil
		}
		w.empty = time.Time{}
	}
	if !w.told || !slices.Equal(set.addrs, w.last) {
		w.tell(set.addrs)
	}
	return nil
}

func (w *tokenWatch) tell(addrs []string) {
	w.last, w.told = addrs, true
	w.update(slices.Clone(addrs))
}

// Register makes addr a member for ttl more.
func (t *token) Register(ctx context.Context, addr string, ttl time.Duration) error {
	_, _, err := t.call(ctx, http.MethodPost, t.base+"?ttl="+strconv.Itoa(max(1, int(ttl/time.Second))), addr, "")
	return err
}

// Leave ends the membership. A service without this call forgets the member when its time is over.
func (t *token) Leave(ctx context.Context, addr string) error {
	_, _, err := t.call(ctx, http.MethodDelete, t.base+"/"+url.PathEscape(addr), "", "")
	return err
}

// Close ends idle connections.
func (t *token) Close() error {
	t.client.CloseIdleConnections()
	return nil
}

// call makes one request. The body is nil for an unchanged list.
func (t *token) call(ctx context.Context, method, target, body, tag string) ([]byte, string, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callLimit)
		defer cancel()
	}
	r, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return nil, "", fmt.Errorf("discovery service %s: the URL is not one", t.host)
	}
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	res, err := t.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL holds the token
		}
		return nil, "", fmt.Errorf("discovery service %s: %w", t.host, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxFile))
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("discovery service %s: %w", t.host, err)
	case res.StatusCode == http.StatusNotModified:
		return nil, tag, nil
	case res.StatusCode/100 != 2:
		return nil, "", fmt.Errorf("discovery service %s: %s: %s", t.host, res.Status, shorten(strings.TrimSpace(string(b))))
	}
	return b, res.Header.Get("Etag"), nil
}
