package machine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/internal/cert"
	"berth/internal/machine"
)

func TestCreateEndsWithAnEngineThatAnswers(t *testing.T) {
	s, p := open(t), newProvider(t)
	o := options("web1")
	o.Engine.Labels = []string{"size=xxl"}
	o.Auth.ServerCertSANs = []string{"web.example"}
	if err := machine.Create(t.Context(), s, p, o); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "web1")
	st := machine.Ask(t.Context(), s, p, m)
	if st.Err != nil || st.State != machine.StateRunning || st.Engine.Version != "29.1.2" {
		t.Errorf("status = %+v, want Running with 29.1.2", st)
	}
	if m.Unfinished != "" || m.Problem != "" {
		t.Errorf("record says unfinished at %q: %q", m.Unfinished, m.Problem)
	}
	server, err := os.ReadFile(m.Auth.ServerCertPath)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "web1", "web.example"} {
		if err := cert.Covers(server, host); err != nil {
			t.Errorf("server certificate does not cover %s: %v", host, err)
		}
	}
	if got, want := p.config["web1"].ExtraLabels, []string{"provider=fake"}; !cmp.Equal(got, want) {
		t.Errorf("extra labels = %q, want %q", got, want)
	}
	if got, want := p.config["web1"].Options.Labels, []string{"size=xxl"}; !cmp.Equal(got, want) {
		t.Errorf("labels = %q, want %q", got, want)
	}
}

func TestTheStoreKeepsSecretsToItsOwner(t *testing.T) {
	s, p := open(t), newProvider(t)
	mustCreate(t, s, p, "web1")
	modes := map[string]os.FileMode{
		"machines": 0o700, "machines/web1": 0o700, "certs": 0o700, "berth-store-id": 0o600, "machines/web1/config.json": 0o600,
		"certs/ca-key.pem": 0o600, "certs/key.pem": 0o600, "machines/web1/key.pem": 0o600, "machines/web1/server-key.pem": 0o600,
		"certs/ca.pem": 0o644, "machines/web1/cert.pem": 0o644,
	}
	for path, want := range modes {
		info, err := os.Stat(filepath.Join(s.Dir(), path))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
	}
}

// What a failing create made is taken back, whatever failed; the name is free again.
func TestCreateUndoes(t *testing.T) {
	for name, tt := range map[string]struct {
		sabotage func(p *provider)
		want     string
	}{
		"a host that could not be made whole": {func(p *provider) { p.failCreate = errFault }, "create web1: the provider is on fire"},
		"an engine that does not start":       {func(p *provider) { p.failEngine = errFault }, "create web1: the provider is on fire"},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := open(t), newProvider(t)
			tt.sabotage(p)
			wantError(t, machine.Create(t.Context(), s, p, options("web1")), tt.want)
			if p.made() != 0 {
				t.Error("the host is still there")
			}
			if s.Exists("web1") {
				t.Error("the name is still taken")
			}
			p.failCreate, p.failEngine = nil, nil
			mustCreate(t, s, p, "web1")
		})
	}
}

func TestCreateUndoesWhenItsContextEnds(t *testing.T) {
	s, p := open(t), newProvider(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.onCreate = func(ctx context.Context) error {
		cancel()
		return ctx.Err()
	}
	err := machine.Create(ctx, s, p, options("web1"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("create = %v, want context.Canceled", err)
	}
	if p.made() != 0 || s.Exists("web1") {
		t.Errorf("%d hosts and the record (%v) are left", p.made(), s.Exists("web1"))
	}
}

// A refusal before anything was made leaves no trace, not even a name.
func TestCreateRefuses(t *testing.T) {
	s, p := open(t), newProvider(t)
	p.refuse = errFault
	err := machine.Create(t.Context(), s, p, options("web1"))
	var check *machine.PreCheckError
	if !errors.As(err, &check) {
		t.Errorf("create = %v, want a PreCheckError", err)
	}
	wantError(t, err, `Error with pre-create check: "the provider is on fire"`)
	if s.Exists("web1") {
		t.Error("the name is taken")
	}
	o := options("web1")
	o.Engine.Labels = []string{"size"}
	wantError(t, machine.Create(t.Context(), s, p, o), `engine label "size": want key=value`)
}

// What cannot be undone, or is to be kept, is in the store as Error with its reason, and can be removed.
func TestAnUnfinishedMachineIsSeenAndRemovable(t *testing.T) {
	for name, sabotage := range map[string]func(*provider, *machine.CreateOptions){
		"undo fails": func(p *provider, _ *machine.CreateOptions) {
			p.failCreate, p.failRemove = errFault, errors.New("cannot reach it")
		},
		"--keep": func(p *provider, o *machine.CreateOptions) { p.failEngine, o.Keep = errFault, true },
	} {
		t.Run(name, func(t *testing.T) {
			s, p := open(t), newProvider(t)
			o := options("web1")
			sabotage(p, &o)
			err := machine.Create(t.Context(), s, p, o)
			var unfinished *machine.UnfinishedError
			if !errors.As(err, &unfinished) || unfinished.Name != "web1" {
				t.Fatalf("create = %v, want an UnfinishedError", err)
			}
			m := mustLoad(t, s, "web1")
			state, err := machine.AskState(t.Context(), s, p, m)
			if state != machine.StateError {
				t.Errorf("state = %s, want Error", state)
			}
			wantError(t, err, "create stopped at the step", "the provider is on fire")
			p.failRemove = nil
			if err := machine.Remove(t.Context(), s, p, m, false); err != nil {
				t.Fatal(err)
			}
			if p.made() != 0 || s.Exists("web1") {
				t.Errorf("after remove %d hosts and the record (%v) are left", p.made(), s.Exists("web1"))
			}
		})
	}
}

// While a create runs, others see it start and leave it alone.
func TestAMachineBeingCreatedIsStartingAndBusy(t *testing.T) {
	s, p := open(t), newProvider(t)
	p.onCreate = func(ctx context.Context) error {
		m := mustLoad(t, s, "web1")
		if state, err := machine.AskState(ctx, s, p, m); state != machine.StateStarting || err != nil {
			t.Errorf("state = %s, %v, want Starting", state, err)
		}
		var busy *machine.BusyError
		if err := machine.Remove(ctx, s, p, m, true); !errors.As(err, &busy) {
			t.Errorf("remove = %v, want a BusyError", err)
		}
		if err := machine.Start(ctx, s, p, m, func(string) {}); !errors.As(err, &busy) {
			t.Errorf("start = %v, want a BusyError", err)
		}
		var exists *machine.ExistsError
		if err := machine.Create(ctx, s, p, options("web1")); !errors.As(err, &exists) {
			t.Errorf("second create = %v, want an ExistsError", err)
		}
		return nil
	}
	mustCreate(t, s, p, "web1")
}

// Creates that come together on a fresh store share one authority, one client and one store id.
func TestParallelCreatesOnAFreshStoreShareOneAuthority(t *testing.T) {
	s, p := open(t), newProvider(t)
	const n = 12
	var wg sync.WaitGroup
	var lines sync.Map
	for i := range n {
		wg.Go(func() {
			o := options(fmt.Sprintf("host%d", i))
			o.Progress = func(line string) {
				if strings.HasPrefix(line, "Creating CA") {
					lines.Store(o.Name, line)
				}
			}
			if err := machine.Create(t.Context(), s, p, o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	made := 0
	lines.Range(func(any, any) bool { made++; return true })
	if made != 1 {
		t.Errorf("%d authorities were made, want 1", made)
	}
	for i := range n {
		m := mustLoad(t, s, fmt.Sprintf("host%d", i))
		if _, err := s.AskEngine(t.Context(), m); err != nil {
			t.Errorf("%s does not let its client in: %v", m.Name, err)
		}
	}
}

func TestOneNameGoesToOneOfManyCreates(t *testing.T) {
	s, p := open(t), newProvider(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			err := machine.Create(t.Context(), s, p, options("web1"))
			mu.Lock()
			defer mu.Unlock()
			var exists *machine.ExistsError
			switch {
			case err == nil:
				won++
			case !errors.As(err, &exists):
				t.Errorf("create = %v, want an ExistsError", err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d creates won the name, want 1", won)
	}
}

func TestTheEngineMustSpeakSense(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"another status": {func(w http.ResponseWriter) { http.Error(w, "no\n", http.StatusTeapot) }, "GET /version: 418 I'm a teapot: no"},
		"no JSON":        {func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") }, "GET /version: invalid character '<'"},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := open(t), newProvider(t)
			m := mustCreate(t, s, p, "web1")
			p.answer = tt.answer
			st := machine.Ask(t.Context(), s, p, m)
			wantError(t, st.Err, "Unable to query docker version: "+tt.want)
			if st.State != machine.StateRunning || st.URL == "" {
				t.Errorf("status = %+v, want Running with its URL", st)
			}
		})
	}
}

// An engine that takes the connection and never answers costs no more than the deadline.
func TestAHungEngineIsATimeout(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	ctx, cancel := context.WithCancel(t.Context())
	hung, over := make(chan struct{}), make(chan struct{})
	p.answer = func(http.ResponseWriter) { close(hung); <-over }
	defer close(over)
	go func() { <-hung; cancel() }()
	if st := machine.Ask(ctx, s, p, m); st.State != machine.StateTimeout || st.Err == nil {
		t.Errorf("status = %+v, want Timeout with an error", st)
	}
}

func TestAnExpiredOrForeignClientIsNotLetIn(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	other, err := cert.NewAuthority("other")
	if err != nil {
		t.Fatal(err)
	}
	client, err := cert.NewClient(other, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	files := s.CertFiles(m)
	for path, data := range map[string][]byte{files.Cert: client.Cert, files.Key: client.Key} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.AskEngine(t.Context(), m); err == nil {
		t.Error("a client of another authority was let in")
	}
}
