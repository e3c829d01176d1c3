package machine_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/internal/cert"
	"berth/internal/machine"
)

const day = 24 * time.Hour

// mustCreateElsewhere makes a machine whose engine nobody asks, so that time can be made to pass.
func mustCreateElsewhere(t *testing.T, s *machine.Store, name string) *machine.Machine {
	t.Helper()
	if err := machine.Create(t.Context(), s, &stranger{state: machine.StateStopped}, options(name)); err != nil {
		t.Fatal(err)
	}
	return mustLoad(t, s, name)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parseCert(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no PEM: %q", data)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheEndOfACertificateIsToldInTime(t *testing.T) {
	s := open(t)
	synctest.Test(t, func(t *testing.T) {
		m := mustCreateElsewhere(t, s, "web1")
		status := func() machine.Status {
			return machine.Ask(t.Context(), s, &stranger{state: machine.StateStopped}, m)
		}
		time.Sleep(1049 * day)
		if st := status(); st.Warning != nil || st.Err != nil {
			t.Errorf("31 days before: %v, %v, want no warning", st.Warning, st.Err)
		}
		time.Sleep(day + time.Hour)
		var expiry *machine.ExpiryError
		if err := status().Warning; !errors.As(err, &expiry) || !expiry.Client {
			t.Fatalf("30 days before: %v, want an ExpiryError", err)
		}
		wantError(t, status().Warning, "certificate authority expires in 29 days: regenerate-certs --client-certs web1")
		time.Sleep(29 * day)
		wantError(t, status().Warning, "certificate authority expires in less than a day")
		time.Sleep(day)
		wantError(t, status().Warning, "certificate authority expired on 2002-12-1")
	})
}

// The next create on a store whose authority is about to end renews it, and those that trust the old one go on.
func TestAnAuthorityIsRenewedBeforeItEnds(t *testing.T) {
	s := open(t)
	synctest.Test(t, func(t *testing.T) {
		old := mustCreateElsewhere(t, s, "old")
		before := parseCert(t, read(t, old.Auth.CaCertPath))
		time.Sleep(1060 * day)
		said := ""
		o := options("new")
		o.Progress = func(line string) { said += line + "\n" }
		if err := machine.Create(t.Context(), s, &stranger{}, o); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(said, "Renewing CA: "+old.Auth.CaCertPath) {
			t.Errorf("create said %q, and not that it renews the CA", said)
		}
		after := parseCert(t, read(t, old.Auth.CaCertPath))
		if !bytes.Equal(before.RawSubjectPublicKeyInfo, after.RawSubjectPublicKeyInfo) {
			t.Error("the authority has another key, which no machine trusts")
		}
		if left := time.Until(after.NotAfter); left < 1079*day {
			t.Errorf("it ends in %s", left)
		}
		if err := s.Expiring(mustLoad(t, s, "old")); err == nil {
			t.Error("the old machine's engine still has the old authority, and nobody says so")
		}
		if err := s.Expiring(mustLoad(t, s, "new")); err != nil {
			t.Errorf("a new machine has old certificates: %v", err)
		}
	})
}

// An expired authority is no dead end, and neither is one whose key is somewhere else.
func TestAnExpiredAuthority(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*machine.Machine) error
		want  string
	}{
		"of ours": {func(*machine.Machine) error { return nil }, ""},
		"whose key is not here": {
			func(m *machine.Machine) error { return os.Remove(m.Auth.CaPrivateKeyPath) },
			"create web2: create the client certificate: key of the certificate authority",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			synctest.Test(t, func(t *testing.T) {
				m := mustCreateElsewhere(t, s, "web1")
				if err := tt.spoil(m); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2000 * day)
				err := machine.Create(t.Context(), s, &stranger{}, options("web2"))
				if tt.want != "" {
					wantError(t, err, tt.want)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Expiring(mustLoad(t, s, "web2")); err != nil {
					t.Errorf("a new machine has old certificates: %v", err)
				}
			})
		})
	}
}

// A new client certificate is every machine's that has the old one, without any engine being restarted.
func TestANewClientCertificateIsForAllMachines(t *testing.T) {
	s, p := open(t), newProvider(t)
	m, other := mustCreate(t, s, p, "web1"), mustCreate(t, s, p, "web2")
	before := read(t, s.CertFiles(other).Cert)
	if err := machine.RenewClientCert(t.Context(), s, m, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(before, read(t, s.CertFiles(other).Cert)) {
		t.Error("web2 still has the old one")
	}
	for _, m := range []*machine.Machine{m, other} {
		if _, err := s.AskEngine(t.Context(), m); err != nil {
			t.Error(err)
		}
		if p.runs[m.Name] != 1 {
			t.Errorf("the engine of %s was started %d times, want once", m.Name, p.runs[m.Name])
		}
	}
}

// Keys are of the kind that was asked for, and stay so.
func TestKeys(t *testing.T) {
	s, p := open(t), newProvider(t)
	s.Keys = cert.RSA
	m := mustCreate(t, s, p, "web1")
	s.Keys = ""
	mustCreate(t, s, p, "web2") // as the authority has it
	if err := machine.RenewCerts(t.Context(), s, p, m, func(string) {}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{m.Auth.CaCertPath, m.Auth.ClientCertPath, m.Auth.ServerCertPath, mustLoad(t, s, "web2").Auth.ServerCertPath} {
		if got := cert.KeysOf(read(t, path)); got != cert.RSA {
			t.Errorf("%s has keys of kind %s, want rsa", path, got)
		}
	}
	s.Keys = cert.ECDSA
	if err := machine.RenewCerts(t.Context(), s, p, m, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if got := cert.KeysOf(read(t, m.Auth.ServerCertPath)); got != cert.ECDSA {
		t.Errorf("the engine's new keys are of kind %s, want ecdsa", got)
	}
	if _, err := s.AskEngine(t.Context(), m); err != nil {
		t.Error(err)
	}
}
