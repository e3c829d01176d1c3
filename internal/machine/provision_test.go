package machine_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"berth/internal/machine"
)

// distant is a driver whose hosts have an SSH and no engine of the driver's.
type distant struct{ p *provider }

func (d distant) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i, err := d.p.Create(ctx, spec)
	i.SSHUser, i.SSHPort = "deb", 2222
	return i, err
}

func (d distant) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	return d.p.State(ctx, i)
}
func (d distant) Remove(ctx context.Context, i machine.Instance) error { return d.p.Remove(ctx, i) }
func (d distant) Restart(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	return d.p.Start(ctx, i)
}

// borrowed is distant, with hosts of someone else.
type borrowed struct{ distant }

func (borrowed) BorrowsHosts() {}

// reach gets into the hosts of a provider.
type reach struct {
	p      *provider
	fail   error
	isNew  []bool
	serial []string // of the server certificates that it was handed
	dialed int
	engine *net.TCPAddr // what is behind the socket
	newest int          // upgrades
}

func (r *reach) Provision(ctx context.Context, m *machine.Machine, e machine.EngineConfig, isNew bool) error {
	r.isNew = append(r.isNew, isNew)
	pem, err := os.ReadFile(e.ServerCert)
	if err != nil {
		return err
	}
	r.serial = append(r.serial, string(pem))
	if r.fail != nil {
		return r.fail
	}
	return r.p.RunEngine(ctx, m.Instance, e)
}

func (r *reach) Upgrade(ctx context.Context, m *machine.Machine, e machine.EngineConfig) error {
	r.newest++
	return r.Provision(ctx, m, e, false)
}

func (r *reach) DialEngine(ctx context.Context, _ *machine.Machine) (net.Conn, error) {
	r.dialed++
	if r.fail != nil {
		return nil, r.fail
	}
	return new(net.Dialer).DialContext(ctx, "tcp", r.engine.String())
}

func distantStore(t *testing.T) (*machine.Store, *reach, distant) {
	t.Helper()
	s, p := open(t), newProvider(t)
	r := &reach{p: p}
	s.Provisioner = r
	return s, r, distant{p}
}

var quiet = func(string) {}

func TestAHostWithSSHIsProvisioned(t *testing.T) {
	s, r, d := distantStore(t)
	if err := machine.Create(t.Context(), s, d, options("web1")); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "web1")
	if st := machine.Ask(t.Context(), s, d, m); st.State != machine.StateRunning || st.Engine.Version != "29.1.2" {
		t.Errorf("it is %+v", st)
	}
	if err := machine.Create(t.Context(), s, borrowed{d}, options("web2")); err != nil {
		t.Fatal(err)
	}
	if len(r.isNew) != 2 || !r.isNew[0] || r.isNew[1] {
		t.Errorf("hosts taken for new = %v, want the driver's own, and not the borrowed one", r.isNew)
	}
}

func TestAProvisioningThatFailedIsKeptAndFinished(t *testing.T) {
	s, r, d := distantStore(t)
	r.fail = errors.New("install Docker: the disk is full")
	err := machine.Create(t.Context(), s, d, options("web1"))
	wantError(t, err, "create web1: install Docker: the disk is full")
	if unfinished, ok := errors.AsType[*machine.UnfinishedError](err); !ok || !unfinished.Resume {
		t.Errorf("error = %#v, want one that says that it can be finished", err)
	}
	m := mustLoad(t, s, "web1")
	if st := machine.Ask(t.Context(), s, d, m); st.State != machine.StateError || !strings.Contains(st.Err.Error(), "the disk is full") {
		t.Errorf("it is %+v, want Error and the reason", st)
	}
	if d.p.made() != 1 {
		t.Error("the host is gone")
	}
	r.fail = errors.New("still no room")
	wantError(t, machine.Provision(t.Context(), s, d, m, quiet), "provision web1: still no room")
	if m = mustLoad(t, s, "web1"); m.Problem != "still no room" {
		t.Errorf("the reason is %q, want the last one", m.Problem)
	}
	r.fail = nil
	if err := machine.Provision(t.Context(), s, d, m, quiet); err != nil {
		t.Fatal(err)
	}
	m = mustLoad(t, s, "web1")
	if st := machine.Ask(t.Context(), s, d, m); st.State != machine.StateRunning || st.Err != nil || m.Unfinished != "" {
		t.Errorf("finished, it is %+v, unfinished %q", st, m.Unfinished)
	}
}

// deaf is a provisioner of hosts behind a firewall.
type deaf struct{ *reach }

func (deaf) Provision(context.Context, *machine.Machine, machine.EngineConfig, bool) error {
	return nil
}

func TestAnEngineOutOfReachIsNotTheHostsFault(t *testing.T) {
	s, r, d := distantStore(t)
	s.Provisioner = deaf{r}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	wantError(t, machine.Create(ctx, s, unlistened{d}, options("web1")), "wait for the engine", "On the host the engine answers", "security group")
}

// unlistened is distant, with nobody at the engine's port.
type unlistened struct{ distant }

func (u unlistened) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i, err := u.distant.Create(ctx, spec)
	i.EnginePort = 1
	return i, err
}

func TestAnUnfinishedMachineCanBeRemoved(t *testing.T) {
	s, r, d := distantStore(t)
	r.fail = errFault
	wantError(t, machine.Create(t.Context(), s, d, options("web1")), "on fire")
	if err := machine.Remove(t.Context(), s, d, mustLoad(t, s, "web1"), false); err != nil || s.Exists("web1") || d.p.made() != 0 {
		t.Errorf("remove = %v, exists %t, hosts %d", err, s.Exists("web1"), d.p.made())
	}
}

func TestAHostThatWasNotMadeCannotBeProvisioned(t *testing.T) {
	s, _, d := distantStore(t)
	d.p.failCreate = errFault
	o := options("web1")
	o.Keep = true
	wantError(t, machine.Create(t.Context(), s, d, o), "on fire")
	wantError(t, machine.Provision(t.Context(), s, d, mustLoad(t, s, "web1"), quiet), "before there was a host", "remove it")
}

func TestProvisioningAgainKeepsTheCertificate(t *testing.T) {
	s, r, d := distantStore(t)
	if err := machine.Create(t.Context(), s, d, options("web1")); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "web1")
	again := func(do func() error) (kept bool) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		n := len(r.serial)
		return r.serial[n-1] == r.serial[n-2]
	}
	if !again(func() error { return machine.Provision(t.Context(), s, d, m, quiet) }) {
		t.Error("provision made another certificate")
	}
	if !again(func() error { return machine.Upgrade(t.Context(), s, d, m, quiet) }) || r.newest != 1 {
		t.Errorf("upgrade made another certificate, or was not asked for: %d", r.newest)
	}
	if again(func() error { return machine.RenewCerts(t.Context(), s, d, m, quiet) }) {
		t.Error("regenerating kept the certificate")
	}
	m.Auth.ServerCertSANs = append(m.Auth.ServerCertSANs, "web.example.com")
	if again(func() error { return machine.Provision(t.Context(), s, d, m, quiet) }) {
		t.Error("a certificate without the new name was kept")
	}
	if err := os.Remove(m.Auth.CaCertPath); err != nil {
		t.Fatal(err)
	}
	if again(func() error { return machine.Provision(t.Context(), s, d, m, quiet) }) {
		t.Error("the old authority's certificate was kept")
	}
}

func TestARestartAtAnotherAddressIsMended(t *testing.T) {
	s, r, d := distantStore(t)
	if err := machine.Create(t.Context(), s, d, options("web1")); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "web1")
	if err := machine.Restart(t.Context(), s, d, m, quiet); err != nil {
		t.Fatal(err)
	}
	if len(r.serial) != 1 {
		t.Errorf("provisioned %d times, want once: nothing changed", len(r.serial))
	}
	d.p.address = func(machine.Instance) string { return "127.0.0.9" }
	if err := machine.Restart(t.Context(), s, d, m, quiet); err != nil {
		t.Fatal(err)
	}
	if len(r.serial) != 2 || mustLoad(t, s, "web1").Instance.IPAddress != "127.0.0.9" {
		t.Errorf("provisioned %d times, at %s, want twice, at 127.0.0.9", len(r.serial), m.Instance.IPAddress)
	}
	wantError(t, machine.Start(t.Context(), s, d, m, quiet), "cannot start, stop")
	wantError(t, machine.Stop(t.Context(), s, d, m), "cannot start, stop")
}

func TestAPlainMachineIsReachedThroughSSHAlone(t *testing.T) {
	s, r, d := distantStore(t)
	engine := newProvider(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, engine)
	r.engine = l.Addr().(*net.TCPAddr)
	o := options("web1")
	o.Plain = true
	if err := machine.Create(t.Context(), s, d, o); err != nil {
		t.Fatal(err)
	}
	d.p.on(t, "web1")
	m := mustLoad(t, s, "web1")
	if got, want := m.URL(), "ssh://deb@127.0.0.1:2222"; got != want || m.UsesTLS() {
		t.Errorf("url = %s, TLS %t, want %s without", got, m.UsesTLS(), want)
	}
	if len(r.isNew) > 0 {
		t.Error("the host was provisioned")
	}
	if st := machine.Ask(t.Context(), s, d, m); st.Engine.Version != "29.1.2" || st.Err != nil {
		t.Errorf("it is %+v", st)
	}
	if err := machine.Provision(t.Context(), s, d, m, quiet); err != nil || len(r.isNew) > 0 {
		t.Errorf("provision = %v, of the host: %t", err, len(r.isNew) > 0)
	}
	wantError(t, machine.RenewCerts(t.Context(), s, d, m, quiet), "no certificates of ours")
	wantError(t, machine.Upgrade(t.Context(), s, d, m, quiet), "upgraded there")
	r.fail = errFault
	o.Name = "web2"
	asked := r.dialed
	wantError(t, machine.Create(t.Context(), s, d, o), "on fire")
	if r.dialed != asked+1 {
		t.Errorf("an engine that is there or is not was asked %d times", r.dialed-asked)
	}
}

func TestPlainIsNotForDriversThatRunEngines(t *testing.T) {
	s, p := open(t), newProvider(t)
	o := options("web1")
	o.Plain = true
	wantError(t, machine.Create(t.Context(), s, p, o), "runs the engines of its hosts itself")
	if s.Exists("web1") {
		t.Error("the name is taken")
	}
}

func TestDriversWithoutAWayIn(t *testing.T) {
	s, p := open(t), newProvider(t)
	s.Provisioner = &reach{p: p}
	if err := machine.Create(t.Context(), s, noSSH{p}, options("web1")); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "web1")
	wantError(t, machine.Provision(t.Context(), s, noSSH{p}, m, quiet), "no SSH on its host")
	wantError(t, machine.Upgrade(t.Context(), s, p, m, quiet), "does not let berth upgrade")
}

// noSSH is a driver of hosts without any way in.
type noSSH struct{ p *provider }

func (d noSSH) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	return d.p.Create(ctx, spec)
}

func (d noSSH) State(context.Context, machine.Instance) (machine.State, error) {
	return machine.StateRunning, nil
}
func (d noSSH) Remove(ctx context.Context, i machine.Instance) error { return d.p.Remove(ctx, i) }

func TestTwoProvisioningsAtOnceDoNotMeet(t *testing.T) {
	s, r, d := distantStore(t)
	if err := machine.Create(t.Context(), s, d, options("web1")); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "web1")
	var second error
	r.p.answer = nil
	blocked := &blocking{reach: r, inside: func() { second = machine.Provision(t.Context(), s, d, mustLoad(t, s, "web1"), quiet) }}
	s.Provisioner = blocked
	if err := machine.Provision(t.Context(), s, d, m, quiet); err != nil {
		t.Fatal(err)
	}
	if _, busy := errors.AsType[*machine.BusyError](second); !busy {
		t.Errorf("the second = %v, want that another one is at it", second)
	}
}

// blocking does something in the midst of a provisioning.
type blocking struct {
	*reach
	inside func()
}

func (b *blocking) Provision(ctx context.Context, m *machine.Machine, e machine.EngineConfig, isNew bool) error {
	b.inside()
	return b.reach.Provision(ctx, m, e, isNew)
}

// on starts a host whose engine is no business of the machine's.
func (p *provider) on(t *testing.T, name string) {
	t.Helper()
	p.servers[name].Start()
}

// serve answers as an engine without TLS, as behind a socket.
func serve(t *testing.T, l net.Listener, p *provider) {
	t.Helper()
	s := &http.Server{Handler: http.HandlerFunc(p.serve)}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }() //nolint:errcheck // it ends with Close
	t.Cleanup(func() { s.Close(); <-done })       //nolint:errcheck // the end of the test
}
