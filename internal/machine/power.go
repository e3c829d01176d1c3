package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"berth/internal/cert"
)

// AlreadyError says that a machine is in the wanted state as it is.
type AlreadyError struct {
	Name  string
	State State
}

func (e *AlreadyError) Error() string {
	return fmt.Sprintf("Machine %q is already %s.", e.Name, strings.ToLower(e.State.String()))
}

// NoPowerError says that machines of a driver cannot be switched on and off.
type NoPowerError struct{ Name, DriverName string }

func (e *NoPowerError) Error() string {
	return fmt.Sprintf("machine %q: driver %s cannot start, stop, restart or kill a host", e.Name, e.DriverName)
}

// Start switches the machine on and waits until its engine answers, at whatever address it now has.
func Start(ctx context.Context, s *Store, drv Driver, m *Machine, progress func(string)) error {
	p, state, err := powerOf(ctx, s, drv, m)
	if err != nil {
		return err
	}
	if state == StateRunning {
		return &AlreadyError{m.Name, state}
	}
	i, err := p.Start(ctx, m.Instance)
	if err != nil {
		return fmt.Errorf("start %s: %w", m.Name, err)
	}
	return s.settle(ctx, drv, m, i, progress)
}

// Restart switches a running machine off and on, and starts a stopped one.
func Restart(ctx context.Context, s *Store, drv Driver, m *Machine, progress func(string)) error {
	r, ok := drv.(Restarter)
	if !ok {
		return &NoPowerError{m.Name, m.DriverName}
	}
	state, err := powerState(ctx, s, drv, m)
	if err != nil {
		return err
	}
	again := r.Restart
	if state == StateStopped || state == StateSaved {
		p, ok := drv.(Power)
		if !ok {
			return fmt.Errorf("restart %s: %w, and driver %s cannot start one", m.Name, ErrNotRunning, m.DriverName)
		}
		again = p.Start
	}
	i, err := again(ctx, m.Instance)
	if err != nil {
		return fmt.Errorf("restart %s: %w", m.Name, err)
	}
	return s.settle(ctx, drv, m, i, progress)
}

// NoSaveError says that machines of a driver cannot be saved.
type NoSaveError struct{ Name, DriverName string }

func (e *NoSaveError) Error() string {
	return fmt.Sprintf("machine %q: driver %s cannot save a host's memory; stop shuts it down", e.Name, e.DriverName)
}

// Save keeps the memory of a running machine and switches it off. Start goes on where it was.
func Save(ctx context.Context, s *Store, drv Driver, m *Machine) error {
	saver, ok := drv.(Saver)
	if !ok {
		return &NoSaveError{m.Name, m.DriverName}
	}
	state, err := powerState(ctx, s, drv, m)
	switch {
	case err != nil:
		return err
	case state == StateSaved:
		return &AlreadyError{m.Name, state}
	case state != StateRunning && state != StatePaused:
		return fmt.Errorf("save %s: %w", m.Name, ErrNotRunning)
	}
	if err := saver.Save(ctx, m.Instance); err != nil {
		return fmt.Errorf("save %s: %w", m.Name, err)
	}
	return nil
}

// Stop lets the machine shut down; Kill takes its power away.
func Stop(ctx context.Context, s *Store, drv Driver, m *Machine) error {
	return off(ctx, s, drv, m, "stop", Power.Stop)
}

// Kill is Stop for a machine that does not listen any more.
func Kill(ctx context.Context, s *Store, drv Driver, m *Machine) error {
	return off(ctx, s, drv, m, "kill", Power.Kill)
}

func off(ctx context.Context, s *Store, drv Driver, m *Machine, verb string, do func(Power, context.Context, Instance) error) error {
	p, state, err := powerOf(ctx, s, drv, m)
	if err != nil {
		return err
	}
	if state == StateStopped {
		return &AlreadyError{m.Name, state}
	}
	if err := do(p, ctx, m.Instance); err != nil {
		return fmt.Errorf("%s %s: %w", verb, m.Name, err)
	}
	return nil
}

// powerOf is the machine's power switch and the state it is in.
func powerOf(ctx context.Context, s *Store, drv Driver, m *Machine) (Power, State, error) {
	p, ok := drv.(Power)
	if !ok {
		return nil, StateNone, &NoPowerError{m.Name, m.DriverName}
	}
	state, err := powerState(ctx, s, drv, m)
	return p, state, err
}

// powerState is the state of a machine whose power is to be switched.
func powerState(ctx context.Context, s *Store, drv Driver, m *Machine) (State, error) {
	if m.Unfinished != "" && s.claimed(m.Name) {
		return StateStarting, &BusyError{m.Name}
	}
	state, err := AskState(ctx, s, drv, m)
	if err == nil && state == StateNotFound {
		err = errors.New("its host is gone")
	}
	if err != nil {
		return state, fmt.Errorf("machine %q: %w", m.Name, err)
	}
	return state, nil
}

// settle stores what a start has changed and waits for the engine. A new address needs a new server certificate.
func (s *Store) settle(ctx context.Context, drv Driver, m *Machine, i Instance, progress func(string)) error {
	m.setInstance(i)
	m.Life.IdleSince = time.Time{} // somebody wants it
	if err := s.Save(m); err != nil {
		return err
	}
	if runner := s.runner(drv, m); runner != nil {
		pem, err := os.ReadFile(m.Auth.ServerCertPath)
		if err = errors.Join(err, cert.Covers(pem, m.Host())); err != nil {
			progress(fmt.Sprintf("The certificate of %q does not fit any more (%v).", m.Name, err))
			return s.runEngine(ctx, runner, m, true, progress)
		}
	}
	return s.waitEngine(ctx, m)
}

// MustRun is an error unless the machine runs. m then has the address of today.
func MustRun(ctx context.Context, s *Store, drv Driver, m *Machine) error {
	state, err := locate(ctx, s, drv, m)
	if err == nil && state != StateRunning {
		err = ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("machine %q: %w", m.Name, err)
	}
	return nil
}

// RenewCerts gives the machine new certificates and its engine a restart with them.
func RenewCerts(ctx context.Context, s *Store, drv Driver, m *Machine, progress func(string)) error {
	if m.Plain {
		return fmt.Errorf("machine %q: its engine is used as it is, through SSH, and has no certificates of ours", m.Name)
	}
	runner := s.runner(drv, m)
	if runner == nil {
		return fmt.Errorf("machine %q: driver %s does not let berth run its engine, so its certificates cannot be replaced", m.Name, m.DriverName)
	}
	if err := MustRun(ctx, s, drv, m); err != nil {
		return err
	}
	if err := s.ensureAuthority(ctx, m.Auth, progress); err != nil {
		return err
	}
	if err := s.giveClientCerts(m); err != nil {
		return err
	}
	if err := s.runEngine(ctx, runner, m, true, progress); err != nil {
		return fmt.Errorf("regenerate the certificates of %s: %w", m.Name, err)
	}
	return nil
}
