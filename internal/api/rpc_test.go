package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"berth/internal/dockertest"
	"berth/internal/engine"
	"berth/internal/proxy"
)

// rpcServer echoes a gRPC call, says where it is, and ends with trailers.
func rpcServer(w http.ResponseWriter, r *http.Request, name string) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Node", name)
	control := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = control.Flush() // the client sees what is missing
	buf := make([]byte, 512)
	for {
		n, err := r.Body.Read(buf)
		if _, failed := w.Write(buf[:n]); failed != nil || control.Flush() != nil {
			return
		}
		if err != nil {
			break
		}
	}
	h.Set(http.TrailerPrefix+"Grpc-Status", "0")
	h.Set(http.TrailerPrefix+"Grpc-Message", "done with "+r.URL.Path)
}

// newRPCFleet has an engine of each of the API versions, with a BuildKit in front: old ones take gRPC after an upgrade only,
// new ones without.
func newRPCFleet(t *testing.T, versions ...string) *testFleet {
	t.Helper()
	f := &testFleet{t: t}
	var eps []engine.Endpoint
	for i, v := range versions {
		d := dockertest.New(t, dockertest.Options{Name: fmt.Sprintf("n%d", i+1), Images: []string{"busybox"}, APIVersion: v})
		native := v == "1.52"
		front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case proxy.IsRPC(r):
				rpcServer(w, r, d.Name())
			case r.URL.Path == "/grpc" && !native:
				serveH2C(t, w, func(w http.ResponseWriter, r *http.Request) { rpcServer(w, r, d.Name()) })
			default:
				d.ServeHTTP(w, r)
			}
		}))
		if native {
			front.Config.Protocols = bothHTTP()
		}
		front.Start()
		t.Cleanup(front.Close)
		addr := front.Listener.Addr().String()
		f.daemons = append(f.daemons, d)
		eps = append(eps, engine.Endpoint{Addr: addr, Key: addr, Dial: engine.DialTCP(addr, nil)})
	}
	f.serve(eps)
	return f
}

func bothHTTP() *http.Protocols {
	p := onlyH2C()
	p.SetHTTP1(true)
	return p
}

// plainHTTP2 is another address of the fleet's endpoint, and a client that speaks HTTP/2 there from the first byte.
func (f *testFleet) plainHTTP2() (url string, client *http.Client) {
	f.t.Helper()
	s := httptest.NewUnstartedServer(f.api)
	s.Config.Protocols = bothHTTP()
	s.Start()
	h2 := &http.Transport{Protocols: onlyH2C()}
	f.t.Cleanup(func() { h2.CloseIdleConnections(); s.Close() })
	return s.URL, &http.Client{Transport: h2}
}

// rpc makes a call that says something, hears it, says more, and ends. It returns the node.
func (f *testFleet) rpc(url string, client *http.Client) string {
	f.t.Helper()
	in, say := io.Pipe()
	defer say.Close()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, url+"/moby.buildkit.v1.Control/Session", in)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc+proto")
	r.Header.Set("TE", "trailers")
	res, err := client.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	for _, word := range []string{"one", "two"} {
		if _, err := io.WriteString(say, word); err != nil {
			f.t.Fatal(err)
		}
		echo := make([]byte, len(word))
		if _, err := io.ReadFull(res.Body, echo); err != nil || string(echo) != word {
			f.t.Fatalf("said %q, heard %q, %v", word, echo, err)
		}
	}
	if err := say.Close(); err != nil {
		f.t.Fatal(err)
	}
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		f.t.Errorf("after the end: %q, %v", rest, err)
	}
	if got := res.Trailer.Get("Grpc-Status") + " " + res.Trailer.Get("Grpc-Message"); got != "0 done with /moby.buildkit.v1.Control/Session" {
		f.t.Errorf("trailers %q", got)
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/grpc" {
		f.t.Errorf("Content-Type %q", ct)
	}
	if at, said := res.Header.Get("Node"), res.Header.Get("X-Berth-Node"); at != said {
		f.t.Errorf("answered by %s, but said to be by %s", at, said)
	}
	return res.Header.Get("Node")
}

func TestGRPCReachesOneBuilderWhateverItsAge(t *testing.T) {
	for _, version := range []string{"1.41", "1.52"} {
		t.Run(version, func(t *testing.T) {
			f := newRPCFleet(t, version, version, version)
			url, client := f.plainHTTP2()
			first := f.rpc(url, client)
			for range 3 {
				if next := f.rpc(url, client); next != first {
					t.Errorf("calls of one client went to %s and %s", first, next)
				}
			}
		})
	}
}

func TestGRPCPrefersEnginesThatHaveAllExporters(t *testing.T) {
	f := newRPCFleet(t, "1.41", "1.41", "1.52", "1.41")
	url, client := f.plainHTTP2()
	if at := f.rpc(url, client); at != "n3" {
		t.Errorf("went to %s, want n3", at)
	}
}

func TestGRPCEndsWithItsClient(t *testing.T) {
	f := newRPCFleet(t, "1.52")
	url, client := f.plainHTTP2()
	ctx, cancel := context.WithCancel(t.Context())
	in, say := io.Pipe()
	defer say.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/a/b", in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	say.CloseWithError(context.Canceled) // net/http sees a cancelled call only when its body moves
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("the call ended well, with %q", b)
	}
	// The servers' ends wait for their handlers: the engine's must have been told.
}

func TestGRPCErrorsAreGRPCs(t *testing.T) {
	f := &testFleet{t: t}
	f.serve(nil)
	url, client := f.plainHTTP2()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/a/b", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Grpc-Status"); res.StatusCode != 200 || got != "14" || !strings.Contains(res.Header.Get("Grpc-Message"), "healthy") {
		t.Errorf("got %d, status %q, message %q", res.StatusCode, got, res.Header.Get("Grpc-Message"))
	}
}

// serveH2C turns a connection into HTTP/2.
func serveH2C(t *testing.T, w http.ResponseWriter, h http.HandlerFunc) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		t.Error(err)
		return
	}
	server := &http.Server{Handler: h, Protocols: onlyH2C(), ReadHeaderTimeout: engine.DefaultTiming().List}
	err = server.Serve(&oneConn{buffered: &buffered{Conn: conn, in: buf.Reader, closed: make(chan struct{})}})
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve HTTP/2: %v", err)
	}
}
