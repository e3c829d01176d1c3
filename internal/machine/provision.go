package machine

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"berth/internal/cert"
)

// Provisioner reaches into hosts over SSH. machine knows no network but an engine's, so somebody else must.
type Provisioner interface {
	// Provision waits until the host lets us in, installs an engine where there is none and starts it anew if anything changed.
	// On a host that is not new it does not wait for what would only be there soon on a new one. Repeatable.
	Provision(ctx context.Context, m *Machine, e EngineConfig, isNew bool) error
	// Upgrade brings the engine to the newest version that the host's packages have, and then does what Provision does.
	Upgrade(ctx context.Context, m *Machine, e EngineConfig) error
	// DialEngine connects to the engine's socket on the host.
	DialEngine(ctx context.Context, m *Machine) (net.Conn, error)
}

// The steps of a create that Provision can do again.
const (
	stepProvision = "provision the host"
	stepEngine    = "start the engine"
)

// provisioned is an EngineRunner that runs engines through a Provisioner.
type provisioned struct {
	Provisioner
	machine *Machine
	isNew   bool
}

// RunsServices implements ServiceRunner.
func (p provisioned) RunsServices() {}

func (p provisioned) RunEngine(ctx context.Context, _ Instance, e EngineConfig) error {
	return p.Provision(ctx, p.machine, e, p.isNew)
}

// upgraded is provisioned, with an upgrade first.
type upgraded struct{ provisioned }

func (u upgraded) RunEngine(ctx context.Context, _ Instance, e EngineConfig) error {
	return u.Upgrade(ctx, u.machine, e)
}

// runner is how the machine's engine is run; nil if that is not up to us.
func (s *Store) runner(drv Driver, m *Machine) EngineRunner {
	if own, ok := drv.(EngineRunner); ok {
		return own
	}
	if s.Provisioner == nil || m.Plain || !m.hasSSH() || slices.Contains(withoutProvisioning, m.DriverName) {
		return nil
	}
	_, borrowed := drv.(Borrower)
	return provisioned{s.Provisioner, m, m.Unfinished != "" && !borrowed}
}

// withoutProvisioning are drivers of docker-machine's at which its create ends once the host is there. The second is for its tests.
var withoutProvisioning = []string{"none", "ci-test"}

// hasSSH tells whether the driver knows of an SSH on its host.
func (m *Machine) hasSSH() bool {
	i := m.Instance
	return (i.IPAddress != "" || i.SSHHost != "") && (i.SSHUser != "" || i.SSHPort != 0 || i.SSHKeyPath != "")
}

// sshURL is the address of the engine's socket on the host, as Docker's clients take it.
func sshURL(i Instance) string {
	host := i.SSHHost
	if host == "" {
		host = i.IPAddress
	}
	if host == "" {
		return ""
	}
	u := url.URL{Scheme: "ssh", Host: host}
	switch {
	case i.SSHPort != 0 && i.SSHPort != 22:
		u.Host = net.JoinHostPort(host, strconv.Itoa(i.SSHPort))
	case net.ParseIP(host) != nil && net.ParseIP(host).To4() == nil:
		u.Host = "[" + host + "]"
	}
	if i.SSHUser != "" {
		u.User = url.User(i.SSHUser)
	}
	return u.String()
}

// Provision brings the machine's engine to what its record says, and finishes a create that stopped on the way there. On a machine
// that is as it should be, nothing changes.
func Provision(ctx context.Context, s *Store, drv Driver, m *Machine, progress func(string)) error {
	return s.again(ctx, drv, m, false, progress)
}

// Upgrade brings the machine's engine to the newest version that its host's packages have.
func Upgrade(ctx context.Context, s *Store, drv Driver, m *Machine, progress func(string)) error {
	return s.again(ctx, drv, m, true, progress)
}

func (s *Store) again(ctx context.Context, drv Driver, m *Machine, upgrade bool, progress func(string)) error {
	release, err := s.claim(m.Name)
	if err != nil {
		return err
	}
	defer release()
	runner, err := s.runnerAgain(ctx, drv, m, upgrade)
	if err != nil {
		return err
	}
	if runner != nil {
		if err := s.ensureAuthority(ctx, m.Auth, progress); err != nil {
			return err
		}
		if err := s.giveClientCerts(m); err != nil {
			return err
		}
	}
	if err := s.engineUp(ctx, runner, m, false, progress); err != nil {
		return s.stillUnfinished(m, err)
	}
	if m.Unfinished != "" {
		progress("Docker is up and running!")
	}
	m.Unfinished, m.Problem = "", ""
	return s.Save(m)
}

// runnerAgain is how to run the engine of a machine that there is.
func (s *Store) runnerAgain(ctx context.Context, drv Driver, m *Machine, upgrade bool) (EngineRunner, error) {
	if m.Unfinished != "" && m.Unfinished != stepProvision && m.Unfinished != stepEngine {
		return nil, fmt.Errorf("machine %q: create stopped at the step %q, before there was a host to go on with: remove it and create it again", m.Name, m.Unfinished)
	}
	runner := s.runner(drv, m)
	over, isProvisioned := runner.(provisioned)
	switch {
	case upgrade && isProvisioned:
		runner = upgraded{over}
	case upgrade:
		return nil, &NoUpgradeError{m.Name, m.DriverName, m.Plain}
	case runner == nil && !m.Plain:
		return nil, fmt.Errorf("machine %q: driver %s knows of no SSH on its host, so that there is no way in to provision it", m.Name, m.DriverName)
	}
	if m.Unfinished != "" {
		return runner, nil
	}
	return runner, MustRun(ctx, s, drv, m)
}

// NoUpgradeError says that the engine's version is not up to us.
type NoUpgradeError struct {
	Name, DriverName string
	Plain            bool
}

func (e *NoUpgradeError) Error() string {
	if e.Plain {
		return fmt.Sprintf("machine %q: its host is used as it is, so that its engine is upgraded there", e.Name)
	}
	return fmt.Sprintf("machine %q: driver %s does not let berth upgrade its engine", e.Name, e.DriverName)
}

// stillUnfinished notes why a machine that was never finished is not yet.
func (s *Store) stillUnfinished(m *Machine, cause error) error {
	err := fmt.Errorf("provision %s: %w", m.Name, cause)
	if m.Unfinished == "" {
		return err
	}
	m.Problem = cause.Error()
	return &UnfinishedError{m.Name, errors.Join(err, s.Save(m)), true}
}

// renewBefore is how long before its end a certificate is replaced when the engine is set up anyway.
const renewBefore = 30 * 24 * time.Hour

// serverCertUnfit is why the engine cannot go on with the certificate that the machine has; nil if it can.
func (s *Store) serverCertUnfit(m *Machine) error {
	server, err := readCertificate(m.Auth.ServerCertPath)
	if err != nil {
		return err
	}
	if !exists(m.Auth.ServerKeyPath) {
		return errors.New("its key is missing")
	}
	ca, err := readCertificate(m.Auth.CaCertPath)
	if err != nil {
		return err
	}
	if m.Swarm.Master && !slices.Contains(server.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return errors.New("engines would not take it for a client's")
	}
	if err := server.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("another authority signed it: %w", err)
	}
	if time.Until(server.NotAfter) < renewBefore && exists(m.Auth.CaPrivateKeyPath) {
		return errors.New("it is about to expire")
	}
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Raw})
	names := s.serverNames(m)
	if !exists(m.Auth.CaPrivateKeyPath) { // no other can be had: it must do, as long as it does for the address
		names = []string{m.Host()}
	}
	for _, host := range names {
		if err := cert.Covers(raw, host); err != nil {
			return err
		}
	}
	return nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}
