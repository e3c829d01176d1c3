package machine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"berth/internal/atomicfile"
	"berth/internal/cert"
)

// keysFor is the kind of keys for a new pair in place of the one at certPath: what was asked for, else as it was, else as the
// authority's.
func (s *Store) keysFor(certPath string, ca cert.Pair) cert.Keys {
	if s.Keys != "" {
		return s.Keys
	}
	old, err := os.ReadFile(certPath)
	if err != nil { // there is none yet
		return cert.KeysOf(ca.Cert)
	}
	return cmp.Or(cert.KeysOf(old), cert.KeysOf(ca.Cert))
}

// renewAuthority lets an authority live on that is about to end, under the key it has: nobody is cut off by that. One of which the key
// is not here, or that another one signed, is its owner's to renew.
func renewAuthority(a AuthOptions, progress func(string)) error {
	pem, err := os.ReadFile(a.CaCertPath)
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	end, err := cert.Expiry(pem)
	if err != nil {
		return fmt.Errorf("certificate authority %s: %w", a.CaCertPath, err)
	}
	key, err := os.ReadFile(a.CaPrivateKeyPath)
	if err != nil || time.Until(end) > renewBefore {
		return nil //nolint:nilerr // who needs the key says so
	}
	renewed, err := cert.Renew(cert.Pair{Cert: pem, Key: key})
	if err != nil {
		progress(fmt.Sprintf("The certificate authority ends on %s and cannot be renewed here: %v", end.Format(time.DateOnly), err))
		return nil
	}
	progress("Renewing CA: " + a.CaCertPath)
	if err := atomicfile.Write(a.CaCertPath, renewed.Cert, 0o644); err != nil {
		return fmt.Errorf("renew the certificate authority: %w", err)
	}
	return nil
}

// ExpiryError says that a certificate of a machine ends soon, or has ended.
type ExpiryError struct {
	Name   string // the machine's
	What   string // which certificate it is
	End    time.Time
	Client bool // it takes more than the engine's to be made anew
}

func (e *ExpiryError) Error() string {
	when := fmt.Sprintf("expired on %s", e.End.Format(time.DateOnly))
	if left := time.Until(e.End); left > 0 {
		when = fmt.Sprintf("expires in %s", days(left))
	}
	option := ""
	if e.Client {
		option = "--client-certs "
	}
	return fmt.Sprintf("%s %s: regenerate-certs %s%s", e.What, when, option, e.Name)
}

func days(d time.Duration) string {
	switch n := int(d.Hours() / 24); n {
	case 0:
		return "less than a day"
	case 1:
		return "1 day"
	default:
		return fmt.Sprintf("%d days", n)
	}
}

// Expiring is an ExpiryError for the certificate of the machine that ends first, if that is soon; nil if all last, or there are none.
func (s *Store) Expiring(m *Machine) error {
	if !m.UsesTLS() {
		return nil
	}
	files := s.clientFiles(m)
	var first *ExpiryError
	for _, c := range []struct {
		path, what string
		client     bool
	}{
		{files.CA, "certificate authority", true}, // first: the others end with it
		{files.Cert, "client certificate", true},
		{m.Auth.ServerCertPath, "engine's certificate", false},
	} {
		pem, err := os.ReadFile(c.path)
		if err != nil {
			continue // whoever needs it says so
		}
		end, err := cert.Expiry(pem)
		if err == nil && (first == nil || end.Before(first.End)) {
			first = &ExpiryError{m.Name, c.what, end, c.client}
		}
	}
	if first == nil || time.Until(first.End) > renewBefore {
		return nil
	}
	return first
}

// RenewClientCert replaces the client's certificate that m has, and gives it to all machines of the store that have the same: their
// engines trust the authority, whichever client it signs.
func RenewClientCert(ctx context.Context, s *Store, m *Machine, progress func(string)) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := renewAuthority(m.Auth, progress); err != nil {
		return err
	}
	progress("Creating client certificate: " + m.Auth.ClientCertPath)
	if err := s.newClientCert(m.Auth); err != nil {
		return err
	}
	names, err := s.Names()
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range names {
		if other, err := s.Load(name); err == nil && other.Auth.ClientCertPath == m.Auth.ClientCertPath {
			failed = append(failed, s.handClientCert(other))
		}
	}
	return errors.Join(failed...)
}

// handClientCert copies the client's pair into a machine's folder. The authority's copy there stays: it is what its engine has, too.
func (s *Store) handClientCert(m *Machine) error {
	to := s.CertFiles(m)
	old, err := os.ReadFile(to.Cert)
	if err != nil { // it has no copies, as docker-machine's driver none
		return nil //nolint:nilerr // see above
	}
	fresh, err := os.ReadFile(m.Auth.ClientCertPath)
	if err != nil || bytes.Equal(old, fresh) {
		return err
	}
	err = errors.Join(
		copyFile(m.Auth.ClientKeyPath, to.Key, 0o600),
		copyFile(m.Auth.ClientCertPath, to.Cert, 0o644),
	)
	if err != nil {
		return fmt.Errorf("certificates of %s: %w", m.Name, err)
	}
	return nil
}
