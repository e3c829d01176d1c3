package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// fakeNames is an endpoint with one container, whose name changes.
type fakeNames struct {
	name   atomic.Value
	events chan string
	down   atomic.Bool
}

func (f *fakeNames) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case f.down.Load():
		http.Error(w, `{"message":"away"}`, http.StatusServiceUnavailable)
	case r.URL.Path == "/events":
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case e, ok := <-f.events:
				if !ok {
					return
				}
				_, _ = io.WriteString(w, e+"\n")
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	case r.URL.Path == "/nodes":
		_, _ = io.WriteString(w, `[{"Description":{"Hostname":"n1"},"Status":{"State":"ready","Addr":"10.0.0.1"}},{"Description":{"Hostname":"n2"},"Status":{"State":"down","Addr":"10.0.0.2"}}]`)
	default:
		_, _ = fmt.Fprintf(w, `[{"Id":"1","Names":["/%s"],"State":"running","Status":"Up","Labels":{"berth.node":"n1"},"Ports":[{"IP":"0.0.0.0","PublicPort":80,"PrivatePort":80,"Type":"tcp"}]}]`, f.name.Load())
	}
}

func TestDNSFollowsTheEndpoint(t *testing.T) {
	f := &fakeNames{events: make(chan string)}
	f.name.Store("first")
	s := httptest.NewServer(f)
	defer s.Close()
	at := freeAddr(t)
	o := &naming{listen: at, http: "127.0.0.1:0", domain: "berth", ttl: time.Second}
	e, err := openEndpoint("tcp://"+s.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	var said lockedBuffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&program{out: io.Discard, err: &said}).nameServer(ctx, o, e) }()
	ask := func(name string) string {
		m, err := dns.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), at)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(dns.RcodeToString[m.Rcode], len(m.Answer))
	}
	becomes := func(name, want string) {
		t.Helper()
		got := ""
		for range 500 {
			if got = ask(name); got == want {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s is %s, want %s; it said %s", name, got, want, said.String())
	}
	becomes("first.berth.", "NOERROR1")
	f.name.Store("second")
	f.events <- `{"Type":"container","Action":"rename"}`
	becomes("second.berth.", "NOERROR1")
	becomes("first.berth.", "NXDOMAIN0")
	f.down.Store(true)
	close(f.events)
	time.Sleep(50 * time.Millisecond)
	becomes("second.berth.", "NOERROR1") // told for a while yet
	cancel()
	if err := <-done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.b.String())
}

func TestPublishAtEndpoint(t *testing.T) {
	for _, tt := range []struct {
		at    string
		hosts []string
		here  bool
	}{
		{publishAuto, []string{"unix:///a.sock"}, true},
		{publishAuto, []string{"unix:///a.sock", "tcp://127.0.0.1:2375"}, false},
		{publishAuto, []string{"127.0.0.1:2375"}, false},
		{publishOn, []string{"tcp://0.0.0.0:2376"}, true},
		{publishOff, []string{"unix:///a.sock"}, false},
		{"true", []string{"tcp://0.0.0.0:2376"}, true},
		{"false", []string{"unix:///a.sock"}, false},
	} {
		o := &publishing{at: tt.at, ports: "20000-20001"}
		if err := o.check(); err != nil {
			t.Fatal(err)
		}
		if got := o.here(tt.hosts); got != tt.here || (o.chosen(tt.hosts).First != 0) != tt.here {
			t.Errorf("%s with %v: %v, want %v", tt.at, tt.hosts, got, tt.here)
		}
	}
	for _, bad := range []*publishing{{at: "maybe", ports: "1-2"}, {at: publishOn, address: "here", ports: "1-2"}, {at: publishOn, ports: "2-1"}} {
		if bad.check() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
