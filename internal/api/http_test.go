package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"berth/internal/dockertest"
	"berth/internal/engine"
)

// newFrontFleet is newFleet of one node with something between berth and the daemon, which may answer in its place.
func newFrontFleet(t *testing.T, answers func(w http.ResponseWriter, r *http.Request) bool) *testFleet {
	t.Helper()
	d := dockertest.New(t, dockertest.Options{Name: "n1", Images: []string{"busybox"}})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answers(w, r) {
			d.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	addr := front.Listener.Addr().String()
	f := &testFleet{t: t, daemons: []*dockertest.Daemon{d}}
	f.serve([]engine.Endpoint{{Addr: addr, Key: addr, Dial: engine.DialTCP(addr, nil)}})
	return f
}

// get makes a GET with headers over a client that decodes nothing.
func get(t *testing.T, client *http.Client, url string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

func TestArchivesAreZippedOnlyForThoseWhoAsk(t *testing.T) {
	tar := bytes.Repeat([]byte("tar archive "), 10_000)
	f := newFrontFleet(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/archive") {
			return false
		}
		w.Header().Set("X-Docker-Container-Path-Stat", "e30=")
		w.Header().Set("Content-Type", "application/x-tar")
		if r.Header.Get("Accept-Encoding") != "gzip" {
			_, _ = w.Write(tar) // the client sees what is missing
			return true
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(tar)
		_ = z.Close()
		return true
	})
	f.must(201, "POST", "/containers/create?name=web", map[string]any{"Image": "busybox"})
	raw := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer raw.CloseIdleConnections()
	url := f.URL + "/v1.41/containers/web/archive?path=/"
	res, b := get(t, raw, url)
	if !bytes.Equal(b, tar) || res.Header.Get("Content-Encoding") != "" || res.Header.Get("X-Docker-Container-Path-Stat") != "e30=" {
		t.Errorf("plain: %d bytes, headers %v", len(b), res.Header)
	}
	res, b = get(t, raw, url, "Accept-Encoding", "gzip")
	if res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("zipped: headers %v", res.Header)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil || !bytes.Equal(b, tar) {
		t.Errorf("zipped: %d bytes, %v", len(b), err)
	}
}

func TestHTTP2(t *testing.T) {
	f := newFleet(t, 2)
	f.must(201, "POST", "/containers/create?name=web", map[string]any{"Image": "busybox", "Cmd": []string{"sh", "-c", "echo out"}})
	plain, plainClient := f.plainHTTP2()
	secure := httptest.NewUnstartedServer(f.api)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	for name, tt := range map[string]struct {
		url    string
		client *http.Client
	}{"h2c": {plain, plainClient}, "TLS": {secure.URL, secure.Client()}} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/v1.41/containers/json?all=1", "/v1.41/images/json", "/v1.41/networks", "/v1.41/volumes", "/v1.41/info", "/_ping"} {
				res, b := get(t, tt.client, tt.url+path)
				if res.StatusCode != 200 || res.ProtoMajor != 2 || len(b) == 0 {
					t.Errorf("%s = HTTP/%d %d, %d bytes", path, res.ProtoMajor, res.StatusCode, len(b))
				}
			}
			res, err := tt.client.Post(tt.url+"/v1.41/containers/web/attach?stream=1&stdin=1&stdout=1", "text/plain", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if res.StatusCode != 400 || err != nil || !strings.Contains(string(b), `"message":"a stream with input needs HTTP/1.1`) {
				t.Errorf("attach with input = %d %s", res.StatusCode, b)
			}
		})
	}
}

// say writes a request as it stands and returns a reader of what comes back.
func (f *testFleet) say(request string) (net.Conn, *bufio.Reader) {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		f.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func TestAClientThatAsksBeforeItSendsIsToldToSend(t *testing.T) {
	var mu sync.Mutex
	var expect, got string
	f := newFrontFleet(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/archive") {
			return false
		}
		b, err := io.ReadAll(r.Body)
		mu.Lock()
		expect, got = fmt.Sprint(r.Header["Expect"], err), string(b)
		mu.Unlock()
		return true
	})
	f.must(201, "POST", "/containers/create?name=web", map[string]any{"Image": "busybox"})
	conn, in := f.say("PUT /v1.41/containers/web/archive?path=/ HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusContinue {
		t.Fatalf("before the body: %v, %v, want 100", res, err)
	}
	if _, err := io.WriteString(conn, "body"); err != nil {
		t.Fatal(err)
	}
	if res, err = http.ReadResponse(in, nil); err != nil || res.StatusCode != 200 {
		t.Fatalf("after the body: %v, %v, want 200", res, err)
	}
	defer res.Body.Close()
	mu.Lock()
	defer mu.Unlock()
	if expect != "[] <nil>" || got != "body" {
		t.Errorf("the engine got Expect, error %s and body %q", expect, got)
	}
	// One that is refused is not.
	_, in = f.say("PUT /v1.41/containers/nope/archive?path=/ HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	res, err = http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 404 {
		t.Fatalf("of an unknown container: %v, %v, want 404", res, err)
	}
	defer res.Body.Close()
}

func TestHeadersOfAnswers(t *testing.T) {
	f := newFrontFleet(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/top") {
			return false
		}
		h := w.Header()
		h.Set("Api-Version", "1.99")
		h.Set("Server", "Docker/99")
		h.Set("Docker-Experimental", "true")
		h.Set("X-Of-The-Engine", "kept")
		h.Set("Content-Type", "application/json; odd")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "{\"message\":\"its  own\twords\"}\r\n")
		return true
	})
	f.must(201, "POST", "/containers/create?name=web", map[string]any{"Image": "busybox"})
	a := f.do("GET", "/containers/web/top", nil)
	if a.status != http.StatusTeapot || string(a.body) != "{\"message\":\"its  own\twords\"}\r\n" {
		t.Errorf("an engine's error became %d %q", a.status, a.body)
	}
	for key, want := range map[string]string{
		"Api-Version": "1.41", "Server": "Docker/20.10.24+berth.test (linux)", "Docker-Experimental": "false", "Ostype": "linux",
		"X-Of-The-Engine": "kept", "Content-Type": "application/json; odd", "X-Berth-Node": "n1",
	} {
		if got := a.header.Values(key); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	a = f.do("GET", "/containers/nope/top", nil)
	if ct := a.header.Get("Content-Type"); ct != "application/json" || !bytes.HasSuffix(a.body, []byte("}\n")) {
		t.Errorf("our own error is %s %q", ct, a.body)
	}
}

func TestHeadersOfRequests(t *testing.T) {
	seen := make(chan http.Header, 1)
	f := newFrontFleet(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/push") {
			return false
		}
		seen <- r.Header
		return true
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL+"/v1.41/images/busybox/push?tag=latest", nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]string{
		"X-Registry-Auth": "secret", "X-Meta-Test": "m", "User-Agent": "me", "Traceparent": "00-1-2-3",
		"Authorization": "Bearer of-the-endpoint", "X-Berth-Test": "ours",
	}
	for k, v := range sent {
		r.Header.Set(k, v)
	}
	res, err := f.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := <-seen
	for k, v := range sent {
		if k == "Authorization" || k == "X-Berth-Test" {
			v = ""
		}
		if got.Get(k) != v {
			t.Errorf("the engine got %s %q, want %q", k, got.Get(k), v)
		}
	}
}
