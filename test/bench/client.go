package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// client asks one endpoint.
type client struct {
	addr string
	http *http.Client
}

func newClient(network, addr string) *client {
	return &client{addr, &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 128, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		},
	}}}
}

const version = "/v1.41"

func (c *client) do(ctx context.Context, method, path, body string, into any) (int, error) {
	var in io.Reader
	if body != "" {
		in = bytes.NewReader([]byte(body))
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr+version+path, in)
	if err != nil {
		return 0, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if into != nil {
		return res.StatusCode, json.NewDecoder(res.Body).Decode(into)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

func (c *client) want(ctx context.Context, status int, method, path, body string, into any) error {
	code, err := c.do(ctx, method, path, body, into)
	if err == nil && code != status {
		err = fmt.Errorf("%s %s: status %d, want %d", method, path, code, status)
	}
	return err
}

// timed is how long each of n operations took, so many at a time, in order of their times.
func timed(n, atOnce int, op func(i int) error) (took []time.Duration, wall time.Duration, err error) {
	took = make([]time.Duration, n)
	next := make(chan int)
	var wg sync.WaitGroup
	var once sync.Once
	began := time.Now()
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				began := time.Now()
				if e := op(i); e != nil {
					once.Do(func() { err = e })
				}
				took[i] = time.Since(began)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	wall = time.Since(began)
	slices.Sort(took)
	return took, wall, err
}

func median[T any](sorted []T) T { return sorted[len(sorted)/2] }

func at[T any](sorted []T, share float64) T {
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// body is the whole answer to a GET of a path with its version.
func (c *client) body(ctx context.Context, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://berth"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// ratios collects one ratio a round.
type ratios []float64

func (r ratios) median() float64 {
	s := slices.Sorted(slices.Values(r))
	if len(s) == 0 {
		return 0
	}
	return median(s)
}
