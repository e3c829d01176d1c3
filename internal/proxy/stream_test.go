package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/proxy"
)

// styles are the two ways a stream is agreed on.
var styles = map[string]struct{ ask, head string }{
	"101": {ask101, head101},
	"200": {ask200, head200},
}

var hijack = proxy.Options{Hijack: true}

// everyWay runs fn for all kinds of client and engine.
func everyWay(t *testing.T, fn func(t *testing.T, client, engine string)) {
	for _, client := range kinds {
		for _, engine := range append([]string{"channel"}, kinds...) {
			t.Run(pair(client, engine), func(t *testing.T) { fn(t, client, engine) })
		}
	}
}

// echo hi | docker run -i … cat, as often as it takes to see a race.
func TestHalfClose(t *testing.T) {
	everyWay(t, func(t *testing.T, client, engine string) {
		for name, style := range styles {
			f := newFront(t, client, rawEngine(t, engine, func(c *engineConn) { c.say(style.head); c.cat() }), hijack)
			for range 50 {
				c := f.raw(t, style.ask)
				if head := c.head(t); head != style.head {
					t.Fatalf("%s: head %q, want %q", name, head, style.head)
				}
				c.send(t, "hi\n")
				c.closeWrite(t)
				c.expect(t, "hi\n")
				c.expectEnd(t)
				c.Close()
				if err := soon(t, "end of Forward", f.errs); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// Input that comes before the engine has agreed must not be lost, nor sent too early.
func TestInputSentWithTheRequest(t *testing.T) {
	everyWay(t, func(t *testing.T, client, engine string) {
		for name, style := range styles {
			f := newFront(t, client, rawEngine(t, engine, func(c *engineConn) {
				if c.in.Buffered() > 0 {
					c.say("HTTP/1.1 400 Too Early\r\nContent-Length: 0\r\n\r\n")
					return
				}
				c.say(style.head)
				c.cat()
			}), hijack)
			early := strings.Repeat("early ", 2000) // more than the server's buffer takes
			c := f.raw(t, style.ask+early)
			if head := c.head(t); head != style.head {
				t.Fatalf("%s: head %q", name, head)
			}
			c.expect(t, early)
			c.send(t, "late")
			c.closeWrite(t)
			c.expect(t, "late")
			c.expectEnd(t)
		}
	})
}

// Either side ends first, and the other goes on: (echo a; sleep; echo b) | docker exec -i … sh -c 'cat; echo end'.
func TestOutputGoesOnAfterInput(t *testing.T) {
	f := newFront(t, "unix", rawEngine(t, "tcp", func(c *engineConn) {
		c.say(head101)
		io.Copy(c.Conn, c.in)
		c.say("end\n")
	}), hijack)
	c := f.raw(t, ask101)
	c.head(t)
	c.send(t, "a\n")
	c.expect(t, "a\n")
	c.send(t, "b\n")
	c.closeWrite(t)
	c.expect(t, "b\nend\n")
	c.expectEnd(t)
}

// The engine has ended; what the client still sends must not turn the end into a reset, which throws output away that is still
// under way. An engine that closes with input unread resets its own side.
func TestOutputArrivesWhenInputIsNotTaken(t *testing.T) {
	output := random(t, 3<<20)
	for name, end := range map[string]func(*engineConn){
		"half-closed": func(c *engineConn) { c.closeWrite(); c.untilClosed() },
		"reset":       func(*engineConn) {}, // closes with input unread
		"closed":      func(c *engineConn) { io.CopyN(io.Discard, c.in, 300_000) },
	} {
		for _, kind := range kinds {
			t.Run(name+", "+kind+" client", func(t *testing.T) {
				f := newFront(t, kind, rawEngine(t, "unix", func(c *engineConn) {
					c.say(head101)
					c.Write(output)
					end(c)
				}), hijack)
				c := f.raw(t, ask101)
				c.head(t)
				go func() {
					block := make([]byte, 100_000)
					for {
						if _, err := c.Write(block); err != nil {
							return
						}
					}
				}()
				c.expect(t, string(output))
				c.expectEnd(t)
				c.Close()
				soon(t, "end of Forward", f.errs)
			})
		}
	}
}

func Test64MiB(t *testing.T) {
	if testing.Short() {
		t.Skip("moves a GiB")
	}
	const size = 64 << 20
	block := random(t, 1<<20)
	sum := sha256.New()
	for range size / len(block) {
		sum.Write(block)
	}
	want := sum.Sum(nil)
	pour := func(w io.Writer) error {
		for range size / len(block) {
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
		return nil
	}
	everyWay(t, func(t *testing.T, client, engine string) {
		up := make(chan []byte, 1)
		f := newFront(t, client, rawEngine(t, engine, func(c *engineConn) {
			c.say(head101)
			var both sync.WaitGroup
			both.Go(func() {
				sum := sha256.New()
				io.Copy(sum, c.in)
				up <- sum.Sum(nil)
			})
			if err := pour(c.Conn); err != nil {
				t.Error(err)
			}
			c.closeWrite()
			both.Wait()
		}), hijack)
		c := f.raw(t, ask101)
		c.head(t)
		var both sync.WaitGroup
		both.Go(func() {
			if err := pour(c.Conn); err != nil {
				t.Error(err)
			}
			c.closeWrite(t)
		})
		down := sha256.New()
		n, err := io.Copy(down, c.in)
		both.Wait()
		if n != size || err != nil || !bytes.Equal(down.Sum(nil), want) {
			t.Errorf("down: %d bytes, %v, want %d and the same sum", n, err, size)
		}
		if !bytes.Equal(soon(t, "upload", up), want) {
			t.Error("up: another sum")
		}
	})
}

// recorder notes the writes to the client's connection.
type recorder struct {
	*net.TCPConn
	mu     sync.Mutex
	writes []string
}

func (c *recorder) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, string(p))
	c.mu.Unlock()
	return c.TCPConn.Write(p)
}

type recordingListener struct {
	net.Listener
	conns chan *recorder
}

func (l recordingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	r := &recorder{TCPConn: c.(*net.TCPConn)}
	l.conns <- r
	return r, nil
}

func TestHeadIsOneWriteAndVerbatim(t *testing.T) {
	const head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nX-odd-Case:  kept \r\nServer: Docker/20\r\nUpgrade: tcp\r\n\r\n"
	for name, tt := range map[string]struct {
		edit func(http.Header)
		want string
	}{
		"untouched": {nil, head},
		"edited": {func(h http.Header) {
			h.Set("Server", "Docker/28+berth")
			h.Set("Api-Version", "1.51")
			h.Set("Upgrade", "nonsense")
			h.Del("Content-Type")
			h.Set("X-Berth-Node", "n1\r\nInjected: 1")
		}, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nX-odd-Case:  kept \r\nUpgrade: tcp\r\n" +
			"Api-Version: 1.51\r\nServer: Docker/28+berth\r\nX-Berth-Node: n1  Injected: 1\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			engine := rawEngine(t, "tcp", func(c *engineConn) { c.say(head + "payload"); c.cat() })
			l := listen(t, "tcp")
			conns := make(chan *recorder, 1)
			serve(t, recordingListener{l, conns}, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := proxy.Forward(w, r, proxy.Target{Name: "n1", Dial: engine.dial}, proxy.Options{Header: tt.edit}); err != nil {
					t.Error(err)
				}
			})})
			c := (&front{link: l}).raw(t, ask101)
			c.expect(t, tt.want+"payload")
			c.closeWrite(t)
			c.expectEnd(t)
			r := <-conns
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.writes) != 2 || r.writes[0] != tt.want || r.writes[1] != "payload" {
				t.Errorf("writes %q, want the head and the payload", r.writes)
			}
		})
	}
}

// docker-py drops what it reads together with the head. Here the engine's output comes with its head at once, and the client is
// slow to read.
func TestHeadCanBeReadAlone(t *testing.T) {
	for _, kind := range []string{"unix", "tls"} {
		t.Run(kind, func(t *testing.T) {
			f := newFront(t, kind, rawEngine(t, "tcp", func(c *engineConn) { c.say(head101 + "payload"); c.cat() }), hijack)
			buf := make([]byte, 8192)
			for range 100 {
				c := f.raw(t, ask101)
				for f.tunnels.Len() == 0 {
					runtime.Gosched()
				}
				n, err := c.Read(buf)
				if err != nil || string(buf[:n]) != head101 {
					t.Fatalf("read %q, %v, want the head alone", buf[:n], err)
				}
				c.expect(t, "payload")
				c.closeWrite(t)
				c.expectEnd(t)
				c.Close()
				soon(t, "end of Forward", f.errs)
			}
		})
	}
}

func TestStreamRequest(t *testing.T) {
	got := make(chan *engineConn, 1)
	f := newFront(t, "tcp", rawEngine(t, "tcp", func(c *engineConn) { got <- c; c.say(head101); c.cat() }), hijack)
	const body = `{"Tty":true}`
	c := f.raw(t, "POST /v1.41/exec/x/start?a=%2F HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"+
		"Authorization: x\r\nX-Docker-Expose-Session-Uuid: u\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"+body+"stdin")
	c.head(t)
	c.expect(t, "stdin")
	e := soon(t, "request", got)
	if e.body != body || e.req.RequestURI != "/v1.41/exec/x/start?a=%2F" {
		t.Errorf("got %s %q", e.req.RequestURI, e.body)
	}
	for k, want := range map[string]string{"Connection": "Upgrade", "Upgrade": "h2c", "X-Docker-Expose-Session-Uuid": "u", "Authorization": "", "User-Agent": ""} {
		if v := e.req.Header.Get(k); v != want {
			t.Errorf("%s %q, want %q", k, v, want)
		}
	}
}

func TestRefusedStreamIsAnOrdinaryAnswer(t *testing.T) {
	for name, tt := range map[string]struct{ answer, want string }{
		"404":                 {"404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}", `{"message":"x"}`},
		"409 in chunks":       {"409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"},
		"a detached exec":     {"200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		"200 in chunks":       {"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"},
		"after informational": {"103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, "tcp", rawEngine(t, "tcp", func(c *engineConn) { c.say("HTTP/1.1 " + tt.answer); c.untilClosed() }), hijack)
			c := f.raw(t, ask101)
			for range 2 { // the client's connection stays good for the next request
				res, err := http.ReadResponse(c.in, nil)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(res.Body)
				if string(b) != tt.want || err != nil || res.StatusCode == 101 {
					t.Errorf("got %d %q %v, want %q", res.StatusCode, b, err, tt.want)
				}
				res.Body.Close()
				c.send(t, ask101)
			}
		})
	}
}

func TestModifyBeforeAStream(t *testing.T) {
	refusal := errors.New("not yours")
	f := newFront(t, "tcp", rawEngine(t, "tcp", func(c *engineConn) { c.say(head101 + "output"); c.untilClosed() }),
		proxy.Options{Hijack: true, Modify: func(res *http.Response) error {
			if b, err := io.ReadAll(res.Body); len(b) > 0 || err != nil {
				t.Errorf("the stream shows as a body: %q, %v", b, err)
			}
			return refusal
		}})
	if head := f.raw(t, ask101).head(t); !strings.HasPrefix(head, "HTTP/1.1 503 ") {
		t.Errorf("got %q, want the caller's own answer", head)
	}
	if err := soon(t, "error", f.errs); !errors.Is(err, refusal) {
		t.Error(err)
	}
}

// A client that is killed must not leave its stream open, whether or not it had ended its input before.
func TestKilledClient(t *testing.T) {
	everyWay(t, func(t *testing.T, client, engine string) {
		for name, half := range map[string]bool{"typing": false, "input ended": true} {
			t.Run(name, func(t *testing.T) {
				inputEnded, told := make(chan struct{}), make(chan struct{})
				defer close(told)
				f := newFront(t, client, rawEngine(t, engine, func(c *engineConn) {
					c.say(head101)
					c.untilClosed()
					close(inputEnded)
					<-told // nothing is said meanwhile, so only a watch of the client can find out
				}), hijack)
				c := f.raw(t, ask101)
				c.head(t)
				if half {
					c.closeWrite(t)
					soon(t, "input's end at the engine", inputEnded)
				}
				kill(t, c.Conn, half)
				if err := soon(t, "end of Forward", f.errs); err != nil {
					t.Error(err)
				}
				f.awaitNoStreams(t)
			})
		}
	})
}

// kill ends a connection as the kernel does for a dead process. For TCP that is a reset here: the silent way takes the
// kernel a minute to tell. A TLS client that has said goodbye is known to be dead by its socket's plain end.
func kill(t *testing.T, c net.Conn, half bool) {
	t.Helper()
	secure, ok := c.(*tls.Conn)
	if ok {
		c = secure.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok && (secure == nil || !half) {
		if err := tcp.SetLinger(0); err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// Half-close alone must not be taken for death, however long it lasts.
func TestHalfClosedClientLives(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			ended, speak := make(chan struct{}), make(chan struct{})
			f := newFront(t, kind, rawEngine(t, "tcp", func(c *engineConn) {
				c.say(head101)
				c.untilClosed()
				close(ended)
				<-speak
				c.say("still here")
			}), hijack)
			c := f.raw(t, ask101)
			c.head(t)
			c.closeWrite(t)
			soon(t, "input's end at the engine", ended)
			if n := f.tunnels.Len(); n != 1 {
				t.Errorf("%d streams, want 1", n)
			}
			close(speak)
			c.expect(t, "still here")
			c.expectEnd(t)
		})
	}
}

func TestEngineDiesInAStream(t *testing.T) {
	f := newFront(t, "tcp", rawEngine(t, "tcp", func(c *engineConn) {
		c.say(head101 + "some")
		if _, err := c.in.ReadByte(); err != nil {
			t.Error(err)
		}
		c.reset(t)
	}), hijack)
	c := f.raw(t, ask101)
	c.head(t)
	c.expect(t, "some")
	c.send(t, "x")
	c.expectEnd(t)
	c.Close()
	if err := soon(t, "end of Forward", f.errs); err != nil {
		t.Error(err)
	}
}

// awaitNoStreams waits until the last stream has ended, which is after its handler has.
func (f *front) awaitNoStreams(t *testing.T) {
	t.Helper()
	for began := time.Now(); f.tunnels.Len() > 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d streams left", f.tunnels.Len())
		}
	}
}

func TestDrain(t *testing.T) {
	engine := func(t *testing.T) *link {
		return rawEngine(t, "unix", func(c *engineConn) { c.say(head101); c.cat() })
	}
	t.Run("waits for those that end", func(t *testing.T) {
		f := newFront(t, "unix", engine(t), hijack)
		c := f.raw(t, ask101)
		c.head(t)
		drained := make(chan error, 1)
		go func() { drained <- f.tunnels.Drain(context.Background()) }()
		c.send(t, "hi")
		c.expect(t, "hi")
		// Eventually new ones are refused, while the old one goes on.
		refused := func() bool {
			c := f.raw(t, ask101)
			defer c.Close()
			return strings.HasPrefix(c.head(t), "HTTP/1.1 503 ")
		}
		for !refused() {
			continue
		}
		c.send(t, "ho")
		c.expect(t, "ho")
		c.closeWrite(t)
		c.expectEnd(t)
		if err := soon(t, "drain", drained); err != nil {
			t.Error(err)
		}
	})
	t.Run("cuts those that stay", func(t *testing.T) {
		f := newFront(t, "unix", engine(t), hijack)
		clients := []*rawClient{f.raw(t, ask101), f.raw(t, ask101)}
		for _, c := range clients {
			c.head(t)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		err := f.tunnels.Drain(ctx)
		if !errors.Is(err, context.Canceled) || err.Error() != "drain: 2 streams cut: context canceled" {
			t.Errorf("got %v", err)
		}
		if n := f.tunnels.Len(); n != 0 {
			t.Errorf("%d left", n)
		}
		for _, c := range clients {
			if _, err := c.in.ReadByte(); err == nil {
				t.Error("a cut stream goes on")
			}
		}
		if err := f.tunnels.Drain(context.Background()); err != nil {
			t.Errorf("again: %v", err)
		}
	})
	t.Run("none is nothing to do", func(t *testing.T) {
		var s *proxy.Tunnels
		if err := errors.Join(s.Drain(context.Background()), new(proxy.Tunnels).Drain(context.Background())); err != nil || s.Len() != 0 {
			t.Error(err)
		}
	})
}

func TestStreamCancelledBeforeItsHead(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan struct{})
	f := newFront(t, "tcp", rawEngine(t, "tcp", func(c *engineConn) { close(asked); c.untilClosed(); close(gone) }), hijack)
	c := f.raw(t, ask101)
	soon(t, "request", asked)
	c.Close()
	soon(t, "engine told", gone)
	if err := soon(t, "error", f.errs); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation", err)
	}
}

// A dial that hangs ends with the client.
func TestDialIsCancelled(t *testing.T) {
	dialling := make(chan struct{})
	hang := func(ctx context.Context) (net.Conn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	go func() { <-dialling; cancel() }()
	r, err := http.NewRequestWithContext(ctx, "POST", "http://d/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = proxy.Forward(nil, r, proxy.Target{Name: "n1", Dial: hang}, hijack)
	if !proxy.NotSent(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
