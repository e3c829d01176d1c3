package machine_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"berth/internal/machine"
)

// stranger is a driver whose Driver object is its own alone, and whose hosts move.
type stranger struct {
	fail  error // of Create, once the host is there
	state machine.State
	lost  error // of Locate
}

const strangersObject = `{"Zone":"b","Id":9007199254740993,"IPAddress":"","URL":"https://api.example.com"}`

func (d *stranger) Create(_ context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Raw: json.RawMessage(`{"Zone":"b"}`), Whole: true}
	if err := spec.Keep(i); err != nil {
		return i, err
	}
	i.Raw = json.RawMessage(strangersObject)
	i.URL, i.IPAddress, i.SSHHost, i.SSHPort = "tcp://192.0.2.1:2377", "192.0.2.1", "jump.example.com", 2222
	return i, d.fail
}

func (d *stranger) State(context.Context, machine.Instance) (machine.State, error) {
	return d.state, nil
}

func (d *stranger) Remove(context.Context, machine.Instance) error { return nil }

func (d *stranger) Locate(_ context.Context, i machine.Instance) (machine.Instance, machine.State, error) {
	if d.lost != nil {
		return i, d.state, d.lost
	}
	i.URL, i.IPAddress = "tcp://192.0.2.99:2377", "192.0.2.99"
	return i, d.state, nil
}

func TestADriversWholeObjectIsStoredAsItIs(t *testing.T) {
	for name, fail := range map[string]error{"after a create": nil, "after a create that failed": errFault} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			o := options("web1")
			o.Keep = true
			if err := machine.Create(t.Context(), s, &stranger{fail: fail}, o); !errors.Is(err, fail) {
				t.Fatalf("create = %v, want %v", err, fail)
			}
			m := mustLoad(t, s, "web1")
			if got := compact(t, m.Instance.Raw); got != strangersObject {
				t.Errorf("Driver object = %s, want %s", got, strangersObject)
			}
			i := m.Instance
			if !i.Whole || m.URL() != "tcp://192.0.2.1:2377" || i.IPAddress != "192.0.2.1" || i.SSHHost != "jump.example.com" || i.SSHPort != 2222 {
				t.Errorf("what machine knows beside it = %+v, url %s", i, m.URL())
			}
		})
	}
}

func compact(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	b, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A create that is killed in its midst leaves what the driver said before.
func TestKeepStoresInTheMidstOfACreate(t *testing.T) {
	s := open(t)
	seen := ""
	d := &watchful{onKept: func() { seen = compact(t, mustLoad(t, s, "web1").Instance.Raw) }}
	if err := machine.Create(t.Context(), s, d, options("web1")); err != nil {
		t.Fatal(err)
	}
	if want := `{"Zone":"b"}`; seen != want {
		t.Errorf("stored in the midst of create = %s, want %s", seen, want)
	}
}

// watchful looks into the store after Keep.
type watchful struct {
	stranger
	onKept func()
}

func (d *watchful) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	save := spec.Save
	spec.Save = func(i machine.Instance) error {
		err := save(i)
		d.onKept()
		return err
	}
	return d.stranger.Create(ctx, spec)
}

func TestARunningMachineIsLookedUpWhereItIsNow(t *testing.T) {
	s := open(t)
	d := &stranger{state: machine.StateRunning}
	if err := machine.Create(t.Context(), s, d, options("web1")); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, s, "web1")
	if err := machine.MustRun(t.Context(), s, d, m); err != nil {
		t.Fatal(err)
	}
	if got, want := m.URL(), "tcp://192.0.2.99:2377"; got != want {
		t.Errorf("url = %s, want %s", got, want)
	}
	if got, want := mustLoad(t, s, "web1").URL(), "tcp://192.0.2.1:2377"; got != want {
		t.Errorf("a look at it stored %s, want %s as before", got, want)
	}
}

func TestAMachineThatCannotBeLocatedHasItsState(t *testing.T) {
	s := open(t)
	d := &stranger{state: machine.StateRunning}
	if err := machine.Create(t.Context(), s, d, options("web1")); err != nil {
		t.Fatal(err)
	}
	d.lost = errFault
	st := machine.Ask(t.Context(), s, d, mustLoad(t, s, "web1"))
	if st.State != machine.StateRunning || !errors.Is(st.Err, errFault) {
		t.Errorf("status = %s %v, want Running and %v", st.State, st.Err, errFault)
	}
}

// docker-machine's exoscale keeps the address of its provider's API in a field URL.
func TestAnAPIsAddressIsNotTheEngines(t *testing.T) {
	m := &machine.Machine{Instance: machine.Instance{
		IPAddress: "192.0.2.7", Raw: json.RawMessage(`{"URL":"https://api.exoscale.com/compute"}`),
	}}
	if got, want := m.URL(), "tcp://192.0.2.7:2376"; got != want {
		t.Errorf("url = %s, want %s", got, want)
	}
}

func TestADriverObjectComesBackAsItWas(t *testing.T) {
	for _, object := range []string{
		`{"EnginePort":2377,"IPAddress":"192.0.2.1","Id":9007199254740993,"MachineName":"web1","SSHKeyPath":"/s/k","SSHPort":22,"SSHUser":"jo","StorePath":"/s","SwarmDiscovery":"token://1","SwarmHost":"tcp://0.0.0.0:3376","SwarmMaster":true}`,
		`{"IPAddress":"","MachineName":"web1","SSHKeyPath":"","SSHPort":0,"SSHUser":"","StorePath":"/s","SwarmDiscovery":"","SwarmHost":"","SwarmMaster":false}`,
	} {
		i, err := machine.DecodeDriver(json.RawMessage(object))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := i.Name+" "+i.Dir, "web1 /s/machines/web1"; got != want {
			t.Errorf("name and folder = %s, want %s", got, want)
		}
		got, err := machine.EncodeDriver(i)
		if err != nil || string(got) != object {
			t.Errorf("encoded again = %s %v, want %s", got, err, object)
		}
	}
}

func TestNoDriverObjectLeadsOutOfItsStore(t *testing.T) {
	for _, name := range []string{"..", "a/b", ".hidden", ""} {
		object, err := json.Marshal(map[string]string{"MachineName": name, "StorePath": "/s"})
		if err != nil {
			t.Fatal(err)
		}
		i, err := machine.DecodeDriver(object)
		if err != nil || i.Dir != "" {
			t.Errorf("folder of the machine %q = %q %v, want none", name, i.Dir, err)
		}
	}
}
