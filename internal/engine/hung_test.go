package engine

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"berth/internal/dockertest"
	"berth/internal/fleet"
	"berth/internal/proxy"
)

// Where pings are rare, the request itself is the reason to ask whether an engine still lives.
func TestARequestWithoutAnswerFindsOutThatItsEngineHangs(t *testing.T) {
	d := dockertest.New(t, dockertest.Options{Name: "n1"})
	healthy := make(chan struct{}, 100)
	e := New(Endpoint{
		Addr: d.HostPort(), Key: d.HostPort(),
		Dial: func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "", "") },
	}, Options{
		Name: func(_ Endpoint, host string) string { return host },
		Publish: func(n *fleet.Node) {
			if n.State == fleet.Healthy {
				healthy <- struct{}{}
			}
		},
		Event:  func(fleet.Event) {},
		APIMax: "1.51", FailureRetry: 1, Log: slog.New(slog.DiscardHandler), Tunnels: new(proxy.Tunnels),
		Timing: Timing{
			Dial: time.Second, Probe: time.Second, List: time.Minute, PingEvery: time.Hour, PingTimeout: 100 * time.Millisecond,
			Patience: 50 * time.Millisecond, RetryMin: time.Hour, RetryMax: time.Hour, Resync: time.Hour,
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	<-healthy
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := e.Do(ctx, req)
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	if err := ask(); err != nil {
		t.Fatalf("before: %v", err)
	}
	d.Hang()
	began := time.Now()
	if err := ask(); err == nil {
		t.Fatal("a hung engine answered")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s to find out", took)
	}
}

func TestPingsOfAFleetComeTogether(t *testing.T) {
	now, step := time.Now(), 600*time.Millisecond
	for _, d := range []time.Duration{10 * time.Second, 10*time.Second + time.Nanosecond, 11 * time.Second} {
		got := inStep(now, d, step)
		if got > d || got <= d-step {
			t.Errorf("%s became %s", d, got)
		}
		if off := now.Add(got).Round(0).Sub(now.Add(got).Truncate(step)); off != 0 {
			t.Errorf("%s ends %s off the others", d, off)
		}
	}
}
