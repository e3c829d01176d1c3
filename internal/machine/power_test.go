package machine_test

import (
	"context"
	"errors"
	"testing"

	"berth/internal/machine"
)

func TestPowerGoesOffAndOn(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	quiet := func(string) {}
	wantError(t, machine.Start(t.Context(), s, p, m, quiet), `Machine "web1" is already running.`)
	if err := machine.Stop(t.Context(), s, p, m); err != nil {
		t.Fatal(err)
	}
	if st := machine.Ask(t.Context(), s, p, m); st.State != machine.StateStopped || st.URL != "" || st.Err != nil {
		t.Errorf("after stop: %+v, want Stopped and no URL", st)
	}
	wantError(t, machine.Stop(t.Context(), s, p, m), `Machine "web1" is already stopped.`)
	wantError(t, machine.Kill(t.Context(), s, p, m), `Machine "web1" is already stopped.`)
	if err := machine.Start(t.Context(), s, p, m, quiet); err != nil {
		t.Fatal(err)
	}
	if err := machine.Restart(t.Context(), s, p, m, quiet); err != nil {
		t.Fatal(err)
	}
	if err := machine.Kill(t.Context(), s, p, m); err != nil {
		t.Fatal(err)
	}
	if err := machine.Restart(t.Context(), s, p, m, quiet); err != nil { // of a stopped one: starts it
		t.Fatal(err)
	}
	if p.runs["web1"] != 1 {
		t.Errorf("the engine was set up %d times, want once: its address did not change", p.runs["web1"])
	}
	// The driver's fields are the driver's: those it gave up are gone.
	if got := string(mustLoad(t, s, "web1").Instance.Raw); got != "" {
		t.Errorf("driver's fields = %s, want none", got)
	}
}

// A machine that comes back elsewhere gets a certificate for where it is now.
func TestStartMendsTheCertificateOfANewAddress(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	if err := machine.Stop(t.Context(), s, p, m); err != nil {
		t.Fatal(err)
	}
	p.address = func(machine.Instance) string { return "127.0.0.2" }
	if err := machine.Start(t.Context(), s, p, m, func(string) {}); err != nil {
		t.Fatal(err)
	}
	m = mustLoad(t, s, "web1")
	if m.Instance.IPAddress != "127.0.0.2" {
		t.Errorf("address = %s, want 127.0.0.2", m.Instance.IPAddress)
	}
	if _, err := s.AskEngine(t.Context(), m); err != nil {
		t.Error(err)
	}
	if p.runs["web1"] != 2 {
		t.Errorf("the engine was set up %d times, want 2", p.runs["web1"])
	}
}

func TestAHostThatIsGone(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	if err := p.Remove(t.Context(), m.Instance); err != nil {
		t.Fatal(err)
	}
	if st := machine.Ask(t.Context(), s, p, m); st.State != machine.StateNotFound || st.Err != nil {
		t.Errorf("status = %+v, want Not Found", st)
	}
	wantError(t, machine.Start(t.Context(), s, p, m, func(string) {}), `machine "web1": its host is gone`)
	if err := machine.Remove(t.Context(), s, p, m, false); err != nil {
		t.Errorf("remove = %v, want success", err)
	}
}

func TestRemove(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	p.failRemove = errFault
	wantError(t, machine.Remove(t.Context(), s, p, m, false), "remove web1: the provider is on fire")
	if !s.Exists("web1") {
		t.Fatal("the record is gone though the host is not")
	}
	wantError(t, machine.Remove(t.Context(), s, p, m, true), "remove web1: the provider is on fire")
	if s.Exists("web1") {
		t.Error("the record is there after a remove by force")
	}
	var missing *machine.NotExistError
	if err := machine.Forget(s, "web1"); !errors.As(err, &missing) {
		t.Errorf("forget = %v, want a NotExistError", err)
	}
}

func TestRenewCerts(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	if err := machine.RenewClientCert(t.Context(), s, m, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if err := machine.RenewCerts(t.Context(), s, p, m, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AskEngine(t.Context(), m); err != nil {
		t.Error(err)
	}
	if err := machine.Stop(t.Context(), s, p, m); err != nil {
		t.Fatal(err)
	}
	wantError(t, machine.RenewCerts(t.Context(), s, p, m, func(string) {}), `machine "web1": Host is not running`)
}

// saver is a provider whose hosts can be saved.
type saver struct {
	*provider
	saved map[string]bool
}

func (s *saver) Save(_ context.Context, i machine.Instance) error {
	s.saved[i.Name] = true
	return nil
}

func (s *saver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	if s.saved[i.Name] {
		return machine.StateSaved, nil
	}
	return s.provider.State(ctx, i)
}

func (s *saver) Start(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	if s.saved[i.Name] {
		delete(s.saved, i.Name)
		return i, nil
	}
	return s.provider.Start(ctx, i)
}

func TestASavedMachineIsStarted(t *testing.T) {
	s, p := open(t), &saver{newProvider(t), map[string]bool{}}
	m := mustCreate(t, s, p.provider, "web1")
	for name, again := range map[string]func(context.Context, *machine.Store, machine.Driver, *machine.Machine, func(string)) error{
		"start": machine.Start, "restart": machine.Restart,
	} {
		if err := machine.Save(t.Context(), s, p, m); err != nil {
			t.Fatal(err)
		}
		if st := machine.Ask(t.Context(), s, p, m); st.State != machine.StateSaved || st.URL != "" {
			t.Errorf("after save: %+v, want Saved and no URL", st)
		}
		wantError(t, machine.Save(t.Context(), s, p, m), `Machine "web1" is already saved.`)
		if err := again(t.Context(), s, p, m, func(string) {}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := machine.Stop(t.Context(), s, p, m); err != nil {
		t.Fatal(err)
	}
	wantError(t, machine.Save(t.Context(), s, p, m), "Host is not running")
	wantError(t, machine.Save(t.Context(), s, p.provider, m), "cannot save")
}

// A host behind a forward: the port that its engine listens on is not the one that it is reached at.
func TestTheInnerPortIsKept(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	m.Instance.InnerPort = 2376
	if err := s.Save(m); err != nil {
		t.Fatal(err)
	}
	if got := mustLoad(t, s, "web1").Instance; got.InnerPort != 2376 || got.EnginePort != m.Instance.EnginePort {
		t.Errorf("instance = %+v", got)
	}
}
