package api

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/engine"
	"berth/internal/fleet"
)

// buildContext is a tar with a Dockerfile.
func buildContext(t testing.TB, dockerfile string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(dockerfile))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(dockerfile)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// holders are the daemons that have a reference.
func (f *testFleet) holders(ref string) string {
	var names []string
	for _, d := range f.daemons {
		if _, ok := d.Images()[ref]; ok {
			names = append(names, d.Name())
		}
	}
	return strings.Join(names, " ")
}

func (f *testFleet) build(query, dockerfile string) answer {
	f.t.Helper()
	return f.send("POST", "/v1.41/build?"+query, buildContext(f.t, dockerfile))
}

func TestBuildsOfOneClientShareANode(t *testing.T) {
	f := newFleet(t, 3)
	if a := f.build("t=base:1", "FROM busybox\nLABEL a=1\n"); a.status != 200 || !strings.Contains(string(a.body), "Successfully tagged base:1") {
		t.Fatalf("build = %d %s", a.status, a.body)
	}
	if got := tagsIn(f.images("")); got != "base:1 busybox:latest" {
		t.Errorf("list at once after = %q", got)
	}
	// A container elsewhere makes the other node less busy, and the base is on the first node alone.
	builder := f.holders("base:1")
	if a := f.create(builder, "busybox"); a.status != 201 {
		t.Fatalf("create = %d %s", a.status, a.body)
	}
	if a := f.build("t=app:1&t=app:2", "FROM base:1\nLABEL b=1\n"); a.status != 200 || strings.Contains(string(a.body), "errorDetail") {
		t.Fatalf("second build = %d %s", a.status, a.body)
	}
	if got := f.holders("app:2"); got != builder {
		t.Errorf("app:2 was built on %q, base:1 on %q", got, builder)
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		if a := f.create(n, "app:1"); a.status != 201 {
			t.Errorf("create on %s = %d %s, want 201", n, a.status, a.body)
		}
	}
}

func TestRebuiltTagIsTheNewImageEverywhere(t *testing.T) {
	f := newFleet(t, 2)
	for _, version := range []string{"1", "2", "1"} {
		if a := f.build("t=app", "FROM busybox\nLABEL v="+version+"\n"); a.status != 200 {
			t.Fatalf("build = %d %s", a.status, a.body)
		}
		for _, n := range []string{"n1", "n2"} {
			if a := f.create(n, "app"); a.status != 201 {
				t.Fatalf("create = %d %s", a.status, a.body)
			}
		}
		one, two := f.daemons[0].Images()["app:latest"], f.daemons[1].Images()["app:latest"]
		if one != two || one == "" {
			t.Errorf("after build of v=%s app is %s on n1 and %s on n2", version, one, two)
		}
	}
}

func TestBuildArgumentsMayCarryRules(t *testing.T) {
	f := newFleet(t, 3)
	for _, n := range []string{"n1", "n2", "n3"} {
		args := url.QueryEscape(`{"constraint:node":"=` + n + `","HTTP_PROXY":"x"}`)
		if a := f.build("t=on-"+n+"&buildargs="+args, "FROM busybox\nLABEL n="+n+"\n"); a.status != 200 {
			t.Fatalf("build = %d %s", a.status, a.body)
		}
		if got := f.holders("on-" + n + ":latest"); got != n {
			t.Errorf("a build for %s ran on %q", n, got)
		}
	}
	args := url.QueryEscape(`{"constraint:node":"=nowhere"}`)
	if a := f.build("buildargs="+args, "FROM busybox\n"); a.status != 503 && a.status != 500 || !strings.Contains(string(a.body), "no node fits") {
		t.Errorf("build = %d %s, want a refusal", a.status, a.body)
	}
}

func TestRulesAreTakenFromBuildArguments(t *testing.T) {
	q := url.Values{"buildargs": {`{"A":"1","constraint:zone":"=b","N":null,"affinity:image":"==x"}`}}
	rules, found, err := takeRules(q)
	if err != nil || !found || len(rules.Constraints) != 1 || len(rules.Affinities) != 1 {
		t.Errorf("rules = %+v, %v, %v", rules, found, err)
	}
	if got, want := q.Get("buildargs"), `{"A":"1","N":null}`; got != want {
		t.Errorf("arguments left = %s, want %s", got, want)
	}
	if _, _, err := takeRules(url.Values{"buildargs": {`{"A":`}}); status(err) != 400 {
		t.Errorf("broken arguments = %v, want 400", err)
	}
}

func TestBuilderLabelDedicatesNodes(t *testing.T) {
	f := newFleet(t, 3, func(o *dockertest.Options) {
		if o.Name == "n3" {
			o.Labels = []string{"berth.builder=true"}
		}
	})
	f.build("t=app", "FROM busybox\nLABEL v=1\n")
	if got := f.holders("app:latest"); got != "n3" {
		t.Errorf("built on %q, want n3", got)
	}
}

func TestBuilderIsKeptAndLeft(t *testing.T) {
	f := newFleet(t, 2)
	now := time.Now()
	f.api.o.Now = func() time.Time { return now }
	r := &request{Request: httptest.NewRequest(http.MethodPost, "/build", nil)}
	first := builderOf(t, f, r)
	other := f.cluster.Snapshot().Nodes()[0]
	if other.ID == first.ID {
		other = f.cluster.Snapshot().Nodes()[1]
	}
	if a := f.create(first.Name, "busybox"); a.status != 201 { // from now on the other is the less busy one
		t.Fatalf("create = %d %s", a.status, a.body)
	}
	now = now.Add(stickyFor - time.Second)
	if got := builderOf(t, f, r); got.ID != first.ID {
		t.Errorf("builder within %s = %s, want %s", stickyFor, got.Name, first.Name)
	}
	done := f.api.builders.stream(Client(r.Request), first.ID, f.api.o.Now)
	now = now.Add(2 * stickyFor)
	if got := builderOf(t, f, r); got.ID != first.ID {
		t.Errorf("builder with an open stream = %s, want %s", got.Name, first.Name)
	}
	done()
	now = now.Add(2 * stickyFor)
	if got := builderOf(t, f, r); got.ID != other.ID {
		t.Errorf("builder after a long rest = %s, want %s", got.Name, other.Name)
	}
	f.daemon(other.Name).Refuse()
	f.await("it is lost", func(s *fleet.Snapshot) bool { n, _ := s.Node(other.ID); return n.State == fleet.Unhealthy })
	if got := builderOf(t, f, r); got.ID != first.ID {
		t.Errorf("builder after it was lost = %s, want %s", got.Name, first.Name)
	}
}

func builderOf(t *testing.T, f *testFleet, r *request) *fleet.Node {
	t.Helper()
	n, err := f.api.builder(r)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (f *testFleet) daemon(name string) *dockertest.Daemon {
	for _, d := range f.daemons {
		if d.Name() == name {
			return d
		}
	}
	f.t.Fatalf("no daemon %s", name)
	return nil
}

func TestBuildsGoOnWhenAllSlotsAreTaken(t *testing.T) {
	f := newFleet(t, 1, func(o *dockertest.Options) { o.Labels = []string{"containerslots=0"} })
	if a := f.build("t=app", "FROM busybox\nLABEL v=1\n"); a.status != 200 {
		t.Errorf("build = %d %s, want 200", a.status, a.body)
	}
}

func TestBuildPruneAndCancelReachAllNodes(t *testing.T) {
	f := newFleet(t, 2)
	a := f.must(200, "POST", "/build/prune", nil)
	if got := strings.TrimSpace(string(a.body)); got != `{"CachesDeleted":null,"SpaceReclaimed":0}` {
		t.Errorf("prune = %s", got)
	}
	f.do("POST", "/build/cancel?id=x", nil)
	for i, d := range f.daemons {
		if p, c := asked(d, "POST", "/build/prune"), asked(d, "POST", "/build/cancel"); p != 1 || c != 1 {
			t.Errorf("n%d was asked to prune %d and to cancel %d times, want 1 and 1", i+1, p, c)
		}
	}
}

func TestIdentity(t *testing.T) {
	plain := httptest.NewRequest(http.MethodGet, "/", nil)
	plain.RemoteAddr = "192.0.2.7:4711"
	unix := plain.Clone(context.WithValue(plain.Context(), clientKey{}, "uid 1000"))
	unknown := plain.Clone(plain.Context())
	unknown.RemoteAddr = "@"
	secure := plain.Clone(plain.Context())
	secure.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("one")}}}
	for want, r := range map[string]*http.Request{
		"addr 192.0.2.7": plain, "uid 1000": unix, "local": unknown,
		"cert 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed": secure,
	} {
		if got := Client(r); got != want {
			t.Errorf("identity = %q, want %q", got, want)
		}
	}
}

func TestConnContextKnowsTheUserOfAUnixSocket(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	who, _ := ConnContext(context.Background(), server).Value(clientKey{}).(string)
	if !strings.HasPrefix(who, "uid ") {
		t.Errorf("identity = %q, want a user ID", who)
	}
}

func TestSeedsDiffer(t *testing.T) {
	if seedOf("uid 1") == seedOf("uid 2") {
		t.Error("two clients have one seed")
	}
}

// BuildKit's /grpc and /session become HTTP/2 on a connection that was HTTP/1.1.
func TestBuildKitStreamsReachTheBuilder(t *testing.T) {
	f := newBuildKitFleet(t, 2)
	first := f.h2c("/grpc", "one")
	if second := f.h2c("/session", "two"); second != first || first == "" {
		t.Errorf("/grpc was answered by %q, /session by %q", first, second)
	}
	// What BuildKit made is known to its engine alone; it must be found at once all the same.
	f.daemon(first).AddImage("built:1")
	if got := tagsIn(f.images(`{"reference":["built"]}`)); got != "built:1" {
		t.Errorf("list after the build = %q, want built:1", got)
	}
	other := "n1"
	if first == "n1" {
		other = "n2"
	}
	f.h2c("/grpc", "three")
	f.daemon(first).AddImage("built:2")
	if a := f.create(other, "built:2"); a.status != 201 {
		t.Errorf("create of what was just built = %d %s, want 201", a.status, a.body)
	}
}

// As long as a build's stream is open its images may appear at any time, not only before somebody first looks.
func TestAnOpenSessionMayBuildAgain(t *testing.T) {
	f := newBuildKitFleet(t, 1)
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /session HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("session = %+v, %v, want 101", res, err)
	}
	for i := range 3 {
		name := fmt.Sprintf("built:%d", i)
		f.daemon("n1").AddImage(name)
		if got := tagsIn(f.images(`{"reference":["` + name + `"]}`)); got != name {
			t.Errorf("list after build %d = %q, want %s", i, got, name)
		}
	}
}

// h2c upgrades a connection, makes one HTTP/2 request over it and returns the node that answered.
func (f *testFleet) h2c(path, say string) string {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		f.t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		f.t.Fatalf("%s = %+v, %v, want 101", path, res, err)
	}
	dial := func(context.Context, string, string) (net.Conn, error) { return &buffered{Conn: conn, in: in}, nil }
	h2 := &http.Transport{Protocols: onlyH2C(), DialContext: dial}
	defer h2.CloseIdleConnections()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, "http://docker/control", strings.NewReader(say))
	if err != nil {
		f.t.Fatal(err)
	}
	got, err := h2.RoundTrip(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer got.Body.Close()
	echo, err := io.ReadAll(got.Body)
	if err != nil || string(echo) != say {
		f.t.Errorf("%s echoed %q, %v, want %q", path, echo, err, say)
	}
	return got.Header.Get("Node")
}

func onlyH2C() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// buffered is a connection some of which was read already.
type buffered struct {
	net.Conn
	in     *bufio.Reader
	once   sync.Once
	closed chan struct{}
}

func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

func (b *buffered) Close() error {
	if b.closed != nil {
		b.once.Do(func() { close(b.closed) })
	}
	return b.Conn.Close()
}

// oneConn is a listener that gives out one connection and ends with it.
type oneConn struct {
	*buffered
	given atomic.Bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.given.Swap(true) {
		return l.buffered, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Addr() net.Addr { return l.LocalAddr() }

// newBuildKitFleet is newFleet with a BuildKit in front of each daemon, which echoes and says where it is.
func newBuildKitFleet(t *testing.T, n int) *testFleet {
	t.Helper()
	f := &testFleet{t: t}
	var eps []engine.Endpoint
	for i := range n {
		d := dockertest.New(t, dockertest.Options{Name: fmt.Sprintf("n%d", i+1), Images: []string{"busybox"}})
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/grpc") || strings.HasSuffix(r.URL.Path, "/session") {
				echoH2C(t, w, d.Name())
				return
			}
			d.ServeHTTP(w, r)
		}))
		t.Cleanup(front.Close)
		addr := front.Listener.Addr().String()
		f.daemons = append(f.daemons, d)
		eps = append(eps, engine.Endpoint{Addr: addr, Key: addr, Dial: engine.DialTCP(addr, nil)})
	}
	f.serve(eps)
	return f
}

// echoH2C turns a connection into HTTP/2.
func echoH2C(t *testing.T, w http.ResponseWriter, name string) {
	serveH2C(t, w, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Node", name)
		_, _ = io.Copy(w, r.Body) // the client sees what is missing
	})
}

func TestClientsBuildOnDifferentNodes(t *testing.T) {
	f := newFleet(t, 3)
	seen := map[string]int{}
	for i := range 6 {
		r := httptest.NewRequest(http.MethodPost, "/build", nil)
		r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1234", i)
		seen[builderOf(t, f, &request{Request: r}).Name]++
	}
	if len(seen) != 3 || seen["n1"] != 2 || seen["n2"] != 2 {
		t.Errorf("six clients build on %v, want two on each of three nodes", seen)
	}
}
