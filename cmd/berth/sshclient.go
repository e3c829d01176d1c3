package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"berth/internal/machine"
	"berth/internal/ssh"
)

// Where SSH answers when the record does not say otherwise, as docker-machine's drivers have it.
const (
	defaultSSHUser = "root"
	defaultSSHPort = 22
	// and where its engine does.
	defaultEnginePort = 2376
)

// knownHostsFile is in the machine's folder and holds the key that its host showed first.
const knownHostsFile = "known_hosts"

// sshClient reaches into a machine over SSH; user is "" for the machine's own.
func (p *program) sshClient(h host, user string) (*ssh.Client, error) {
	cfg, err := sshConfig(h.store, h.Machine)
	if err != nil {
		return nil, err
	}
	cfg.User = cmp.Or(user, cfg.User)
	cfg.Log = func(line string) { p.debugf("(%s) %s", h.Name, line) }
	return ssh.New(cfg), nil
}

// sshConfig is how to get into a machine: with its own key and no other, if it has one; and to the host alone whose key was met
// first. What else the user's SSH configuration says of the address, such as a jump host, counts too.
func sshConfig(s *machine.Store, m *machine.Machine) (ssh.Config, error) {
	i := m.Instance
	i.Dir = s.MachineDir(m.Name)
	if i.SSHUser == "" && i.SSHPort == 0 && i.SSHKeyPath == "" {
		return ssh.Config{}, fmt.Errorf("machine %q: driver %s knows of no SSH on its host", m.Name, m.DriverName)
	}
	return instanceSSH(i)
}

// instanceSSH is how to get into a host that has an SSH.
func instanceSSH(i machine.Instance) (ssh.Config, error) {
	address := cmp.Or(i.SSHHost, i.IPAddress)
	if address == "" {
		return ssh.Config{}, fmt.Errorf("machine %q: its address is not known", i.Name)
	}
	cfg := ssh.Config{
		Host: address, Port: cmp.Or(i.SSHPort, defaultSSHPort), User: cmp.Or(i.SSHUser, defaultSSHUser),
		KnownHostsFile: filepath.Join(i.Dir, knownHostsFile),
	}
	if key := sshKey(i); key != "" {
		cfg.KeyFiles, cfg.IdentitiesOnly = []string{key}, true
	}
	return cfg, nil
}

// userOf and portOf are what SSH to a machine is tried with.
func userOf(m *machine.Machine) string { return cmp.Or(m.Instance.SSHUser, defaultSSHUser) }
func portOf(m *machine.Machine) int    { return cmp.Or(m.Instance.SSHPort, defaultSSHPort) }

// enginePort is where the machine's engine listens.
func enginePort(m *machine.Machine) int {
	if u, err := url.Parse(m.URL()); err == nil {
		if port, err := strconv.Atoi(u.Port()); err == nil {
			return port
		}
	}
	return cmp.Or(m.Instance.EnginePort, defaultEnginePort)
}

// sshKey is the machine's private key; "" if it has none of its own. In a store that was moved it is where the machine is now.
func sshKey(i machine.Instance) string {
	key := i.SSHKeyPath
	if key == "" {
		return ""
	}
	if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		if moved := filepath.Join(i.Dir, filepath.Base(key)); moved != key {
			if _, err := os.Stat(moved); err == nil {
				return moved
			}
		}
	}
	return key
}
