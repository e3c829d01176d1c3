package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// randomRequests is the variable that has another number of random requests made, without a limit of time.
const randomRequests = "BERTH_RANDOM_REQUESTS"

// gibberish makes requests that are like those of clients, or nearly so, or not at all.
type gibberish struct {
	*rand.Rand
	routes []route
}

func (g *gibberish) of(words ...string) string { return words[g.IntN(len(words))] }

// word is a name that may exist, or something that no client would write.
func (g *gibberish) word() string {
	switch g.IntN(12) {
	case 0:
		b := make([]byte, g.IntN(12))
		for i := range b {
			b[i] = byte(g.IntN(256))
		}
		return string(b)
	case 1:
		return g.of("n1", "n2/", "/", "..", "%", "a/b/c", "sha256:00", strings.Repeat("a", 64), strings.Repeat("x", 3000), "0", "")
	case 2:
		return g.of("n1/", "n2/", "n9/") + g.of("r1", "r2", "net1", "vol1", "busybox")
	case 3:
		return g.of("busybox", "busybox:latest", "busybox:t1", "alpine@sha256:12", "bridge", "host", "none")
	}
	return g.of("r", "net", "vol") + strconv.Itoa(g.IntN(8))
}

func (g *gibberish) path(pattern string) string {
	parts := split(pattern)
	for i := 1; i < len(parts); i += 2 {
		parts[i] = url.PathEscape(g.word())
	}
	path := strings.Join(parts, "")
	switch g.IntN(20) {
	case 0:
		path += g.of("/", "//", "/json", "%2F", "/../..")
	case 1:
		path = "/" + url.PathEscape(g.word())
	}
	return g.of("/v1.41", "/v1.41", "/v1.24", "/v1.51", "", "/v9.9", "/v1") + path
}

func (g *gibberish) query(pattern string) string {
	q := url.Values{}
	for range g.IntN(4) {
		key := g.of("all", "size", "limit", "filters", "force", "v", "link", "t", "signal", "stdin", "stdout", "stream", "logs", "follow", "tail",
			"since", "until", "platform", "fromImage", "tag", "repo", "names", "container", "condition", "path", "name", "type", "before", "w", "h")
		q.Set(key, g.of("1", "0", "true", "nope", g.word(), `{"name":["r1"]}`, `{"label":{"a":true}}`, `{"status":["running"]}`, "{", `["a"]`, "1e9"))
	}
	switch pattern {
	case "/containers/create": // names keep their number down
		q.Set("name", g.of("", "n1/", "n2/")+"r"+strconv.Itoa(g.IntN(8)))
	case "/events":
		q.Set("until", "0")
	case "/containers/{id}/stats":
		q.Set("stream", "0")
	case "/containers/{id}/stop", "/containers/{id}/restart":
		q.Set("t", "0")
	}
	if g.IntN(30) == 0 {
		return g.word()
	}
	return q.Encode()
}

func (g *gibberish) body(pattern string) string {
	switch {
	case g.IntN(10) == 0:
		return g.of("", "{", "null", "[]", `"x"`, "{}", `{"a":1}{`, strings.Repeat("[", 2000), g.word())
	case pattern == "/containers/create":
		return fmt.Sprintf(`{"Image":%q,"Cmd":["sleep","%d"],"Env":[%q],"HostConfig":{"NetworkMode":%q,"Binds":[%q]},"Labels":{%q:"1"}}`,
			g.of("busybox", "busybox", "nope", ""), g.IntN(3), g.of("A=b", "constraint:node==n1", "affinity:container==r1", "constraint:x", "reschedule:maybe"),
			g.of("", "default", "host", "net1", "container:r1"), g.of("/tmp:/x", "vol1:/v", "n1/vol2:/v"), g.of("a", "berth.group", "com.docker.compose.project"))
	case strings.HasSuffix(pattern, "/create"):
		return fmt.Sprintf(`{"Name":%q,"Driver":%q,"Labels":{%q:"1"}}`, g.of("net", "vol", "n1/net", "n2/vol")+strconv.Itoa(g.IntN(8)), g.of("", "bridge", "local", "nope"), g.of("a", "berth.group"))
	case strings.HasSuffix(pattern, "/exec"):
		return fmt.Sprintf(`{"Cmd":["echo","x"],"AttachStdout":%s}`, g.of("true", "false"))
	}
	return fmt.Sprintf(`{"Container":%q,"Detach":%s,"Memory":%d}`, g.word(), g.of("true", "false", "1"), g.IntN(1e9))
}

// request is one request. Those that may last are given little time.
func (g *gibberish) request(ctx context.Context, base string) (*http.Request, error) {
	rt := g.routes[g.IntN(len(g.routes))]
	method := rt.method
	if g.IntN(25) == 0 {
		method = g.of("GET", "POST", "DELETE", "PUT", "HEAD", "PATCH", "OPTIONS")
	}
	var body io.Reader
	if method == "POST" || method == "PUT" {
		body = strings.NewReader(g.body(rt.pattern))
	}
	r, err := http.NewRequestWithContext(ctx, method, base+"/", body)
	if err != nil {
		return nil, err
	}
	r.URL.Opaque = "//" + r.URL.Host + g.path(rt.pattern)
	r.URL.RawQuery = g.query(rt.pattern)
	r.Header.Set("Content-Type", g.of("application/json", "application/json", "application/x-tar", "application/grpc"))
	switch g.IntN(12) {
	case 0:
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", g.of("tcp", "h2c", "websocket"))
	case 1:
		r.Header.Set("X-Berth-Node", g.of("n1", "n2", "nope"))
	case 2:
		r.Header.Set(dryRunHeader, g.of("1", "0", "x"))
	case 3:
		r.Header.Set("X-Registry-Auth", g.of("e30=", "x"))
	}
	return r, nil
}

// heap is what is in use once all that can go has gone.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestRandomRequestsLeaveTheManagerAlive(t *testing.T) {
	total, limit := 200_000, 10*time.Second
	if v := os.Getenv(randomRequests); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("%s: %v", randomRequests, err)
		}
		total, limit = n, 24*time.Hour
	}
	f := newFleet(t, 2, func(o *dockertest.Options) { o.NoRequestLog = true })
	var panics lockedBuffer
	s := httptest.NewUnstartedServer(f.api)
	s.Config.ErrorLog = log.New(&panics, "", 0)
	s.Start()
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	storm := func(n int, limit time.Duration, seed uint64) int64 { return f.storm(s.URL, transport, n, limit, seed) }

	// The first part fills what has a bound: names, the events remembered, pools.
	made := storm(total/4, limit/4, 1)
	memory, goroutines := heap(), runtime.NumGoroutine()
	made += storm(total-total/4, limit-limit/4, 2)
	t.Logf("%d requests", made)

	f.must(200, "GET", "/info", nil)
	f.must(200, "GET", "/containers/json?all=1", nil)
	transport.CloseIdleConnections()
	s.Close() // waits for the handlers
	if grown := int64(heap()) - int64(memory); grown > 24<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	f.await("the goroutines are as few as before", func(*fleet.Snapshot) bool { return runtime.NumGoroutine() <= goroutines+8 })
	if p := panics.String(); strings.Contains(p, "panic") {
		t.Errorf("a handler panicked:\n%.4000s", p)
	}
}

// storm makes requests from several clients at once and returns how many.
func (f *testFleet) storm(base string, transport http.RoundTripper, n int, limit time.Duration, seed uint64) int64 {
	f.t.Helper()
	var made, odd atomic.Int64
	var classes [6]atomic.Int64 // of answers, by the first digit of their status; 0 for none
	end := time.Now().Add(limit)
	var all sync.WaitGroup
	for worker := range 16 {
		all.Go(func() {
			g := &gibberish{rand.New(rand.NewPCG(seed, uint64(worker))), routes()}
			for made.Add(1) <= int64(n) && time.Now().Before(end) {
				status, ok := f.gibber(g, base, transport)
				if classes[status/100].Add(1); !ok {
					odd.Add(1)
				}
			}
		})
	}
	all.Wait()
	if bad := odd.Load(); bad > 0 {
		f.t.Errorf("%d answers were no answers", bad)
	}
	for _, class := range []int{0, 1, 2, 3, 4, 5} {
		f.t.Logf("%dxx: %d", class, classes[class].Load())
	}
	if classes[2].Load() == 0 || classes[4].Load() == 0 {
		f.t.Error("the requests are not random enough")
	}
	return min(made.Load(), int64(n))
}

// gibber makes one request and returns its status, 0 for none, and whether the answer keeps to the rules.
func (f *testFleet) gibber(g *gibberish, base string, transport http.RoundTripper) (status int, ok bool) {
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Millisecond)
	defer cancel()
	r, err := g.request(ctx, base)
	if err != nil {
		return 0, true // it was too odd to be written
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return 0, true // cut off for lasting, or for what it was
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return res.StatusCode, true
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode >= 400 && r.Method != http.MethodHead && len(b) == 0 {
		f.t.Logf("%s %s?%s = %d without a word", r.Method, r.URL.Opaque, r.URL.RawQuery, res.StatusCode)
		return res.StatusCode, false
	}
	return res.StatusCode, true
}

// lockedBuffer is a buffer for several writers.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
