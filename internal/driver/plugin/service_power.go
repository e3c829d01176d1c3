package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"berth/internal/machine"
)

var (
	errNotRunning = errors.New("Host is not running")   //nolint:staticcheck,revive // docker-machine knows it by this text
	errNoAddress  = errors.New("IP address is not set") //nolint:staticcheck,revive // docker-machine's text
	errGone       = errors.New("host not found")        // Rancher takes this for gone
)

// switched is a driver's Power, if it has one.
func (s *service) switched(do func(machine.Power, machine.Instance) error) error {
	return s.guard(func() error {
		p, ok := s.drv.(machine.Power)
		if !ok {
			return fmt.Errorf("driver %s cannot start, stop, restart or kill a host", s.name)
		}
		return do(p, s.host())
	})
}

func (s *service) on(do func(machine.Power, context.Context, machine.Instance) (machine.Instance, error)) error {
	return s.switched(func(p machine.Power, i machine.Instance) error {
		now, err := do(p, s.ctx, i)
		if err != nil {
			return err
		}
		now.Name, now.Dir = i.Name, i.Dir
		s.setHost(now)
		return nil
	})
}

func (s *service) Start(_, _ *void) error { return s.on(machine.Power.Start) }

func (s *service) Restart(_, _ *void) error { return s.on(machine.Power.Restart) }

func (s *service) Stop(_, _ *void) error {
	return s.switched(func(p machine.Power, i machine.Instance) error { return p.Stop(s.ctx, i) })
}

func (s *service) Kill(_, _ *void) error {
	return s.switched(func(p machine.Power, i machine.Instance) error { return p.Kill(s.ctx, i) })
}

// state is the host's. docker-machine has no word for a host that is gone.
func (s *service) state() (machine.State, error) {
	i := s.host()
	now, state, err := s.look(i)
	switch {
	case err != nil:
		return machine.StateError, err
	case state == machine.StateNotFound:
		return machine.StateError, errGone
	}
	now.Name, now.Dir = i.Name, i.Dir
	s.setHost(now)
	if state == machine.StateNone && s.url() != "" {
		return machine.StateRunning, nil
	}
	return state, nil
}

// look asks the driver for the host's state, and where it is if the driver can tell.
func (s *service) look(i machine.Instance) (machine.Instance, machine.State, error) {
	if l, ok := s.drv.(machine.Locator); ok {
		return l.Locate(s.ctx, i)
	}
	state, err := s.drv.State(s.ctx, i)
	return i, state, err
}

func (s *service) url() string {
	i := s.host()
	return (&machine.Machine{Name: i.Name, Instance: i}).URL()
}

func (s *service) GetState(_ *void, state *int) error {
	return s.guard(func() error {
		now, err := s.state()
		*state = int(now)
		return err
	})
}

// running is an error unless the host runs: only then has it addresses, for docker-machine.
func (s *service) running() error {
	state, err := s.state()
	if err == nil && state != machine.StateRunning {
		return errNotRunning
	}
	return err
}

func (s *service) GetURL(_ *void, url *string) error {
	return s.guard(func() error {
		if err := s.running(); err != nil {
			return err
		}
		*url = s.url()
		return nil
	})
}

func (s *service) GetIP(_ *void, ip *string) error {
	return s.guard(func() error {
		if err := s.running(); err != nil {
			return err
		}
		if *ip = s.host().IPAddress; *ip == "" {
			return errNoAddress
		}
		return nil
	})
}

// GetIPv6 is Rancher's.
func (s *service) GetIPv6(_ *void, ip *string) error {
	return s.guard(func() error {
		if a, err := netip.ParseAddr(s.host().IPAddress); err == nil && a.Is6() {
			*ip = a.String()
		}
		return nil
	})
}

func (s *service) GetSSHHostname(_ *void, name *string) error {
	return s.guard(func() error {
		if _, itself := s.drv.(machine.EngineRunner); itself {
			return fmt.Errorf("hosts of driver %s have no SSH", s.name)
		}
		i := s.host()
		if *name = cmp.Or(i.SSHHost, i.IPAddress); *name == "" {
			return errNoAddress
		}
		return nil
	})
}

func (s *service) GetSSHPort(_ *void, port *int) error {
	*port = cmp.Or(s.host().SSHPort, 22)
	return nil
}

func (s *service) GetSSHUsername(_ *void, name *string) error {
	*name = cmp.Or(s.host().SSHUser, "root")
	return nil
}

func (s *service) GetSSHKeyPath(_ *void, path *string) error {
	*path = s.host().SSHKeyPath
	return nil
}
