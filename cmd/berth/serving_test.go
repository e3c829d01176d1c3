package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/dockertest"
)

// managed is a manager that runs in this process.
type managed struct {
	t      *testing.T
	client *http.Client
	log    *lines
	stop   func() error // as SIGTERM does
}

// lines is a writer that may be read meanwhile.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// manage serves a daemon, and returns once it is in the fleet.
func manage(t *testing.T, d *dockertest.Daemon, edit func(*serveOptions)) *managed {
	t.Helper()
	t.Setenv("GOGC", "100") // or serving would set this process's
	log := new(lines)
	p := &program{name: "berth", in: strings.NewReader(""), out: io.Discard, err: log, storagePath: t.TempDir()}
	o := newServeOptions()
	p.serveFlags(new(cobra.Command), o)
	o.hosts, o.sources, o.noContext = []string{"unix://" + filepath.Join(t.TempDir(), "d.sock")}, []string{"nodes://" + d.HostPort()}, true
	if edit != nil {
		edit(o)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.serve(ctx, o) }()
	m := &managed{t: t, log: log, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(o.hosts[0], "unix://"))
		},
	}}}
	m.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		m.client.CloseIdleConnections()
		if err := m.stop(); err != nil {
			t.Errorf("serve: %v\n%s", err, log)
		}
	})
	for range 200 {
		if code, body := m.try(http.MethodGet, "/info", ""); code == http.StatusOK && strings.Contains(body, `"Healthy"`) {
			return m
		}
		select {
		case err := <-done:
			done <- err
			t.Fatalf("serve ended: %v\n%s", err, log)
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatalf("the daemon is not in the fleet\n%s", log)
	return nil
}

func (m *managed) try(method, path, body string) (int, string) {
	res, err := m.open(method, path, body)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

func (m *managed) open(method, path, body string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(m.t.Context(), method, "http://berth"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	return m.client.Do(r)
}

func (m *managed) do(method, path, body string) {
	m.t.Helper()
	if code, text := m.try(method, path, body); code/100 != 2 {
		m.t.Fatalf("%s %s: %d %s", method, path, code, text)
	}
}

// collect is an OpenTelemetry collector. Names are text in what it is sent.
func collect(t *testing.T) (got func() string) {
	t.Helper()
	all := new(lines)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(all, r.Body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "60000") // so that nothing is sent before the end
	return all.String
}

// A stream that nobody ends uses up the time that clients have to end theirs. What was traced has time of its own.
func TestTracesArriveAlthoughAStreamWasOpen(t *testing.T) {
	for name, open := range map[string]struct{ method, path, upgrade string }{
		"logs -f": {http.MethodGet, "/containers/web/logs?follow=1&stdout=1", ""},
		"attach":  {http.MethodPost, "/containers/web/attach?stream=1&stdin=1&stdout=1", "tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			got := collect(t)
			m := manage(t, dockertest.New(t, dockertest.Options{Images: []string{"busybox"}}), nil)
			m.do(http.MethodPost, "/containers/create?name=web", `{"Image":"busybox","Cmd":["sleep","600"],"OpenStdin":true,"Env":["PASSWORD=hunter2"]}`)
			m.do(http.MethodPost, "/containers/web/start", "")
			r, err := http.NewRequestWithContext(t.Context(), open.method, "http://berth"+open.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if open.upgrade != "" {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", open.upgrade)
			}
			res, err := m.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			began := time.Now()
			if err := m.stop(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > shutdownLimit+2*time.Second {
				t.Errorf("it took %s to stop", took)
			}
			for _, want := range []string{"POST /containers/create", "place", "read back"} {
				if !strings.Contains(got(), want) {
					t.Errorf("the collector did not get %q; the manager said\n%s", want, m.log)
				}
			}
			if strings.Contains(got(), "hunter2") {
				t.Error("a container's environment went to the collector")
			}
		})
	}
}

// What is wrong in OpenTelemetry's variables is said, and keeps no manager from serving.
func TestNonsenseInTheEnvironmentIsSaid(t *testing.T) {
	for name, tt := range map[string]struct {
		env  map[string]string
		want string // on stderr
		sent bool   // spans are sent all the same
	}{
		"attributes":      {map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "nonsense,team=a"}, "OTEL_RESOURCE_ATTRIBUTES", true},
		"sampler":         {map[string]string{"OTEL_TRACES_SAMPLER": "sometimes"}, "sometimes", true},
		"timeout":         {map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "parse duration", true},
		"certificate":     {map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere.pem"}, "/nowhere.pem", true},
		"protocol":        {map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL", true},
		"exporter":        {map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER", false},
		"no scheme":       {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT", false},
		"no host":         {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", false},
		"no port":         {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jo:hunter2@collector:x"}, "OTEL_EXPORTER_OTLP_ENDPOINT", false},
		"headers":         {map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "Authorization hunter2"}, "parse headers", true},
		"nobody is there": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "connection refused", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := collect(t)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			m := manage(t, dockertest.New(t, dockertest.Options{Images: []string{"busybox"}}), nil)
			m.do(http.MethodPost, "/containers/create?name=web", `{"Image":"busybox"}`)
			if err := m.stop(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(m.log.String(), tt.want) {
				t.Errorf("nothing was said of %s:\n%s", tt.want, m.log)
			}
			if strings.Contains(m.log.String(), "hunter2") {
				t.Errorf("a secret is in the log:\n%s", m.log)
			}
			if sent := strings.Contains(got(), "POST /containers/create"); sent != tt.sent {
				t.Errorf("sent = %t, want %t", sent, tt.sent)
			}
		})
	}
}

// A create that is under way at SIGTERM is answered: its client would not know of the container otherwise.
func TestACreateUnderWayIsFinished(t *testing.T) {
	d := dockertest.New(t, dockertest.Options{Images: []string{"busybox"}})
	m := manage(t, d, nil)
	reached, release := d.HoldNext(http.MethodPost, "/containers/create")
	answer := make(chan string, 1)
	go func() {
		code, text := m.try(http.MethodPost, "/containers/create?name=web", `{"Image":"busybox"}`)
		answer <- http.StatusText(code) + " " + text
	}()
	<-reached
	stopped := make(chan error, 1)
	go func() { stopped <- m.stop() }()
	time.AfterFunc(300*time.Millisecond, release)
	if got := <-answer; !strings.HasPrefix(got, "Created") {
		t.Errorf("the client got %s", got)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if got := d.Containers(); len(got) != 1 {
		t.Errorf("containers are %v", got)
	}
}

// Who follows the events is no reason to wait.
func TestEventsEndAtOnce(t *testing.T) {
	m := manage(t, dockertest.New(t, dockertest.Options{}), nil)
	res, err := m.open(http.MethodGet, "/events", "")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	began := time.Now()
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > shutdownLimit/2 {
		t.Errorf("it took %s to stop", took)
	}
}

// The page of a manager that did something.
func TestMetricsOfAServedFleet(t *testing.T) {
	d := dockertest.New(t, dockertest.Options{Images: []string{"busybox"}})
	socket := filepath.Join(t.TempDir(), "debug.sock")
	m := manage(t, d, func(o *serveOptions) { o.debugSocket = socket })
	m.do(http.MethodPost, "/containers/create?name=web", `{"Image":"busybox","Cmd":["sleep","600"]}`)
	m.do(http.MethodPost, "/containers/web/start", "")
	if code, text := m.try(http.MethodPost, "/containers/create?name=big", `{"Image":"busybox","HostConfig":{"Memory":1099511627776}}`); code != http.StatusServiceUnavailable {
		t.Errorf("a create that cannot fit: %d %s", code, text)
	}
	d.FailNext(http.MethodPost, "/containers/", http.StatusInternalServerError, "no space left")
	if code, text := m.try(http.MethodPost, "/containers/web/pause", ""); code != http.StatusInternalServerError {
		t.Errorf("pause: %d %s", code, text)
	}
	watcher := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	res, err := watcher.Get("http://berth/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`berth_engine_calls_total{operation="create",outcome="ok"} 1`, `berth_engine_calls_total{operation="start",outcome="ok"} 1`,
		`berth_engine_calls_total{operation="change",outcome="5xx"} 1`, `berth_engine_calls_total{operation="events",outcome="ok"} 1`,
		`berth_engine_call_seconds_count{operation="create"} 1`, `berth_refusals_total{reason="memory"} 1`, `berth_nodes{state="healthy"} 1`,
	} {
		if !strings.Contains(string(b), "\n"+line+"\n") {
			t.Errorf("the page lacks %s", line)
		}
	}
	if !regexp.MustCompile(`\nberth_events_total\{type="container"\} [1-9]`).Match(b) {
		t.Error("no event was counted")
	}
}
