package machine_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/internal/machine"
)

// keeper is a provider whose hosts run services, too: a manager is the engine's own server by another port.
type keeper struct{ *provider }

func (keeper) RunsServices() {}

// inSwarm are options for a member of a Swarm.
func inSwarm(name string, change ...func(*machine.SwarmOptions)) machine.CreateOptions {
	o := options(name)
	o.Swarm = machine.SwarmOptions{IsSwarm: true, Agent: true, Discovery: "token://T", Host: "tcp://0.0.0.0:3376", Strategy: "spread"}
	for _, c := range change {
		c(&o.Swarm)
	}
	return o
}

func TestAMemberOfASwarmRunsAnAgent(t *testing.T) {
	s, p := open(t), newProvider(t)
	if err := machine.Create(t.Context(), s, keeper{p}, inSwarm("web1", func(o *machine.SwarmOptions) {
		o.ArbitraryJoinFlags = []string{"ttl=9s", "heartbeat=3s"}
	})); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "web1")
	want := []machine.Service{{
		Name: "agent", Env: []string{"SWARM_DISCOVERY=token://T"},
		Args: []string{"join", "--advertise", strings.TrimPrefix(m.URL(), "tcp://"), "--ttl=9s", "--heartbeat=3s"},
	}}
	if diff := cmp.Diff(want, p.config["web1"].Services); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if !m.Services || m.ManagerURL() != "" {
		t.Errorf("record: services %v, manager at %q, want services and no manager", m.Services, m.ManagerURL())
	}
	// They are asked for again whenever the engine is.
	if err := machine.RenewCerts(t.Context(), s, keeper{p}, m, quiet); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, p.config["web1"].Services); diff != "" {
		t.Errorf("services with new certificates (-want +got):\n%s", diff)
	}
}

// freePort is a port that nobody listens on just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestAManagerRunsAndIsAsked(t *testing.T) {
	s, p := open(t), newProvider(t)
	port := freePort(t)
	p.manager = "127.0.0.1:" + port
	if err := machine.Create(t.Context(), s, keeper{p}, inSwarm("m", func(o *machine.SwarmOptions) {
		o.Master, o.Agent, o.Host = true, false, "tcp://0.0.0.0:"+port
		o.ArbitraryFlags = []string{"cluster-opt=swarm.overcommit=0.1"}
	})); err != nil {
		t.Fatal(err)
	}
	all := p.config["m"].Services
	if len(all) != 1 {
		t.Fatalf("services = %+v, want the manager alone", all)
	}
	want := "serve --no-context -H tcp://0.0.0.0:" + port + " --tlsverify --tlscacert=/etc/docker/ca.pem --tlscert=/etc/docker/server.pem " +
		"--tlskey=/etc/docker/server-key.pem --strategy spread --cluster-opt=swarm.overcommit=0.1"
	if got := strings.Join(all[0].Args, " "); got != want {
		t.Errorf("manager = %s, want %s", got, want)
	}
	m := mustLoad(t, s, "m")
	if got, want := m.ManagerURL(), "tcp://127.0.0.1:"+port; got != want {
		t.Errorf("manager's URL = %s, want %s", got, want)
	}
	if e, err := s.AskManager(t.Context(), m); err != nil || e.Version != "29.1.2" {
		t.Errorf("the manager answers %+v, %v", e, err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if !hasUsage(t, m.Auth.ServerCertPath, usage) {
			t.Errorf("its certificate is not for usage %v", usage)
		}
	}
}

// A manager whose certificate was made by who did not know of managers gets another.
func TestACertificateThatIsNoClientsIsUnfitForAManager(t *testing.T) {
	s, r, d := distantStore(t)
	if err := machine.Create(t.Context(), s, d, options("m")); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "m")
	if hasUsage(t, m.Auth.ServerCertPath, x509.ExtKeyUsageClientAuth) {
		t.Fatal("an engine alone got a client's certificate")
	}
	if err := machine.Provision(t.Context(), s, d, m, quiet); err != nil {
		t.Fatal(err)
	}
	if r.serial[0] != r.serial[1] {
		t.Error("a certificate that fits was replaced")
	}
	m.Swarm.Master = true
	if err := machine.Provision(t.Context(), s, d, m, quiet); err != nil {
		t.Fatal(err)
	}
	if !hasUsage(t, m.Auth.ServerCertPath, x509.ExtKeyUsageClientAuth) {
		t.Error("the manager's certificate is none that a client may show")
	}
}

func hasUsage(t *testing.T, path string, usage x509.ExtKeyUsage) bool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range c.ExtKeyUsage {
		if u == usage {
			return true
		}
	}
	return false
}

func TestWhatIsAdvertised(t *testing.T) {
	master := func(o *machine.SwarmOptions) { o.Master = true }
	for name, tt := range map[string]struct {
		change func(*machine.SwarmOptions)
		want   []string
	}{
		"an address": {func(o *machine.SwarmOptions) { o.Address = "10.9.9.9" }, []string{"join --advertise 10.9.9.9:2376"}},
		"an address with a port": {
			func(o *machine.SwarmOptions) { o.Address = "web.example:1" }, []string{"join --advertise web.example:1"},
		},
		"IPv6": {func(o *machine.SwarmOptions) { o.Address = "fd00::1" }, []string{"join --advertise [fd00::1]:2376"}},
		"a manager that is one of several": {func(o *machine.SwarmOptions) {
			master(o)
			o.Address, o.Host, o.ArbitraryFlags = "10.9.9.9:7", "0.0.0.0:4000", []string{"replication"}
		}, []string{"join --advertise 10.9.9.9:7", " --advertise 10.9.9.9:4000 --replication"}},
		"one that says so itself": {func(o *machine.SwarmOptions) {
			master(o)
			o.Address, o.ArbitraryFlags = "10.9.9.9", []string{"replication=true", "advertise=a:1"}
		}, []string{"join --advertise 10.9.9.9:2376", "--strategy spread --replication=true --advertise=a:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := open(t), newProvider(t)
			o := inSwarm("m", tt.change)
			var got []string
			enough := errors.New("seen enough")
			o.CheckService = func(s machine.Service) error {
				got = append(got, strings.Join(s.Args, " "))
				if len(got) == len(tt.want) {
					return enough
				}
				return nil
			}
			if err := machine.Create(t.Context(), s, keeper{p}, o); !errors.Is(err, enough) {
				t.Fatalf("create = %v", err)
			}
			for i, want := range tt.want {
				if !strings.HasSuffix(got[i], want) {
					t.Errorf("arguments = %q, want %q at the end", got[i], want)
				}
			}
		})
	}
}

// What could never run is refused before there is a host.
func TestSwarmsThatCannotBe(t *testing.T) {
	for name, tt := range map[string]struct {
		driver func(*provider) machine.Driver
		change func(*machine.CreateOptions)
		want   string
	}{
		"nowhere to meet":       {nil, func(o *machine.CreateOptions) { o.Swarm.Discovery = "" }, "--swarm-discovery"},
		"a unix socket":         {nil, func(o *machine.CreateOptions) { o.Swarm.Host = "unix:///x" }, "--swarm-host unix:///x: want tcp://ADDRESS:PORT"},
		"no port":               {nil, func(o *machine.CreateOptions) { o.Swarm.Host = "tcp://0.0.0.0" }, "want tcp://ADDRESS:PORT"},
		"port of no number":     {nil, func(o *machine.CreateOptions) { o.Swarm.Host = "tcp://0.0.0.0:0" }, "want tcp://ADDRESS:PORT"},
		"dashes":                {nil, func(o *machine.CreateOptions) { o.Swarm.ArbitraryFlags = []string{"--ttl=1"} }, `"--ttl=1": want NAME=VALUE`},
		"two lines":             {nil, func(o *machine.CreateOptions) { o.Swarm.ArbitraryJoinFlags = []string{"a=b\nc"} }, "control characters"},
		"a host left as it is":  {distantDriver, func(o *machine.CreateOptions) { o.Plain = true }, "--no-install changes nothing there"},
		"a driver that cannot":  {func(p *provider) machine.Driver { return p }, func(*machine.CreateOptions) {}, "driver fake runs the engines of its hosts itself"},
		"arguments of no sense": {nil, func(o *machine.CreateOptions) { o.CheckService = func(machine.Service) error { return errFault } }, "the Swarm's agent: the provider is on fire"},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := open(t), newProvider(t)
			o := inSwarm("web1")
			tt.change(&o)
			var d machine.Driver = keeper{p}
			if tt.driver != nil {
				d = tt.driver(p)
			}
			wantError(t, machine.Create(t.Context(), s, d, o), "create web1: ", tt.want)
			if s.Exists("web1") || p.made() > 0 {
				t.Error("something was made")
			}
		})
	}
}

func distantDriver(p *provider) machine.Driver { return distant{p} }

// docker-machine's driver none, and hosts without a way in: there is nothing to run an agent on, as ever.
func TestWhereNothingCanRunASwarmIsOnlyNoted(t *testing.T) {
	s, p := open(t), newProvider(t)
	o := inSwarm("web1", func(o *machine.SwarmOptions) { o.Discovery, o.Master = "", true })
	o.DriverName = "none"
	if err := machine.Create(t.Context(), s, noSSH{p}, o); err != nil {
		t.Fatal(err)
	}
	if m := mustLoad(t, s, "web1"); m.Services || !m.Swarm.IsSwarm || !m.Swarm.Master {
		t.Errorf("record = services %v, %+v, want the options alone", m.Services, m.Swarm)
	}
}
