package replica_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/replica"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type clientKey struct{}

// manager is one of several: its own handler says who answered, for whom, and what.
type manager struct {
	*replica.Standing
	http    *httptest.Server
	handler *replica.Handler
	asks    atomic.Int64
	hangs   atomic.Bool
	events  chan string // what it tells
}

type tenure struct {
	term uint64
	over atomic.Bool
}

func (t *tenure) Valid() bool  { return !t.over.Load() }
func (t *tenure) Term() uint64 { return t.term }

func newManager(t *testing.T, name string) *manager {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{Standing: replica.New(l.Addr().String())}
	client := func(r *http.Request) string {
		if who, ok := r.Context().Value(clientKey{}).(string); ok {
			return who
		}
		return "client of " + name
	}
	h := replica.NewHandler(replica.Options{
		Standing: m.Standing, Sign: 100 * time.Millisecond,
		Local: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.asks.Add(1)
			if r.URL.Path == "/slow" || m.hangs.Load() {
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
			if r.URL.Path == "/events" {
				m.tell(w, r, name, client(r))
				return
			}
			if r.Header.Get("Upgrade") != "" {
				echo(t, w)
				return
			}
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if r.Header.Get("Berth-Handed-By") != "" || r.Header.Get("Berth-Client") != "" {
				t.Error("what managers tell each other reached the API")
			}
			_, _ = fmt.Fprintf(w, "%s for %s: %s %s", name, client(r), r.URL.Path, b)
		}),
		Dial: func(ctx context.Context, addr string, _ bool) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
		Client: client,
		WithClient: func(r *http.Request, who string) *http.Request {
			return r.WithContext(context.WithValue(r.Context(), clientKey{}, who))
		},
	})
	m.handler = h
	m.http = httptest.NewUnstartedServer(h)
	if err := m.http.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	m.http.Listener = l
	m.http.Start()
	t.Cleanup(func() { h.Close(); m.http.Close(); http.DefaultClient.CloseIdleConnections() })
	return m
}

// tell streams events, first who tells them and to whom.
func (m *manager) tell(w http.ResponseWriter, r *http.Request, name, to string) {
	_, _ = fmt.Fprintf(w, `{"by":%q,"for":%q,"n":%q}`+"\n", name, to, r.URL.Query().Get("n"))
	for {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case ev := <-m.events:
			_, _ = fmt.Fprintln(w, ev)
		case <-r.Context().Done():
			return
		}
	}
}

// echo takes the connection over, as an engine does for exec.
func echo(t *testing.T, w http.ResponseWriter) {
	c, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	_, _ = io.Copy(c, in)
}

// lead makes m the primary, and tells the others.
func (m *manager) lead(t *testing.T, term uint64, all ...*manager) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ten := &tenure{term: term}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Serve(ctx, ten)
	}()
	for deadline := time.Now().Add(5 * time.Second); m.Term() != term; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not serve")
		}
	}
	for _, o := range all {
		o.Changed(m.Advertise())
	}
	end = func() { ten.over.Store(true); cancel(); <-done }
	t.Cleanup(end)
	return end
}

func (m *manager) do(t *testing.T, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, m.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestHandedOn(t *testing.T) {
	a, b := newManager(t, "a"), newManager(t, "b")
	end := a.lead(t, 1, a, b)
	for _, tc := range []struct{ method, path, body, want string }{
		{"GET", "/containers/json", "", "b for client of b: /containers/json "},
		{"POST", "/containers/create", "{}", "a for client of b: /containers/create {}"},
		{"GET", "/containers/json", "", "a for client of b: /containers/json "}, // it reads what it has just written
		{"GET", "/v1.41/info", "", "b for client of b: /v1.41/info "},
		{"DELETE", "/containers/x", "", "a for client of b: /containers/x "},
	} {
		if _, got := b.do(t, tc.method, tc.path, tc.body); got != tc.want {
			t.Errorf("%s %s: %q, want %q", tc.method, tc.path, got, tc.want)
		}
	}
	if role, primary := b.Role(); role != "replica" || primary != a.http.Listener.Addr().String() {
		t.Errorf("b is %s of %s", role, primary)
	}
	if role, primary := a.Role(); role != "primary" || primary != "" {
		t.Errorf("a is %s of %s", role, primary)
	}
	// What clients say of themselves does not count.
	if _, got := a.do(t, "POST", "/x", "", "Berth-Handed-By", "guess", "Berth-Client", "root"); got != "a for client of a: /x " {
		t.Errorf("a forged client: %q", got)
	}
	end()
	b.lead(t, 2, a, b)
	if _, got := a.do(t, "POST", "/x", "y"); got != "b for client of a: /x y" {
		t.Errorf("after the change: %q", got)
	}
}

func TestStreamIsHandedOn(t *testing.T) {
	a, b := newManager(t, "a"), newManager(t, "b")
	a.lead(t, 1, a, b)
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = io.WriteString(c, "POST /exec/1/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nhello\n")
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	defer res.Body.Close()
	if line, err := in.ReadString('\n'); line != "hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// A request is not handed on twice: two managers that think the other is the primary do not play ping-pong.
func TestNoCircle(t *testing.T) {
	a, b := newManager(t, "a"), newManager(t, "b")
	a.Changed(b.Advertise())
	b.Changed(a.Advertise())
	code, got := a.do(t, "POST", "/x", "")
	var m struct{ Message string }
	if err := json.Unmarshal([]byte(got), &m); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(m.Message, "not the primary") {
		t.Errorf("%d %s", code, got)
	}
	if a.asks.Load()+b.asks.Load() != 0 {
		t.Error("somebody acted")
	}
}

func TestWaitsForAPrimary(t *testing.T) {
	a, b := newManager(t, "a"), newManager(t, "b")
	got := make(chan string)
	go func() {
		_, s := b.do(t, "POST", "/x", "y")
		got <- s
	}()
	go func() {
		_, s := a.do(t, "POST", "/x", "y")
		got <- s
	}()
	time.Sleep(20 * time.Millisecond)
	a.lead(t, 1, b, a)
	for range 2 {
		if s := <-got; !strings.HasPrefix(s, "a for client of") {
			t.Errorf("%q", s)
		}
	}
}

// A primary that died is waited for no longer than until there is another.
func TestPrimaryDies(t *testing.T) {
	a, b, c := newManager(t, "a"), newManager(t, "b"), newManager(t, "c")
	a.lead(t, 1, b)
	a.http.Close()
	// Its own view is better than none.
	if code, got := b.do(t, "GET", "/containers/json", ""); code != http.StatusOK || !strings.HasPrefix(got, "b for") {
		t.Errorf("%d %s", code, got)
	}
	got := make(chan string)
	go func() {
		_, s := b.do(t, "POST", "/x", "body")
		got <- s
	}()
	time.Sleep(20 * time.Millisecond)
	c.lead(t, 2, b)
	if s := <-got; s != "c for client of b: /x body" {
		t.Errorf("%q", s)
	}
}

func TestOffice(t *testing.T) {
	a := newManager(t, "a")
	if _, _, _, err := a.Hold(t.Context()); err == nil {
		t.Fatal("held by nobody")
	}
	end := a.lead(t, 7)
	ctx, leave, term, err := a.Hold(t.Context())
	if err != nil || term != 7 || a.Check(7) != nil {
		t.Fatalf("term %d, %v, %v", term, err, a.Check(7))
	}
	defer leave()
	end()
	<-ctx.Done()
	if err := context.Cause(ctx); err == nil || !strings.Contains(err.Error(), "not the primary any more") || a.Check(7) == nil {
		t.Errorf("%v, %v", err, a.Check(7))
	}
	a.lead(t, 9)
	if a.Check(7) == nil || a.Check(9) != nil {
		t.Error("a create of an earlier term may go on in a later one")
	}
}

// A replica takes over what the primary tells: all of it from its start, and what comes, from whoever is the primary.
func TestFollow(t *testing.T) {
	a, b, c := newManager(t, "a"), newManager(t, "b"), newManager(t, "c")
	for _, m := range []*manager{a, c} {
		m.events = make(chan string, 8)
	}
	end := a.lead(t, 1, a, b)
	ctx, stop := context.WithCancel(t.Context())
	heard, paths := make(chan string, 8), 0
	done := make(chan error, 1)
	go func() {
		done <- b.handler.Follow(ctx, func() string { paths++; return fmt.Sprintf("/events?n=%d", paths) },
			func(line []byte) { heard <- string(line) }, func(err error) { t.Errorf("warned: %v", err) })
	}()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("heard %s, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not heard", want)
		}
	}
	next(`{"by":"a","for":"` + b.http.Listener.Addr().String() + `","n":"1"}`)
	a.events <- `{"x":1}`
	next(`{"x":1}`)
	// Another is elected while the stream of the one before hangs.
	end()
	c.lead(t, 2, a, b)
	next(`{"by":"c","for":"` + b.http.Listener.Addr().String() + `","n":"2"}`)
	c.events <- `{"x":2}`
	next(`{"x":2}`)
	// It follows nobody once it is the primary itself.
	b.lead(t, 3, b)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A primary that is slow is waited for, one that hangs is not, and what has begun is left alone.
func TestPrimaryHangs(t *testing.T) {
	a, b := newManager(t, "a"), newManager(t, "b")
	a.lead(t, 1, b)
	if code, got := b.do(t, "POST", "/slow", "x"); code != http.StatusOK || got != "a for client of b: /slow x" {
		t.Errorf("slow: %d %s", code, got)
	}
	a.events = make(chan string)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.http.URL+"/events", nil) // a stream that is handed on
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"by":"a"`) {
		t.Fatalf("%q, %v", line, err)
	}
	a.hangs.Store(true)
	began := time.Now()
	code, got := b.do(t, "POST", "/x", "y")
	if code != http.StatusServiceUnavailable || !strings.Contains(got, "does not answer any more; what it was asked for may have been done") || time.Since(began) > 900*time.Millisecond {
		t.Errorf("hung: %d %s after %s", code, got, time.Since(began))
	}
	// Our own view is better than to wait.
	if _, got := b.do(t, "GET", "/x", ""); got != "b for client of b: /x " {
		t.Errorf("a read: %s", got)
	}
	a.hangs.Store(false)
	a.events <- "more"
	if line, err := lines.ReadString('\n'); err != nil || line != "more\n" {
		t.Errorf("the stream: %q, %v", line, err)
	}
	if code, got := b.do(t, "POST", "/x", "y"); code != http.StatusOK {
		t.Errorf("later: %d %s", code, got)
	}
}
