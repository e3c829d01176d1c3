package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"
)

// How long things may take that nobody waits for gladly.
const (
	undoTime   = 2 * time.Minute  // taking back a create, after its context has ended
	engineTime = 60 * time.Second // an engine that was just started, until it answers
)

// CreateOptions say what to make.
type CreateOptions struct {
	Name       string
	DriverName string         // for the record
	Values     map[string]any // the driver's flags
	Engine     EngineOptions
	Swarm      SwarmOptions
	Auth       AuthOptions   // paths that are not where they usually are; SANs
	Keep       bool          // leave what a failed create made
	Plain      bool          // change nothing on the host: its engine is used as it is, through SSH
	TTL        time.Duration // how long the machine is to be there; 0 is for good
	IdleStop   time.Duration // how long its engine may have nothing to run; 0 is for good
	// CheckService refuses arguments of a service that it would not start with. nil takes all.
	CheckService func(Service) error
	Progress     func(line string)
	// Bar is told how far a step has come that moves many bytes. It may be nil.
	Bar func(what string, done, total int64)
}

// PreCheckError is a driver's refusal: nothing was made or stored.
type PreCheckError struct{ Err error }

func (e *PreCheckError) Error() string {
	return "Error with pre-create check: \"" + e.Err.Error() + "\""
}
func (e *PreCheckError) Unwrap() error { return e.Err }

// UnfinishedError is a create that failed and whose machine is still in the store.
type UnfinishedError struct {
	Name   string
	Err    error
	Resume bool // Provision can finish it
}

func (e *UnfinishedError) Error() string { return e.Err.Error() }
func (e *UnfinishedError) Unwrap() error { return e.Err }

// Create makes a machine, from the check of its name to an engine that answers over TLS. The record is written before
// anything else is made, so that whatever stops it, the machine can be seen and removed. What fails is undone, unless
// o.Keep or the undoing fails too.
func Create(ctx context.Context, s *Store, drv Driver, o CreateOptions) error {
	if err := s.CheckNew(o.Name); err != nil {
		return err
	}
	if err := checkLabels(o.Engine.Labels); err != nil {
		return err
	}
	if _, ok := drv.(Power); !ok && o.IdleStop > 0 {
		return fmt.Errorf("create %s: driver %s cannot stop a host, also not one that is idle", o.Name, o.DriverName)
	}
	if _, runs := drv.(EngineRunner); runs && o.Plain {
		return fmt.Errorf("create %s: driver %s runs the engines of its hosts itself, so that there is nothing to leave as it is", o.Name, o.DriverName)
	}
	if err := checkSwarm(drv, o); err != nil {
		return fmt.Errorf("create %s: %w", o.Name, err)
	}
	id, err := s.ID(ctx)
	if err != nil {
		return err
	}
	spec := Spec{Name: o.Name, Dir: s.MachineDir(o.Name), StoreID: id, Values: o.Values, CacheDir: s.CacheDir(), Progress: o.Progress, ShowBar: o.Bar}
	if checker, ok := drv.(PreChecker); ok {
		o.Progress("Running pre-create checks...")
		if err := checker.PreCreateCheck(ctx, spec); err != nil {
			return &PreCheckError{err}
		}
	}
	if err := s.reserve(o.Name); err != nil {
		return err
	}
	release, err := s.claim(o.Name)
	if err != nil {
		return errors.Join(err, s.forget(o.Name))
	}
	defer release()
	m := s.draft(o)
	err = s.build(ctx, drv, m, spec)
	if err == nil {
		return nil
	}
	return s.undo(ctx, drv, m, o, err)
}

// build is the recipe. Each step is saved before the next begins.
func (s *Store) build(ctx context.Context, drv Driver, m *Machine, spec Spec) error {
	if err := s.step(m, "create the certificate authority"); err != nil {
		return err
	}
	if err := s.ensureAuthority(ctx, m.Auth, spec.Progress); err != nil {
		return err
	}
	if err := s.giveClientCerts(m); err != nil {
		return err
	}
	if err := s.step(m, "create the host"); err != nil {
		return err
	}
	spec.Progress("Creating machine...")
	spec.Save = func(i Instance) error {
		m.setInstance(i)
		return s.Save(m)
	}
	made, err := drv.Create(ctx, spec)
	m.setInstance(made)
	if err := errors.Join(err, s.Save(m)); err != nil {
		return err
	}
	if err := s.bringEngine(ctx, drv, m, spec.Progress); err != nil {
		return err
	}
	m.Unfinished, m.Problem = "", ""
	return s.Save(m)
}

// bringEngine has the new host's engine running and answering, in the way that fits the host.
func (s *Store) bringEngine(ctx context.Context, drv Driver, m *Machine, progress func(string)) error {
	runner := s.runner(drv, m)
	_, own := drv.(EngineRunner)
	m.Services = m.Swarm.IsSwarm && runner != nil
	switch {
	case runner == nil && !m.Plain:
		return nil // an engine that is no business of ours
	case m.Plain && !m.hasSSH():
		return fmt.Errorf("driver %s knows of no SSH on its host, through which its engine could be used as it is", m.DriverName)
	case own:
		if err := s.step(m, stepEngine); err != nil {
			return err
		}
	default:
		if err := s.step(m, stepProvision); err != nil {
			return err
		}
	}
	if err := s.engineUp(ctx, runner, m, false, progress); err != nil {
		return err
	}
	progress("Docker is up and running!")
	return nil
}

// CheckNew tells whether a machine of that name could be created.
func (s *Store) CheckNew(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if s.Exists(name) {
		return &ExistsError{name}
	}
	return nil
}

// checkLabels refuses what the engine would only refuse once the host is there.
func checkLabels(labels []string) error {
	for _, l := range labels {
		if key, _, ok := strings.Cut(l, "="); !ok || key == "" {
			return fmt.Errorf("engine label %q: want key=value", l)
		}
	}
	return nil
}

// draft is the record of a machine of which nothing is there yet.
func (s *Store) draft(o CreateOptions) *Machine {
	dir := s.MachineDir(o.Name)
	m := &Machine{Name: o.Name, DriverName: o.DriverName, Engine: o.Engine, Swarm: o.Swarm, Plain: o.Plain, doc: object{}}
	m.Life = newLifetime(o.TTL, o.IdleStop)
	m.Instance = Instance{Name: o.Name, Dir: dir}
	m.Engine.TlsVerify = true
	m.Auth = s.centralAuth(o.Auth)
	m.Auth.ServerCertPath = filepath.Join(dir, "server.pem")
	m.Auth.ServerKeyPath = filepath.Join(dir, "server-key.pem")
	m.Auth.StorePath = dir
	return m
}

func (s *Store) step(m *Machine, name string) error {
	m.Unfinished = name
	return s.Save(m)
}

// setInstance takes over what a driver knows, with the fields that are machine's own.
func (m *Machine) setInstance(i Instance) {
	i.Name, i.Dir = m.Instance.Name, m.Instance.Dir
	if m.Plain {
		i.URL = sshURL(i)
	}
	m.Instance = i
}

// engineUp has the engine run as the record says, and asks it. Without a runner it is asked as it is.
func (s *Store) engineUp(ctx context.Context, runner EngineRunner, m *Machine, renew bool, progress func(string)) error {
	if runner == nil {
		progress("Checking connection to Docker...")
		_, err := s.AskEngine(ctx, m) // once: it is there, or it is not
		return err
	}
	return s.runEngine(ctx, runner, m, renew, progress)
}

// runEngine gives the engine a certificate for its address, starts it with it and asks it over TLS. A certificate that is there and
// fits is kept, unless renew says otherwise.
func (s *Store) runEngine(ctx context.Context, runner EngineRunner, m *Machine, renew bool, progress func(string)) error {
	if renew || s.serverCertUnfit(m) != nil {
		progress("Creating the server certificate...")
		if err := s.giveServerCert(m); err != nil {
			return err
		}
	}
	_, isProvisioned := runner.(provisioned)
	_, isUpgraded := runner.(upgraded)
	overSSH := isProvisioned || isUpgraded
	if !overSSH { // that has more to say
		progress("Starting the engine...")
	}
	err := runner.RunEngine(ctx, m.Instance, EngineConfig{
		Options: m.Engine,
		CACert:  filepath.Join(m.Instance.Dir, "ca.pem"), ServerCert: m.Auth.ServerCertPath, ServerKey: m.Auth.ServerKeyPath,
		ExtraLabels: []string{"provider=" + m.DriverName},
		Services:    m.services(),
		Progress:    progress,
	})
	if err != nil {
		return err
	}
	progress("Checking connection to Docker...")
	if err := s.waitEngine(ctx, m); err != nil {
		return between(err, overSSH, "engine", m.URL())
	}
	if !m.Services || !m.Swarm.Master {
		return nil
	}
	progress("Checking connection to the Swarm's manager...")
	return between(s.waitManager(ctx, m), overSSH, "manager", m.ManagerURL())
}

// between says where to look for the trouble with something that runs on its host and cannot be reached from here.
func between(err error, overSSH bool, what, url string) error {
	if err == nil || !overSSH || !outOfReach(err) {
		return err
	}
	return fmt.Errorf("%w\nOn the host the %s answers. What lets nobody through to %s is in between: a security group, a firewall, an address that is not the host's",
		err, what, strings.TrimPrefix(url, "tcp://"))
}

// outOfReach tells whether no connection came about, rather than one that went wrong.
func outOfReach(err error) bool {
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial" || errors.Is(err, context.DeadlineExceeded)
}

// undo takes back a create that stopped with cause. ctx may be what stopped it, so undoing has time of its own.
func (s *Store) undo(ctx context.Context, drv Driver, m *Machine, o CreateOptions, cause error) error {
	err := fmt.Errorf("create %s: %w", m.Name, cause)
	// What stops a provisioning can mostly be mended, and the host stands.
	if resume := m.Unfinished == stepProvision; resume || o.Keep {
		m.Problem = cause.Error()
		return &UnfinishedError{m.Name, errors.Join(err, s.Save(m)), resume || m.Unfinished == stepEngine}
	}
	o.Progress("Undoing what was made...")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	failed := drv.Remove(ctx, m.Instance)
	if failed == nil {
		failed = s.forget(m.Name)
	}
	if failed == nil {
		return err
	}
	m.Problem = cause.Error()
	return &UnfinishedError{m.Name, errors.Join(err, fmt.Errorf("undo %s: %w", m.Name, failed), s.Save(m)), false}
}
