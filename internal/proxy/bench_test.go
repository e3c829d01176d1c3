package proxy_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/internal/proxy"
)

// cpu reports what the process used for each operation: client, hop and engine together.
func cpu(b *testing.B) func() {
	start := used(b)
	return func() { b.ReportMetric(float64((used(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGet is an inspect: 4 kB of known length, by a client that keeps its connection.
func BenchmarkGet(b *testing.B) {
	body := strings.Repeat("x", 4096)
	engine := httpEngine(b, "tcp", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "4096")
		io.WriteString(w, body)
	})
	get := func(b *testing.B, f *front) {
		client := f.client(b)
		defer cpu(b)()
		b.ReportAllocs()
		for b.Loop() {
			res, err := client.Get("http://d/v1.41/containers/x/json")
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, res.Body); n != 4096 || err != nil {
				b.Fatal(n, err)
			}
			res.Body.Close()
		}
	}
	b.Run("direct", func(b *testing.B) { get(b, &front{link: engine}) })
	b.Run("Forward", func(b *testing.B) { get(b, newFront(b, "tcp", engine, proxy.Options{})) })
	b.Run("ReverseProxy", func(b *testing.B) {
		l, pool := listen(b, "tcp"), proxy.NewTransport(engine.dial)
		b.Cleanup(pool.CloseIdleConnections)
		serve(b, l, &http.Server{Handler: &httputil.ReverseProxy{
			Transport: pool, FlushInterval: -1,
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
		}})
		get(b, &front{link: l})
	})
}

// BenchmarkKeystroke is one byte to the engine and back through an open stream.
func BenchmarkKeystroke(b *testing.B) {
	engine := rawEngine(b, "tcp", func(c *engineConn) { c.say(head101); c.cat() })
	stroke := func(b *testing.B, c *rawClient) {
		c.head(b)
		if err := c.SetDeadline(time.Time{}); err != nil {
			b.Fatal(err)
		}
		key := []byte("k")
		defer cpu(b)()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Write(key); err != nil {
				b.Fatal(err)
			}
			if _, err := c.in.ReadByte(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("direct", func(b *testing.B) { stroke(b, (&front{link: engine}).raw(b, ask101)) })
	b.Run("Forward", func(b *testing.B) { stroke(b, newFront(b, "tcp", engine, hijack).raw(b, ask101)) })
	b.Run("ReverseProxy", func(b *testing.B) {
		l, pool := listen(b, "tcp"), proxy.NewTransport(engine.dial)
		b.Cleanup(pool.CloseIdleConnections)
		serve(b, l, &http.Server{Handler: &httputil.ReverseProxy{
			Transport: pool,
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
		}})
		stroke(b, (&front{link: l}).raw(b, ask101))
	})
}

// BenchmarkBulk is output as fast as it goes, 1 MiB for each operation.
func BenchmarkBulk(b *testing.B) {
	block := make([]byte, 1<<20)
	for _, ways := range [][2]string{{"tcp", "tcp"}, {"unix", "tcp"}, {"tcp", "unix"}, {"unix", "unix"}, {"tls", "tls"}} {
		engine := rawEngine(b, ways[1], func(c *engineConn) {
			c.say(head101)
			for {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		})
		pour := func(b *testing.B, c *rawClient) {
			c.head(b)
			if err := c.SetDeadline(time.Time{}); err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, len(block))
			b.SetBytes(int64(len(block)))
			defer cpu(b)()
			for b.Loop() {
				if _, err := io.ReadFull(c.in, buf); err != nil {
					b.Fatal(err)
				}
			}
			c.Close()
		}
		b.Run(ways[1]+" direct", func(b *testing.B) { pour(b, (&front{link: engine}).raw(b, ask101)) })
		b.Run(ways[1]+" to "+ways[0], func(b *testing.B) { pour(b, newFront(b, ways[0], engine, hijack).raw(b, ask101)) })
	}
}

// BenchmarkIdleStream reports what one stream at rest costs the hop: its memory with the streams, less that without it (the
// engine and the client, which are in this process too).
func BenchmarkIdleStream(b *testing.B) {
	const streams = 200
	engine := rawEngine(b, "tcp", func(c *engineConn) { c.say(head101); c.cat() })
	open := func(f *front) uint64 {
		before := inUse()
		for range streams {
			c := f.raw(b, ask101)
			c.head(b)
			c.send(b, "x")
			c.expect(b, "x")
		}
		return (inUse() - before) / streams
	}
	for b.Loop() {
		direct := open(&front{link: engine})
		f := newFront(b, "tcp", engine, hijack)
		through := open(f)
		b.ReportMetric(float64(through-direct), "B/stream")
		cut, cancel := context.WithCancel(b.Context())
		cancel()
		if err := f.tunnels.Drain(cut); !errors.Is(err, context.Canceled) {
			b.Fatal(err)
		}
	}
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC() // twice: pools give theirs up at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
