package machine

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"berth/internal/atomicfile"
	"berth/internal/cert"
)

// CertFiles are the three files a Docker client needs.
type CertFiles struct{ CA, Cert, Key string }

// centralAuth fills in where the authority and the client's certificate are.
func (s *Store) centralAuth(a AuthOptions) AuthOptions {
	dir := s.CertDir()
	a.CertDir = dir
	a.CaCertPath = cmp.Or(a.CaCertPath, filepath.Join(dir, "ca.pem"))
	a.CaPrivateKeyPath = cmp.Or(a.CaPrivateKeyPath, filepath.Join(dir, "ca-key.pem"))
	a.ClientCertPath = cmp.Or(a.ClientCertPath, filepath.Join(dir, "cert.pem"))
	a.ClientKeyPath = cmp.Or(a.ClientKeyPath, filepath.Join(dir, "key.pem"))
	return a
}

// ensureAuthority makes the authority and the client's certificate where they are missing. Creates that run in parallel on a fresh
// store must not make two: machines of the first would not trust clients of the second.
func (s *Store) ensureAuthority(ctx context.Context, a AuthOptions, progress func(string)) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	isNew := !exists(a.CaCertPath)
	if isNew {
		progress("Creating CA: " + a.CaCertPath)
		ca, err := s.Keys.NewAuthority(user())
		if err != nil {
			return fmt.Errorf("create the certificate authority: %w", err)
		}
		if err := writePair(ca, a.CaCertPath, a.CaPrivateKeyPath); err != nil {
			return fmt.Errorf("create the certificate authority: %w", err)
		}
	}
	if err := renewAuthority(a, progress); err != nil {
		return err
	}
	switch {
	case isNew: // whose machines would not know a client of another's
	case !exists(a.ClientCertPath) || !exists(a.ClientKeyPath) || ends(a.ClientCertPath, 0):
	case ends(a.ClientCertPath, renewBefore) && exists(a.CaPrivateKeyPath):
	default:
		return nil
	}
	progress("Creating client certificate: " + a.ClientCertPath)
	return s.newClientCert(a)
}

func (s *Store) newClientCert(a AuthOptions) error {
	ca, err := readAuthority(a)
	if err != nil {
		return fmt.Errorf("create the client certificate: %w", err)
	}
	client, err := s.keysFor(a.ClientCertPath, ca).NewClient(ca, user()+".<bootstrap>")
	if err != nil {
		return fmt.Errorf("create the client certificate: %w", err)
	}
	if err := writePair(client, a.ClientCertPath, a.ClientKeyPath); err != nil {
		return fmt.Errorf("create the client certificate: %w", err)
	}
	return nil
}

// readAuthority reads the authority to sign with. One that has run out and could not be renewed is not replaced unasked: that would cut
// off all machines.
func readAuthority(a AuthOptions) (cert.Pair, error) {
	pem, err := os.ReadFile(a.CaCertPath)
	if err != nil {
		return cert.Pair{}, fmt.Errorf("certificate authority: %w", err)
	}
	key, err := os.ReadFile(a.CaPrivateKeyPath)
	if errors.Is(err, fs.ErrNotExist) {
		return cert.Pair{}, fmt.Errorf("key of the certificate authority: %s is not here: certificates are renewed on the computer that has it, or after an import of what was exported with --with-ca-key", a.CaPrivateKeyPath)
	}
	if err != nil {
		return cert.Pair{}, fmt.Errorf("key of the certificate authority: %w", err)
	}
	end, err := cert.Expiry(pem)
	if err != nil {
		return cert.Pair{}, fmt.Errorf("certificate authority %s: %w", a.CaCertPath, err)
	}
	if time.Now().After(end) {
		return cert.Pair{}, fmt.Errorf("certificate authority %s expired on %s: move it away to have a new one made, which the machines there are will not trust until their certificates are regenerated",
			a.CaCertPath, end.Format(time.DateOnly))
	}
	return cert.Pair{Cert: pem, Key: key}, nil
}

// writePair writes the key first: a certificate that is there has its key.
func writePair(p cert.Pair, certPath, keyPath string) error {
	for _, dir := range []string{filepath.Dir(certPath), filepath.Dir(keyPath)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(keyPath, p.Key, 0o600); err != nil {
		return err
	}
	return atomicfile.Write(certPath, p.Cert, 0o644)
}

// giveClientCerts copies the authority and the client's pair into the machine's folder, which is its DOCKER_CERT_PATH.
func (s *Store) giveClientCerts(m *Machine) error {
	to := s.CertFiles(m)
	err := errors.Join(
		copyFile(m.Auth.CaCertPath, to.CA, 0o644),
		copyFile(m.Auth.ClientCertPath, to.Cert, 0o644),
		copyFile(m.Auth.ClientKeyPath, to.Key, 0o600),
	)
	if err != nil {
		return fmt.Errorf("certificates of %s: %w", m.Name, err)
	}
	return nil
}

// giveServerCert makes the engine's pair, for every name and address a client may know it by.
func (s *Store) giveServerCert(m *Machine) error {
	ca, err := readAuthority(m.Auth)
	if err != nil {
		return fmt.Errorf("server certificate of %s: %w", m.Name, err)
	}
	keys := s.keysFor(m.Auth.ServerCertPath, ca)
	issue := keys.NewServer
	if m.Swarm.Master { // whose manager is the other engines' client
		issue = keys.NewManager
	}
	pair, err := issue(ca, user()+"."+m.Name, s.serverNames(m))
	if err != nil {
		return fmt.Errorf("server certificate of %s: %w", m.Name, err)
	}
	if err := writePair(pair, m.Auth.ServerCertPath, m.Auth.ServerKeyPath); err != nil {
		return fmt.Errorf("server certificate of %s: %w", m.Name, err)
	}
	return nil
}

// serverNames are the names and addresses a client may know the engine by.
func (s *Store) serverNames(m *Machine) []string {
	return append([]string{m.Host(), "localhost", "127.0.0.1", "::1", m.Name}, m.Auth.ServerCertSANs...)
}

// CertFiles are the client's files for this machine. They are looked for in the machine's folder wherever the record says it is:
// a store that was moved still works.
func (s *Store) CertFiles(m *Machine) CertFiles {
	dir := s.MachineDir(m.Name)
	return CertFiles{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// ClientTLS is the configuration of a client of this machine's engine; nil for an engine that is not reached over TLS.
func (s *Store) ClientTLS(m *Machine) (*tls.Config, error) {
	if !m.UsesTLS() {
		return nil, nil //nolint:nilnil // no TLS is an answer
	}
	files := s.clientFiles(m)
	ca, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, fmt.Errorf("certificates of %s: %w", m.Name, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("certificates of %s: %s holds no certificate", m.Name, files.CA)
	}
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, fmt.Errorf("certificates of %s: %w", m.Name, err)
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// clientFiles are CertFiles, or where docker-machine has them for its driver none, of which it makes no copies.
func (s *Store) clientFiles(m *Machine) CertFiles {
	files := s.CertFiles(m)
	if !exists(files.Cert) {
		return CertFiles{m.Auth.CaCertPath, m.Auth.ClientCertPath, m.Auth.ClientKeyPath}
	}
	return files
}

// ReadClientFiles are the client's certificates for this machine, in PEM.
func (s *Store) ReadClientFiles(m *Machine) (ca, crt, key []byte, err error) {
	files := s.clientFiles(m)
	for _, f := range []struct {
		path string
		data *[]byte
	}{{files.CA, &ca}, {files.Cert, &crt}, {files.Key, &key}} {
		if *f.data, err = os.ReadFile(f.path); err != nil {
			return nil, nil, nil, fmt.Errorf("certificates of %s: %w", m.Name, err)
		}
	}
	return ca, crt, key, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// ends tells whether the certificate in path has run out in a while, or cannot be read.
func ends(path string, in time.Duration) bool {
	pem, err := os.ReadFile(path)
	if err != nil {
		return true
	}
	end, err := cert.Expiry(pem)
	return err != nil || time.Until(end) < in
}

// user is the organisation that certificates are made out to.
func user() string { return cmp.Or(os.Getenv("USER"), os.Getenv("USERNAME"), "unknown") }
