package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"berth/internal/proxy"
)

func TestPlain(t *testing.T) {
	for _, client := range kinds {
		for _, engine := range append([]string{"channel"}, kinds...) {
			t.Run(pair(client, engine), func(t *testing.T) {
				f := newFront(t, client, httpEngine(t, engine, func(w http.ResponseWriter, r *http.Request) {
					io.Copy(w, r.Body)
				}), proxy.Options{})
				res, err := f.client(t).Post("http://d/x", "text/plain", strings.NewReader("ping"))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if b, err := io.ReadAll(res.Body); string(b) != "ping" || err != nil {
					t.Errorf("got %q, %v, want ping", b, err)
				}
			})
		}
	}
}

func TestRequestArrivesAsWritten(t *testing.T) {
	var got *http.Request
	engine := rawEngine(t, "tcp", func(c *engineConn) {
		got = c.req
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	f := newFront(t, "tcp", engine, proxy.Options{})
	c := f.raw(t, "GET /v1.41/images/a%2Fb%3A1/json?x=%zz;y&filters={\"a\":1} HTTP/1.1\r\nHost: h\r\n"+
		"Authorization: Bearer s\r\nX-Berth-Node: n2\r\nX-Registry-Auth: abc\r\nX-Registry-Config: def\r\nX-Meta-A: m\r\n"+
		"X-Docker-Expose-Session-Uuid: u\r\nTraceparent: t\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\n"+
		"Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers, gzip\r\nAccept-Encoding: gzip\r\n"+
		// An offer of HTTP/2 that may be ignored, as curl makes.
		"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
	c.head(t)
	if want := `/v1.41/images/a%2Fb%3A1/json?x=%zz;y&filters={"a":1}`; got.RequestURI != want {
		t.Errorf("target %s, want %s", got.RequestURI, want)
	}
	for _, k := range []string{"X-Registry-Auth", "X-Registry-Config", "X-Meta-A", "X-Docker-Expose-Session-Uuid", "Traceparent", "Accept-Encoding"} {
		if got.Header.Get(k) == "" {
			t.Errorf("%s is lost", k)
		}
	}
	for _, k := range []string{"Authorization", "X-Berth-Node", "X-Gone", "Keep-Alive", "Proxy-Connection", "Upgrade", "Connection", "User-Agent"} {
		if v, ok := got.Header[k]; ok {
			t.Errorf("%s: %q reached the engine", k, v)
		}
	}
	if te := got.Header.Get("Te"); te != "trailers" {
		t.Errorf("TE %q, want trailers", te)
	}
}

func TestHeadsComeBack(t *testing.T) {
	edit := func(h http.Header) {
		h.Set("Api-Version", "1.51")
		h.Set("Server", "Docker/28+berth")
	}
	for name, tt := range map[string]struct {
		method, answer string
		status         int
		has, lacks     map[string]string
		body           string
	}{
		"no type stays none": {"GET", "200 OK\r\nContent-Length: 6\r\n\r\n<html>", 200,
			map[string]string{"Content-Length": "6"}, map[string]string{"Content-Type": ""}, "<html>"},
		"the last word on headers": {"GET", "200 OK\r\nServer: Docker/20\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n", 200,
			map[string]string{"Api-Version": "1.51", "Server": "Docker/28+berth"}, nil, ""},
		"what belongs to the hop stays there": {"GET", "200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nX-Docker-Container-Path-Stat: e30=\r\nContent-Length: 0\r\n\r\n", 200,
			map[string]string{"X-Docker-Container-Path-Stat": "e30="}, map[string]string{"X-Hop": "", "Keep-Alive": ""}, ""},
		"a HEAD keeps the length":   {"HEAD", "200 OK\r\nContent-Length: 1234\r\n\r\n", 200, map[string]string{"Content-Length": "1234"}, nil, ""},
		"304 stays 304":             {"POST", "304 Not Modified\r\n\r\n", 304, nil, map[string]string{"Content-Length": ""}, ""},
		"204 stays 204":             {"POST", "204 No Content\r\n\r\n", 204, nil, map[string]string{"Content-Length": ""}, ""},
		"an error's text is theirs": {"GET", "409 Conflict\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}", 409, nil, nil, `{"message":"x"}`},
		"a body until the end":      {"GET", "200 OK\r\n\r\nabc", 200, nil, map[string]string{"Content-Length": ""}, "abc"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, "unix", rawEngine(t, "tcp", func(c *engineConn) { c.say("HTTP/1.1 " + tt.answer) }),
				proxy.Options{Header: edit})
			req, err := http.NewRequest(tt.method, "http://d/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := f.client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if res.StatusCode != tt.status || string(body) != tt.body || err != nil {
				t.Errorf("got %d %q %v, want %d %q", res.StatusCode, body, err, tt.status, tt.body)
			}
			for k, want := range tt.has {
				if got := res.Header.Get(k); got != want {
					t.Errorf("%s: %q, want %q", k, got, want)
				}
			}
			for k := range tt.lacks {
				if got, ok := res.Header[k]; ok {
					t.Errorf("%s: %q, want none", k, got)
				}
			}
		})
	}
}

func TestInformationalAndTrailers(t *testing.T) {
	f := newFront(t, "tcp", rawEngine(t, "tcp", func(c *engineConn) {
		c.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" +
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n")
	}), proxy.Options{})
	c := f.raw(t, "GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
	if hints := c.head(t); !strings.HasPrefix(hints, "HTTP/1.1 103 ") || !strings.Contains(hints, "Link: </a>") {
		t.Errorf("first head %q, want the hints", hints)
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "ok" || err != nil {
		t.Errorf("body %q, %v", b, err)
	}
	if res.Header.Get("Link") != "" || res.Trailer.Get("X-Sum") != "7" {
		t.Errorf("header %v, trailer %v", res.Header, res.Trailer)
	}
}

func TestRequestTrailers(t *testing.T) {
	sum := make(chan string, 1)
	f := newFront(t, "tcp", httpEngine(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		sum <- r.Trailer.Get("X-Sum")
	}), proxy.Options{})
	f.raw(t, "POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n").head(t)
	if got := soon(t, "trailer", sum); got != "7" {
		t.Errorf("the engine got the trailer %q, want 7", got)
	}
}

// Each line must arrive before the engine is allowed to write the next: nothing is held back.
func TestStreamIsNotBuffered(t *testing.T) {
	next := make(chan string)
	f := newFront(t, "tcp", httpEngine(t, "unix", func(w http.ResponseWriter, r *http.Request) {
		for {
			http.NewResponseController(w).Flush()
			line, ok := <-next
			if !ok {
				return
			}
			io.WriteString(w, line)
		}
	}), proxy.Options{})
	res := f.get(t, "/events") // returns with the head alone
	in := bufio.NewReader(res.Body)
	for i := range 20 {
		want := fmt.Sprintf("line %d\n", i)
		next <- want
		if got, err := in.ReadString('\n'); got != want || err != nil {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	close(next)
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("at the end %q, %v", rest, err)
	}
}

// A build: the engine talks from the beginning and the upload comes in small steps, each sent only after the last was seen.
func TestUploadTricklesWhileOutputStreams(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			f := newFront(t, kind, httpEngine(t, kind, func(w http.ResponseWriter, r *http.Request) {
				control := http.NewResponseController(w)
				if err := control.EnableFullDuplex(); err != nil {
					t.Error(err)
				}
				io.WriteString(w, "Step 1\n")
				control.Flush()
				sum, buf := sha256.New(), make([]byte, 64<<10)
				for {
					n, err := r.Body.Read(buf)
					sum.Write(buf[:n])
					fmt.Fprintf(w, "%d\n", n)
					control.Flush()
					if err != nil {
						break
					}
				}
				fmt.Fprintf(w, "sum %x\n", sum.Sum(nil))
			}), proxy.Options{})
			upload, pipe := io.Pipe()
			res, err := f.client(t).Post("http://d/build", "application/x-tar", upload)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			in, sum := bufio.NewReader(res.Body), sha256.New()
			if line, err := in.ReadString('\n'); line != "Step 1\n" {
				t.Fatalf("early output %q, %v", line, err)
			}
			for range 200 {
				chunk := random(t, 7000)
				sum.Write(chunk)
				if _, err := pipe.Write(chunk); err != nil {
					t.Fatal(err)
				}
				if _, err := in.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			pipe.Close()
			rest, err := io.ReadAll(in)
			if want := fmt.Sprintf("sum %x\n", sum.Sum(nil)); !bytes.HasSuffix(rest, []byte(want)) || err != nil {
				t.Errorf("ends with %q, %v, want %q", rest, err, want)
			}
		})
	}
}

// The size at which net/http once swallowed 256 KiB of an upload without a word.
func TestEarlyAnswerLosesNoUpload(t *testing.T) {
	const size = 1_966_080
	f := newFront(t, "tcp", httpEngine(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if err := control.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		io.WriteString(w, "early\n")
		control.Flush()
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, err)
	}), proxy.Options{})
	c := f.raw(t, fmt.Sprintf("POST /load HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n", size))
	res, err := http.ReadResponse(c.in, nil) // before any of the body was sent
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := c.Write(random(t, size)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(res.Body); string(b) != fmt.Sprintf("early\n%d <nil>\n", size) || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestEngineRefusesAnUploadEarly(t *testing.T) {
	f := newFront(t, "tcp", httpEngine(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		http.Error(w, "no", http.StatusBadRequest)
	}), proxy.Options{})
	c := f.raw(t, "POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); res.StatusCode != 400 || string(b) != "no\n" || err != nil {
		t.Errorf("got %d %q %v, want the engine's 400", res.StatusCode, b, err)
	}
}

func TestExpectContinue(t *testing.T) {
	var expect []string
	f := newFront(t, "tcp", httpEngine(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
		expect = r.Header["Expect"]
		io.Copy(w, r.Body)
	}), proxy.Options{})
	c := f.raw(t, "PUT /x HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if head := c.head(t); !strings.HasPrefix(head, "HTTP/1.1 100 ") {
		t.Fatalf("got %q, want to be told to continue", head)
	}
	c.send(t, "ok")
	if head := c.head(t); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		t.Errorf("got %q, want the answer", head)
	}
	c.expect(t, "ok")
	if expect != nil {
		t.Errorf("the engine was asked to Expect %q", expect)
	}
}

func TestCancelReachesTheEngine(t *testing.T) {
	for name, send := range map[string]string{
		"before the head":  "GET /wait HTTP/1.1\r\nHost: d\r\n\r\n",
		"in a stream":      "GET /events HTTP/1.1\r\nHost: d\r\n\r\n",
		"during an upload": "POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: 100\r\n\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			started, gone := make(chan struct{}), make(chan struct{})
			f := newFront(t, "tcp", httpEngine(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/events" {
					http.NewResponseController(w).Flush()
				}
				close(started)
				io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				close(gone)
			}), proxy.Options{})
			c := f.raw(t, send)
			soon(t, "request at the engine", started)
			c.Close()
			soon(t, "engine told", gone)
		})
	}
}

func TestEngineDiesInABody(t *testing.T) {
	for name, answer := range map[string]string{
		"of known length": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
		"in chunks":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, "tcp", rawEngine(t, "tcp", func(c *engineConn) { c.say(answer) }), proxy.Options{})
			res, err := f.client(t).Get("http://d/export")
			if err != nil {
				return // broken off before the head was out: just as clear
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("half an answer, %q, passed for a whole one", b)
			}
		})
	}
}

func TestModify(t *testing.T) {
	engine := func(t *testing.T) *link {
		return httpEngine(t, "tcp", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"Id":"x"}`) })
	}
	t.Run("replaces the body", func(t *testing.T) {
		f := newFront(t, "tcp", engine(t), proxy.Options{Modify: func(res *http.Response) error {
			b, err := io.ReadAll(res.Body)
			b = append(b, " and more"...)
			res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
			return errors.Join(err, res.Body.Close())
		}})
		res := f.get(t, "/x")
		if b, err := io.ReadAll(res.Body); string(b) != `{"Id":"x"} and more` || err != nil || res.ContentLength != 19 {
			t.Errorf("got %q, %v, length %d", b, err, res.ContentLength)
		}
	})
	t.Run("holds the head back", func(t *testing.T) {
		asked, release := make(chan struct{}), make(chan struct{})
		f := newFront(t, "tcp", engine(t), proxy.Options{Modify: func(*http.Response) error {
			close(asked)
			<-release
			return nil
		}})
		got := make(chan error, 1)
		go func() {
			res, err := f.client(t).Get("http://d/wait")
			if err == nil {
				res.Body.Close()
			}
			got <- err
		}()
		soon(t, "modify", asked)
		select {
		case err := <-got:
			t.Errorf("the head is out before its time: %v", err)
		default:
		}
		close(release)
		if err := soon(t, "answer", got); err != nil {
			t.Error(err)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		refusal := errors.New("no such thing")
		f := newFront(t, "tcp", engine(t), proxy.Options{Modify: func(*http.Response) error { return refusal }})
		if res := f.get(t, "/x"); res.StatusCode != 503 {
			t.Errorf("status %d, want the caller's own", res.StatusCode)
		}
		if err := soon(t, "error", f.errs); !errors.Is(err, refusal) || proxy.NotSent(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestErrorsLeaveTheAnswerUnwritten(t *testing.T) {
	silent := rawEngine(t, "tcp", func(*engineConn) {})
	odd := rawEngine(t, "tcp", func(c *engineConn) { c.say("HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n") })
	mute := rawEngine(t, "tcp", func(c *engineConn) { c.say("SSH-2.0-x\r\n\r\n") })
	refuse := func(context.Context) (net.Conn, error) { return nil, errors.New("connection refused") }
	half := func(ctx context.Context) (net.Conn, error) {
		c, err := silent.dial(ctx)
		return struct{ net.Conn }{c}, err
	}
	for name, tt := range map[string]struct {
		dial    func(context.Context) (net.Conn, error)
		hijack  bool
		notSent bool
		text    string
	}{
		"a refused dial":                    {refuse, false, true, "node n1 is unreachable: connection refused"},
		"a refused dial of a stream":        {refuse, true, true, "node n1 is unreachable: connection refused"},
		"no answer":                         {silent.dial, false, false, "node n1 gave no answer: EOF"},
		"no answer to a stream":             {silent.dial, true, false, "node n1 gave no answer: POST /x: EOF"},
		"a status that is none":             {odd.dial, false, false, `node n1 gave no answer: status "099 Odd" to POST /x`},
		"something else than HTTP":          {mute.dial, true, false, "node n1 gave no answer: POST /x: malformed HTTP response \"SSH-2.0-x\""},
		"a stream that cannot half-close":   {half, true, true, "node n1 is unreachable: struct { net.Conn } cannot close one direction"},
		"which a plain request never needs": {half, false, false, "node n1 gave no answer: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			pool := proxy.NewTransport(tt.dial)
			defer pool.CloseIdleConnections()
			w := httptest.NewRecorder()
			r := httptest.NewRequest("POST", "/x?secret=1", nil)
			err := proxy.Forward(w, r, proxy.Target{Name: "n1", Transport: pool, Dial: tt.dial}, proxy.Options{Hijack: tt.hijack})
			if err == nil || err.Error() != tt.text || proxy.NotSent(err) != tt.notSent {
				t.Errorf("got %v, not sent %v, want %q, %v", err, proxy.NotSent(err), tt.text, tt.notSent)
			}
			if _, ok := errors.AsType[interface {
				error
				Unavailable()
			}](err); !ok {
				t.Errorf("%T is not of the unavailable kind", err)
			}
			if len(w.Header()) > 0 || w.Body.Len() > 0 || w.Flushed {
				t.Errorf("written before the error: %v %q", w.Header(), w.Body)
			}
		})
	}
}

func TestBrokenUploadIsTheClientsFault(t *testing.T) {
	f := newFront(t, "tcp", httpEngine(t, "tcp", func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }), proxy.Options{})
	f.raw(t, "POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n").head(t)
	err := soon(t, "error", f.errs)
	if _, ok := errors.AsType[interface {
		error
		InvalidParameter()
	}](err); !ok {
		t.Errorf("got %v (%T), want an invalid parameter", err, err)
	}
}

type hiding struct{ http.ResponseWriter }

type wrapping struct{ http.ResponseWriter }

func (w wrapping) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A writer that hides net/http's own would lose uploads, and hold streams back, in silence.
func TestWrappedWriters(t *testing.T) {
	engine := httpEngine(t, "tcp", func(w http.ResponseWriter, r *http.Request) { http.NewResponseController(w).Flush() })
	pool := proxy.NewTransport(engine.dial)
	t.Cleanup(pool.CloseIdleConnections)
	for name, tt := range map[string]struct {
		request string
		wrap    func(http.ResponseWriter) http.ResponseWriter
		ok      bool
	}{
		"an upload through a hidden one":  {"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\n\r\nx", func(w http.ResponseWriter) http.ResponseWriter { return hiding{w} }, false},
		"a stream through a hidden one":   {"GET /x HTTP/1.1\r\nHost: d\r\n\r\n", func(w http.ResponseWriter) http.ResponseWriter { return hiding{w} }, false},
		"an upload through one that says": {"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\n\r\nx", func(w http.ResponseWriter) http.ResponseWriter { return wrapping{w} }, true},
		"a stream through one that says":  {"GET /x HTTP/1.1\r\nHost: d\r\n\r\n", func(w http.ResponseWriter) http.ResponseWriter { return wrapping{w} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			l, errs := listen(t, "tcp"), make(chan error, 1)
			serve(t, l, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				errs <- proxy.Forward(tt.wrap(w), r, proxy.Target{Name: "n1", Transport: pool}, proxy.Options{})
			})})
			(&front{link: l}).raw(t, tt.request)
			if err := soon(t, "end of Forward", errs); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestHTTP2(t *testing.T) {
	engine := rawEngine(t, "tcp", func(c *engineConn) {
		c.say(head200 + "output of " + c.body)
	})
	pool := proxy.NewTransport(engine.dial)
	t.Cleanup(pool.CloseIdleConnections)
	errs := make(chan error, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := proxy.Forward(w, r, proxy.Target{Name: "n1", Transport: pool, Dial: engine.dial}, proxy.Options{Hijack: true})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
		errs <- err
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	post := func(path string) (int, string) {
		res, err := s.Client().Post(s.URL+path, "application/json", strings.NewReader("exec"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if res.ProtoMajor != 2 || err != nil {
			t.Fatalf("HTTP/%d, %v", res.ProtoMajor, err)
		}
		return res.StatusCode, string(b)
	}
	if status, body := post("/exec/x/start"); status != 200 || body != "output of exec" {
		t.Errorf("output alone: %d %q", status, body)
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
	if status, body := post("/containers/x/attach?stdin=1&stream=1"); status != 400 || !strings.Contains(body, "HTTP/1.1") {
		t.Errorf("with input: %d %q, want a refusal that says how", status, body)
	}
	if _, ok := errors.AsType[interface {
		error
		InvalidParameter()
	}](<-errs); !ok {
		t.Error("the refusal is not of the invalid kind")
	}
}
