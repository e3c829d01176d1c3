package machine_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/internal/machine"
)

// write puts a record into the store as another program would.
func write(t *testing.T, s *machine.Store, name, config string) {
	t.Helper()
	if err := os.MkdirAll(s.MachineDir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.MachineDir(name), "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

func fixture(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A record that docker-machine wrote comes back as it was, with what berth does not know at every level, and without a
// digit changed.
func TestUnknownFieldsSurvive(t *testing.T) {
	s := open(t)
	want := strings.ReplaceAll(fixture(t, "virtualbox.json"), "STORE", s.Dir())
	write(t, s, "web1", want)
	m := mustLoad(t, s, "web1")
	if got := m.URL(); got != "tcp://192.168.99.100:2376" {
		t.Errorf("url = %s", got)
	}
	if err := s.Save(m); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(s.MachineDir("web1"), "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(decode(t, want), decode(t, string(got))); diff != "" {
		t.Errorf("the record changed (-before +after):\n%s", diff)
	}
}

func decode(t *testing.T, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestReadingDoesNotWrite(t *testing.T) {
	s := open(t)
	old := strings.ReplaceAll(fixture(t, "v1.json"), "STORE", s.Dir())
	write(t, s, "old", old)
	m := mustLoad(t, s, "old")
	if m.Auth.CaPrivateKeyPath != s.Dir()+"/certs/ca-key.pem" || m.Auth.StorePath != s.MachineDir("old") {
		t.Errorf("version 1 read as %+v", m.Auth)
	}
	now, err := os.ReadFile(filepath.Join(s.MachineDir("old"), "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if string(now) != old {
		t.Error("reading rewrote the record")
	}
	entries, err := os.ReadDir(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("reading left %v in the store", entries)
	}
}

func TestBadRecords(t *testing.T) {
	for name, tt := range map[string]struct{ config, want string }{
		"nothing":        {"", "unexpected end of JSON input"},
		"cut off":        {`{"ConfigVersion":3,"Driv`, "unexpected end of JSON input"},
		"null":           {"null", "no ConfigVersion"},
		"another type":   {`[]`, "cannot unmarshal array"},
		"no version":     {`{"DriverName":"none"}`, "no ConfigVersion"},
		"the future":     {`{"ConfigVersion":4,"DriverName":"none"}`, "config version 4 is from the future"},
		"no driver":      {`{"ConfigVersion":3}`, "it names no driver"},
		"driver no text": {`{"ConfigVersion":3,"DriverName":7}`, "DriverName: json: cannot unmarshal number"},
		"driver a list":  {`{"ConfigVersion":3,"DriverName":"none","Driver":[1]}`, "Driver: json: cannot unmarshal array"},
		"odd options":    {`{"ConfigVersion":3,"DriverName":"none","HostOptions":{"EngineOptions":{"Labels":"a"}}}`, "EngineOptions: json: cannot unmarshal string"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			write(t, s, "web1", tt.config)
			_, err := s.Load("web1")
			wantError(t, err, "record of web1", tt.want)
		})
	}
}

func TestNullOptionsAreNone(t *testing.T) {
	s := open(t)
	write(t, s, "web1", `{"ConfigVersion":3,"DriverName":"none","Driver":null,"HostOptions":{"EngineOptions":null,"SwarmOptions":null,"AuthOptions":null}}`)
	m := mustLoad(t, s, "web1")
	if m.URL() != "" {
		t.Errorf("url = %q, want none", m.URL())
	}
	if err := s.Save(m); err != nil {
		t.Error(err)
	}
}

func TestNamesAreInNaturalOrder(t *testing.T) {
	s := open(t)
	if names, err := s.Names(); err != nil || len(names) != 0 {
		t.Errorf("names of no store = %q, %v", names, err)
	}
	for _, n := range []string{"host10", "Host3", "host2", "host1", ".hidden"} {
		write(t, s, n, "{}")
	}
	if err := os.WriteFile(filepath.Join(s.MachinesDir(), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	names, err := s.Names()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"host1", "host2", "Host3", "host10"}; !cmp.Equal(names, want) {
		t.Errorf("names = %q, want %q", names, want)
	}
}

func TestNoNameLeadsOutOfTheStore(t *testing.T) {
	s := open(t)
	if err := os.MkdirAll(filepath.Join(s.MachinesDir(), "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "../certs", "a/../a", "/", "/etc", "a/b", `a\b`, ".a", "a\x00"} {
		var missing *machine.NotExistError
		if _, err := s.Load(name); !errors.As(err, &missing) {
			t.Errorf("load %q = %v, want a NotExistError", name, err)
		}
		if err := machine.Forget(s, name); !errors.As(err, &missing) {
			t.Errorf("forget %q = %v, want a NotExistError", name, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	label := strings.Repeat("a", 63)
	for name, ok := range map[string]bool{
		"a": true, "host-1": true, "host.example.org": true, "9": true, "A-b.C": true, "con": true, "v1": true,
		label: true, label + "." + label: true,
		"": false, ".": false, "..": false, "-a": false, ".a": false, "a b": false, "a/b": false, "a;b": false, "$(id)": false,
		"a\n": false, "ä": false, "a_b": false, "`id`": false, "a\x00": false, label + "a": false,
		strings.Repeat("a.", 150): false, strings.Repeat("a", 300): false,
	} {
		if err := machine.CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v, want ok %v", name, err, ok)
		}
	}
}

func TestURL(t *testing.T) {
	for name, tt := range map[string]struct{ driver, want string }{
		"an address":        {`{"IPAddress":"10.0.0.1"}`, "tcp://10.0.0.1:2376"},
		"a port of its own": {`{"IPAddress":"10.0.0.1","EnginePort":2399}`, "tcp://10.0.0.1:2399"},
		"IPv6":              {`{"IPAddress":"2001:db8::1"}`, "tcp://[2001:db8::1]:2376"},
		"said by driver":    {`{"IPAddress":"10.0.0.1","URL":"unix:///x"}`, "unix:///x"},
		"unknown yet":       {`{"URL":""}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			write(t, s, "web1", `{"ConfigVersion":3,"DriverName":"x","Driver":`+tt.driver+`}`)
			if got := mustLoad(t, s, "web1").URL(); got != tt.want {
				t.Errorf("url = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestOneStoreHasOneID(t *testing.T) {
	s := open(t)
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			var err error
			if ids[i], err = s.ID(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || len(id) != 32 {
			t.Fatalf("ids = %q, want one of 32 digits", ids)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "berth-store-id"), []byte("../x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.ID(t.Context())
	wantError(t, err, "does not hold one")
}

// A save must not bring back what another berth removed.
func TestSaveDoesNotBringBackARemovedMachine(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	if err := machine.Forget(s, "web1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(m); err == nil || s.Exists("web1") {
		t.Errorf("save = %v, machine there: %v", err, s.Exists("web1"))
	}
}
