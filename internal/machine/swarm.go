package machine

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// discoveryVar is where agents and managers look for the URL of their discovery service: it may hold a secret, and a command line is
// for all users of a host to see.
const discoveryVar = "SWARM_DISCOVERY"

// defaultManagerPort is where a manager listens, and what agents of old said of theirs, if nothing else is said.
const defaultManagerPort = 3376

// ManagerURL is where clients find the manager that the machine runs for a Swarm; "" if it runs none.
func (m *Machine) ManagerURL() string {
	port, err := m.Swarm.managerPort()
	host := m.Host()
	if !m.Swarm.Master || err != nil || host == "" {
		return ""
	}
	return "tcp://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// services are what is to run beside the machine's engine.
func (m *Machine) services() []Service {
	if !m.Services {
		return nil
	}
	port := defaultEnginePort
	if u, err := url.Parse(m.URL()); err == nil && u.Port() != "" {
		port, _ = strconv.Atoi(u.Port()) //nolint:errcheck // what Parse takes for a port is a number
	}
	return m.Swarm.services(m.Host(), port)
}

// services are an agent that keeps the engine at host:port in the Swarm, and a manager of it, as far as they are asked for.
func (o SwarmOptions) services(host string, port int) (all []Service) {
	if o.Address != "" {
		host = o.Address
	}
	env := []string{discoveryVar + "=" + o.Discovery}
	if o.Agent {
		all = append(all, Service{Name: "agent", Args: o.agentArgs(withPort(host, port)), Env: env})
	}
	if o.Master {
		listens, _ := o.managerPort() //nolint:errcheck // it was checked when the machine was created
		all = append(all, Service{Name: "manager", Args: o.managerArgs(withPort(hostOf(host), listens)), Env: env, Port: listens})
	}
	return all
}

func (o SwarmOptions) agentArgs(advertise string) []string {
	return append([]string{"join", "--advertise", advertise}, options(o.ArbitraryJoinFlags)...)
}

func (o SwarmOptions) managerArgs(advertise string) []string {
	args := []string{
		"serve", "--no-context", "-H", cmp.Or(o.Host, fmt.Sprintf("tcp://0.0.0.0:%d", defaultManagerPort)), "--tlsverify", "--tlscacert=" + HostCA, "--tlscert=" + HostCert, "--tlskey=" + HostKey,
	}
	if o.Strategy != "" {
		args = append(args, "--strategy", o.Strategy)
	}
	more := options(o.ArbitraryFlags)
	replicated := slices.ContainsFunc(more, func(f string) bool { return f == "--replication" || f == "--replication=true" })
	placed := slices.ContainsFunc(more, func(f string) bool { return strings.HasPrefix(f, "--advertise=") })
	if replicated && !placed { // which other managers need to know, and docker-machine always said
		args = append(args, "--advertise", advertise)
	}
	return append(args, more...)
}

// options makes flags of --swarm-opt and --swarm-join-opt: NAME=VALUE or NAME, without dashes.
func options(given []string) []string {
	var flags []string
	for _, g := range given {
		flags = append(flags, "--"+g)
	}
	return flags
}

// withPort adds a port where there is none.
func withPort(host string, port int) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// managerPort is the port in Host: tcp://ADDRESS:PORT, or without the scheme.
func (o SwarmOptions) managerPort() (int, error) {
	if o.Host == "" {
		return defaultManagerPort, nil
	}
	scheme, address, found := strings.Cut(o.Host, "://")
	if !found {
		scheme, address = "tcp", o.Host
	}
	_, port, err := net.SplitHostPort(address)
	n, notNumber := strconv.Atoi(port)
	if err != nil || notNumber != nil || scheme != "tcp" || n < 1 || n > 65535 {
		return 0, fmt.Errorf("--swarm-host %s: want tcp://ADDRESS:PORT", o.Host)
	}
	return n, nil
}

// check refuses what no agent and no manager could be started with.
func (o SwarmOptions) check() error {
	if o.Discovery == "" {
		return errors.New("--swarm: say where the members of the Swarm find each other, with --swarm-discovery URL")
	}
	for _, word := range slices.Concat([]string{o.Discovery, o.Host, o.Address, o.Strategy}, o.ArbitraryFlags, o.ArbitraryJoinFlags) {
		if strings.ContainsFunc(word, unicode.IsControl) {
			return errors.New("a value of --swarm… holds control characters")
		}
	}
	for _, option := range slices.Concat(o.ArbitraryFlags, o.ArbitraryJoinFlags) {
		if option == "" || strings.HasPrefix(option, "-") || strings.HasPrefix(option, "=") {
			return fmt.Errorf("--swarm-opt and --swarm-join-opt: %q: want NAME=VALUE or NAME, without dashes", option)
		}
	}
	_, err := o.managerPort()
	return err
}

// checkSwarm refuses a create whose agent or manager could not be started in the end. Where there is nothing to start them on, the
// options are only noted.
func checkSwarm(drv Driver, o CreateOptions) error {
	if !o.Swarm.IsSwarm || slices.Contains(withoutProvisioning, o.DriverName) {
		return nil
	}
	if o.Plain {
		return errors.New("--swarm puts services on the host, and --no-install changes nothing there: leave out one of them")
	}
	_, runsEngine := drv.(EngineRunner)
	if _, runsMore := drv.(ServiceRunner); runsEngine && !runsMore {
		return fmt.Errorf("driver %s runs the engines of its hosts itself, and nothing of a Swarm's beside them", o.DriverName)
	}
	if err := o.Swarm.check(); err != nil {
		return err
	}
	if o.CheckService == nil {
		return nil
	}
	for _, s := range o.Swarm.services("192.0.2.1", defaultEnginePort) { // any address: there is none yet
		if err := o.CheckService(s); err != nil {
			return fmt.Errorf("the Swarm's %s: %w", s.Name, err)
		}
	}
	return nil
}
