package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/internal/proxy"
)

// pool is a Transport and how many connections it made.
type pool struct {
	*proxy.Transport
	dials atomic.Int32
}

func newPool(t testing.TB, engine *link) *pool {
	p := new(pool)
	p.Transport = proxy.NewTransport(func(ctx context.Context) (net.Conn, error) {
		p.dials.Add(1)
		return engine.dial(ctx)
	})
	t.Cleanup(p.CloseIdleConnections)
	return p
}

func request(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://d"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ask returns status and body of an answer.
func (p *pool) ask(t testing.TB, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := p.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// hidden is a body of which nothing is known.
func hidden(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }

// anyServer answers in all the ways of net/http's server, and tells what it was asked.
func anyServer(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	h := w.Header()
	h.Set("X-Asked", fmt.Sprintf("%s %s %d %q", r.Method, r.URL.Path, len(b), r.TransferEncoding))
	switch r.URL.Path {
	case "/nothing":
		w.WriteHeader(http.StatusNoContent)
	case "/same":
		w.WriteHeader(http.StatusNotModified)
	case "/chunks":
		for range 3 {
			io.WriteString(w, "chunk ")
			w.(http.Flusher).Flush()
		}
	case "/trailer":
		h.Set("Trailer", "X-End")
		io.WriteString(w, "body")
		h.Set("X-End", "here")
	case "/large":
		w.Write(bytes.Repeat([]byte("0123456789abcdef"), 64<<10))
	case "/large/known":
		h.Set("Content-Length", fmt.Sprint(1<<20))
		w.Write(bytes.Repeat([]byte("0123456789abcdef"), 64<<10))
	case "/long":
		h.Set("X-Long", strings.Repeat("l", 20<<10))
	case "/early":
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		io.WriteString(w, "late")
	case "/close":
		h.Set("Connection", "close")
		io.WriteString(w, "last")
	default:
		w.Write(b)
	}
}

func TestTransportReusesConnections(t *testing.T) {
	megabyte := strings.Repeat("0123456789abcdef", 64<<10)
	for _, kind := range []string{"tcp", "unix", "tls", "channel"} {
		engine := httpEngine(t, kind, anyServer)
		t.Run(kind, func(t *testing.T) {
			p := newPool(t, engine)
			for range 3 {
				for _, tt := range []struct {
					method, path string
					body         io.Reader
					asked, want  string
				}{
					{"GET", "/x", nil, `GET /x 0 []`, ""},
					{"HEAD", "/large/known", nil, `HEAD /large/known 0 []`, ""},
					{"GET", "/nothing", nil, `GET /nothing 0 []`, ""},
					{"GET", "/same", nil, `GET /same 0 []`, ""},
					{"GET", "/chunks", nil, `GET /chunks 0 []`, "chunk chunk chunk "},
					{"GET", "/trailer", nil, `GET /trailer 0 []`, "body"},
					{"GET", "/large", nil, `GET /large 0 []`, megabyte},
					{"GET", "/large/known", nil, `GET /large/known 0 []`, megabyte},
					{"GET", "/long", nil, `GET /long 0 []`, ""},
					{"GET", "/early", nil, `GET /early 0 []`, "late"},
					{"GET", "/body", strings.NewReader("in memory"), `GET /body 9 []`, "in memory"},
				} {
					res, got := p.ask(t, request(t, tt.method, tt.path, tt.body))
					if asked := res.Header.Get("X-Asked"); asked != tt.asked || got != tt.want {
						t.Errorf("%s %s: asked %s, got %d bytes; want %s, %d bytes", tt.method, tt.path, asked, len(got), tt.asked, len(tt.want))
					}
					if tt.path == "/trailer" && res.Trailer.Get("X-End") != "here" {
						t.Errorf("trailers are %v", res.Trailer)
					}
				}
			}
			if n := p.dials.Load(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
			if kind == "channel" {
				return // has none for what may be sent only once
			}
			for _, body := range []io.Reader{nil, strings.NewReader("in memory"), hidden("hidden"), strings.NewReader(megabyte), hidden(megabyte)} {
				p.ask(t, request(t, "POST", "/x", body))
			}
			if n := p.dials.Load(); n != 1 {
				t.Errorf("%d connections after posts, want 1", n)
			}
		})
	}
}

func TestTransportLetsConnectionsGo(t *testing.T) {
	for name, answer := range map[string]string{
		"told to close":             "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.0":                  "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
		"more than was asked for":   "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny",
		"a body with an empty head": "HTTP/1.1 204 No Content\r\n\r\nx",
	} {
		for _, kind := range kinds {
			t.Run(name+" "+kind, func(t *testing.T) {
				p := newPool(t, rawEngine(t, kind, func(c *engineConn) { c.say(answer); c.untilClosed() }))
				for range 2 {
					if _, body := p.ask(t, request(t, "GET", "/", nil)); body == "y" {
						t.Error("got what belongs to no request")
					}
				}
				if n := p.dials.Load(); n != 2 {
					t.Errorf("%d connections, want 2", n)
				}
			})
		}
	}
}

// Bytes that come while a connection rests are no answer to the next request, wherever they wait.
func TestTransportIgnoresWhatNobodyAskedFor(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			said := make(chan struct{})
			p := newPool(t, rawEngine(t, kind, func(c *engineConn) {
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
				time.Sleep(20 * time.Millisecond)
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny")
				said <- struct{}{}
				c.untilClosed()
			}))
			for range 3 {
				if _, body := p.ask(t, request(t, "POST", "/", nil)); body != "x" {
					t.Errorf("got %q", body)
				}
				<-said
			}
		})
	}
}

// stale is an engine that answers the first request of each connection, and then does as it is told.
func stale(t *testing.T, kind string, then func(c *engineConn)) (*pool, *atomic.Int32) {
	var asked atomic.Int32
	return newPool(t, rawEngine(t, kind, func(c *engineConn) {
		asked.Add(1)
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		then(c)
	})), &asked
}

func TestTransportFindsClosedConnections(t *testing.T) {
	for _, kind := range []string{"tcp", "unix", "tls", "channel"} {
		t.Run(kind, func(t *testing.T) {
			closed := make(chan struct{}, 10)
			p, _ := stale(t, kind, func(c *engineConn) { c.Close(); closed <- struct{}{} })
			for range 5 {
				p.ask(t, request(t, "POST", "/", strings.NewReader("once")))
				soon(t, "close", closed)
				time.Sleep(time.Millisecond) // until the end is here, too
			}
		})
	}
}

// An engine that dies of a request has it again only if that does no harm.
func TestTransportRepeats(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		body   io.Reader
		header string
		want   int32
	}{
		"a GET":                         {"GET", nil, "", 3},
		"a GET with a body in memory":   {"GET", strings.NewReader("x"), "", 3},
		"no GET with a hidden body":     {"GET", hidden("x"), "", 2},
		"no POST":                       {"POST", nil, "", 2},
		"no POST with a body":           {"POST", strings.NewReader("x"), "", 2},
		"no DELETE":                     {"DELETE", nil, "", 2},
		"no GET that was half answered": {"GET", nil, "HTTP/1.1 2", 2},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			p := newPool(t, rawEngine(t, "tcp", func(c *engineConn) {
				asked.Add(1)
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				if req, err := http.ReadRequest(c.in); err == nil {
					io.Copy(io.Discard, req.Body)
					asked.Add(1)
					c.say(tt.header)
				}
			}))
			p.ask(t, request(t, "GET", "/", nil))
			res, err := p.RoundTrip(request(t, tt.method, "/", tt.body))
			if (err == nil) != (tt.want == 3) || asked.Load() != tt.want {
				t.Errorf("error %v, the engine was asked %d times, want %d", err, asked.Load(), tt.want)
			}
			if err == nil {
				res.Body.Close()
			}
		})
	}
}

func TestTransportLimitsHeads(t *testing.T) {
	for name, answer := range map[string]func(c *engineConn){
		"one that does not end": func(c *engineConn) {
			c.say("HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c.Conn, "X-More: and more\r\n"); err != nil {
					return
				}
			}
		},
		"a line that does not end": func(c *engineConn) {
			for {
				if _, err := io.WriteString(c.Conn, "HTTP/1.1 200 OK and more"); err != nil {
					return
				}
			}
		},
		"one before the other": func(c *engineConn) {
			for {
				if _, err := io.WriteString(c.Conn, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newPool(t, rawEngine(t, "tcp", answer)).RoundTrip(request(t, "GET", "/", nil))
			if err == nil || !strings.Contains(err.Error(), "too long") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTransportHearsEarlyAnswers(t *testing.T) {
	for _, kind := range kinds {
		for _, then := range []string{"and stays", "and goes"} {
			t.Run(kind+" "+then, func(t *testing.T) {
				l := listen(t, kind)
				var done sync.WaitGroup
				done.Go(func() {
					c, err := l.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
						t.Error(err)
					}
					io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nno!!!")
					if then == "and stays" {
						io.Copy(io.Discard, c)
					}
				})
				defer done.Wait()
				in, out := io.Pipe()
				defer out.Close()
				go out.Write(make([]byte, 1<<20))
				p := newPool(t, l)
				if res, body := p.ask(t, request(t, "POST", "/", in)); res.StatusCode != 413 || body != "no!!!" {
					t.Errorf("got %d %q", res.StatusCode, body)
				}
			})
		}
	}
}

type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, errors.New("the client is gone") }

func TestTransportTellsWhyABodyEnded(t *testing.T) {
	ended := make(chan string, 1)
	l := listen(t, "tcp")
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		ended <- string(b)
	}()
	_, err := newPool(t, l).RoundTrip(request(t, "POST", "/", brokenBody{}))
	if err == nil || !strings.Contains(err.Error(), "the client is gone") {
		t.Errorf("error %v", err)
	}
	if got := soon(t, "end", ended); strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("the engine took the request for complete: %q", got)
	}
}

func TestTransportIsCancelled(t *testing.T) {
	gone := make(chan struct{}, 10)
	until := func(c *engineConn) { c.untilClosed(); gone <- struct{}{} }
	for _, kind := range []string{"tcp", "unix", "tls", "channel"} {
		why := errors.New("why")
		t.Run(kind+" before the head", func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			p := newPool(t, rawEngine(t, kind, func(c *engineConn) { cancel(why); until(c) }))
			if _, err := p.RoundTrip(request(t, "GET", "/", nil).WithContext(ctx)); !errors.Is(err, why) {
				t.Errorf("error %v", err)
			}
			soon(t, "close", gone)
		})
		t.Run(kind+" within the body", func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			p := newPool(t, rawEngine(t, kind, func(c *engineConn) {
				c.say("HTTP/1.1 200 OK\r\n\r\npart")
				until(c)
			}))
			res, err := p.RoundTrip(request(t, "GET", "/", nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			io.ReadFull(res.Body, make([]byte, 4))
			cancel(why)
			if _, err := io.ReadAll(res.Body); !errors.Is(err, why) {
				t.Errorf("error %v", err)
			}
			soon(t, "close", gone)
		})
		t.Run(kind+" by Close while Read waits", func(t *testing.T) {
			p := newPool(t, rawEngine(t, kind, func(c *engineConn) {
				c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				until(c)
			}))
			res, err := p.RoundTrip(request(t, "GET", "/", nil))
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error)
			go func() { _, err := io.ReadAll(res.Body); read <- err }()
			time.Sleep(5 * time.Millisecond)
			res.Body.Close()
			if err := soon(t, "read", read); err == nil {
				t.Error("an answer that was cut looked whole")
			}
			soon(t, "close", gone)
			if _, err := res.Body.Read(make([]byte, 1)); err == nil {
				t.Error("read after Close gave no error")
			}
		})
	}
	t.Run("while the body is sent", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := listen(t, "tcp")
		p := newPool(t, l)
		time.AfterFunc(20*time.Millisecond, cancel)
		in, out := io.Pipe()
		go func() { out.Write(make([]byte, 64<<20)) }()
		if _, err := p.RoundTrip(request(t, "POST", "/", in).WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		out.Close()
	})
	t.Run("before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p := newPool(t, httpEngine(t, "tcp", anyServer))
		if _, err := p.RoundTrip(request(t, "GET", "/", nil).WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

func TestTransportHandsStreamsOut(t *testing.T) {
	for _, kind := range []string{"tcp", "unix", "tls", "channel"} {
		t.Run(kind, func(t *testing.T) {
			p := newPool(t, rawEngine(t, kind, func(c *engineConn) { c.say(head101 + "first"); c.cat() }))
			ctx, cancel := context.WithCancel(t.Context())
			res, err := p.RoundTrip(request(t, "POST", "/", nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			cancel() // is the request's
			stream := res.Body.(interface {
				io.ReadWriteCloser
				CloseWrite() error
			})
			defer stream.Close()
			io.WriteString(stream, " second")
			if err := stream.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(stream); string(b) != "first second" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
		})
	}
}

func TestTransportManyAtOnce(t *testing.T) {
	engine := httpEngine(t, "tcp", anyServer)
	p := newPool(t, engine)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			for j := range 50 {
				want := fmt.Sprintf("%d-%d", i, j)
				var body io.Reader = strings.NewReader(want)
				if j%3 == 0 {
					body = hidden(want)
				}
				r := request(t, "POST", "/x", body)
				ctx, cancel := context.WithCancel(r.Context())
				if j%7 == 0 {
					time.AfterFunc(time.Duration(j)*20*time.Microsecond, cancel)
				}
				res, err := p.RoundTrip(r.WithContext(ctx))
				if err == nil {
					var b []byte
					b, err = io.ReadAll(res.Body)
					res.Body.Close()
					if err == nil && string(b) != want {
						t.Errorf("got %q, want %q", b, want)
					}
				}
				if err != nil && j%7 != 0 {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
}

func TestTransportSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int32
		var engines sync.WaitGroup
		p := proxy.NewTransport(func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			open.Add(1)
			engines.Go(func() {
				defer open.Add(-1)
				for in := bufio.NewReader(theirs); ; {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			return ours, nil
		})
		burst := func(n int) {
			var all sync.WaitGroup
			for range n {
				all.Go(func() {
					if _, err := p.RoundTrip(request(t, "GET", "/", nil)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			synctest.Wait()
		}
		burst(40)
		if n := open.Load(); n > 16 || n == 0 {
			t.Errorf("%d connections at rest, want at most 16", n)
		}
		time.Sleep(10 * time.Second)
		burst(1)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if n := open.Load(); n != 1 {
			t.Errorf("%d connections after a while, want the one that was used", n)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if n := open.Load(); n != 0 {
			t.Errorf("%d connections in the end, want none", n)
		}
		burst(3)
		p.CloseIdleConnections()
		engines.Wait()
	})
}

// FuzzTransport compares what an engine's bytes mean with what they mean to net/http.
func FuzzTransport(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil the end",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nx",
		"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nshort", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + strings.Repeat("x", 2000), "\r\n", "",
	} {
		f.Add([]byte(s), uint16(7))
	}
	f.Fuzz(func(t *testing.T, answer []byte, step uint16) {
		if bytes.Contains(answer, []byte(" 101")) {
			return // a stream
		}
		dial := func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				if _, err := http.ReadRequest(bufio.NewReader(theirs)); err != nil {
					return
				}
				for rest := answer; len(rest) > 0; {
					n := min(len(rest), int(step)+1)
					if _, err := theirs.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}()
			return ours, nil
		}
		ours := proxy.NewTransport(dial)
		theirs := &http.Transport{DisableCompression: true, MaxResponseHeaderBytes: 256 << 10, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
		defer ours.CloseIdleConnections()
		defer theirs.CloseIdleConnections()
		got, want := summary(t, ours), summary(t, theirs)
		if got != want {
			t.Errorf("%q in steps of %d: got %s, net/http %s", answer, step, got, want)
		}
	})
}

func summary(t *testing.T, rt http.RoundTripper) string {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	defer func() {
		if ctx.Err() != nil {
			t.Errorf("%T hangs", rt)
		}
	}()
	res, err := rt.RoundTrip(request(t, "GET", "/", nil).WithContext(ctx))
	if err != nil {
		return "an error"
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return fmt.Sprintf("%d %v %q %v %v", res.StatusCode, res.Header, b, res.Trailer, err != nil)
}
