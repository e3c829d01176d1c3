package machine_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"berth/internal/machine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// provider is a driver whose hosts are HTTPS servers in this process. Its faults are set before use.
type provider struct {
	refuse     error                           // of the pre-create check
	failCreate error                           // after the host was made
	failEngine error                           // of RunEngine
	failRemove error                           // of Remove
	onCreate   func(context.Context) error     // runs inside Create
	answer     func(http.ResponseWriter)       // what the engine says; nil for a good version
	address    func(i machine.Instance) string // where a start puts the host; nil for where it was
	config     map[string]machine.EngineConfig // by machine, as RunEngine was called last
	manager    string                          // where the first machine's engine answers, too, as a Swarm's manager would

	mu      sync.Mutex
	servers map[string]*httptest.Server // what there is, by machine
	runs    map[string]int              // calls of RunEngine
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{servers: map[string]*httptest.Server{}, runs: map[string]int{}, config: map[string]machine.EngineConfig{}}
	t.Cleanup(func() {
		for _, s := range p.servers {
			s.Close()
		}
	})
	return p
}

func (p *provider) PreCreateCheck(context.Context, machine.Spec) error { return p.refuse }

func (p *provider) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Name: spec.Name, IPAddress: "127.0.0.1", Raw: json.RawMessage(`{"Serial":9007199254740993}`)}
	if p.onCreate != nil {
		if err := p.onCreate(ctx); err != nil {
			return i, err
		}
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.mu.Lock()
	p.servers[spec.Name] = s
	p.mu.Unlock()
	i.EnginePort = s.Listener.Addr().(*net.TCPAddr).Port
	return i, p.failCreate
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/version": // as an engine that knows no old versions
		http.Error(w, `{"message":"client version 1.15 is too old"}`, http.StatusBadRequest)
	case p.answer != nil:
		p.answer(w)
	default:
		fmt.Fprint(w, `{"Version":"29.1.2","ApiVersion":"1.52"}`)
	}
}

func (p *provider) RunEngine(_ context.Context, i machine.Instance, e machine.EngineConfig) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs[i.Name]++
	p.config[i.Name] = e
	if p.failEngine != nil {
		return p.failEngine
	}
	return p.listen(i)
}

// listen (re)starts the machine's server on its port with the certificates that RunEngine brought.
func (p *provider) listen(i machine.Instance) error {
	e := p.config[i.Name]
	pair, err := tls.LoadX509KeyPair(e.ServerCert, e.ServerKey)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(e.CACert)
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(pem)
	p.servers[i.Name].Close()
	s := httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	s.Listener.Close() //nolint:errcheck // replaced by the next line
	if s.Listener, err = net.Listen("tcp", fmt.Sprintf("%s:%d", i.IPAddress, i.EnginePort)); err != nil {
		return err
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	p.servers[i.Name] = s
	if p.manager == "" || p.servers["manager of "+i.Name] != nil {
		return nil
	}
	beside := httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	beside.Listener.Close() //nolint:errcheck // replaced by the next line
	if beside.Listener, err = net.Listen("tcp", p.manager); err != nil {
		return err
	}
	beside.TLS = s.TLS.Clone()
	beside.StartTLS()
	p.servers["manager of "+i.Name] = beside
	return nil
}

func (p *provider) State(_ context.Context, i machine.Instance) (machine.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, there := p.servers[i.Name]
	switch {
	case !there:
		return machine.StateNotFound, nil
	case s.URL == "":
		return machine.StateStopped, nil
	}
	return machine.StateRunning, nil
}

func (p *provider) Remove(ctx context.Context, i machine.Instance) error {
	if p.failRemove != nil {
		return p.failRemove
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, there := p.servers[i.Name]; there {
		s.Close()
		delete(p.servers, i.Name)
	}
	return nil
}

func (p *provider) Start(_ context.Context, i machine.Instance) (machine.Instance, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address != nil {
		i.IPAddress = p.address(i)
	}
	i.Raw = json.RawMessage(`{}`)
	return i, p.listen(i)
}

func (p *provider) Stop(_ context.Context, i machine.Instance) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.servers[i.Name].Close()
	p.servers[i.Name] = &httptest.Server{Listener: p.servers[i.Name].Listener, Config: &http.Server{}} // URL is empty: it is off
	return nil
}

func (p *provider) Kill(ctx context.Context, i machine.Instance) error { return p.Stop(ctx, i) }

func (p *provider) Restart(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	return p.Start(ctx, i)
}

// made lists the hosts there are.
func (p *provider) made() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.servers)
}

var (
	_ machine.Power        = (*provider)(nil)
	_ machine.PreChecker   = (*provider)(nil)
	_ machine.EngineRunner = (*provider)(nil)
)

var errFault = errors.New("the provider is on fire")

func open(t *testing.T) *machine.Store {
	t.Helper()
	s, err := machine.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func options(name string) machine.CreateOptions {
	return machine.CreateOptions{Name: name, DriverName: "fake", Progress: func(string) {}}
}

// mustCreate makes a machine and reads its record.
func mustCreate(t *testing.T, s *machine.Store, p *provider, name string) *machine.Machine {
	t.Helper()
	if err := machine.Create(t.Context(), s, p, options(name)); err != nil {
		t.Fatal(err)
	}
	return mustLoad(t, s, name)
}

func mustLoad(t *testing.T, s *machine.Store, name string) *machine.Machine {
	t.Helper()
	m, err := s.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}
