// Package generic is the driver for Linux hosts that are there already and let us in over SSH: a rented server, a VM that somebody
// else made, the computer in the next room.
//
// It keeps where the host is and how to get in, and copies the key into the machine's folder, so that the machine goes on working
// when the original moves. It makes no host and deletes none: removing the machine leaves the host as it is. Nor can it switch
// one on; a host that runs can be asked to restart.
package generic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"berth/internal/machine"
)

// Shell runs commands on a machine's host.
type Shell interface {
	// Run runs a command of a POSIX shell there and returns what it wrote to stdout.
	Run(ctx context.Context, i machine.Instance, command string) (string, error)
}

// Driver implements machine.Driver, and Restart.
type Driver struct {
	shell Shell
	pace  time.Duration // between two looks at a host that restarts
}

// New is the driver. It restarts hosts through the shell.
func New(shell Shell) *Driver { return &Driver{shell, time.Second} }

const (
	flagAddress = "generic-ip-address"
	flagUser    = "generic-ssh-user"
	flagKey     = "generic-ssh-key"
	flagPort    = "generic-ssh-port"
	flagEngine  = "generic-engine-port"

	defaultSSHPort    = 22
	defaultEnginePort = 2376
)

// Flags implements machine.Flagged.
func (*Driver) Flags() []machine.Flag {
	return []machine.Flag{
		{Name: flagEngine, Usage: "Docker engine port", EnvVar: "GENERIC_ENGINE_PORT", Default: defaultEnginePort},
		{Name: flagAddress, Usage: "IP Address of machine", EnvVar: "GENERIC_IP_ADDRESS", Default: ""},
		{Name: flagUser, Usage: "SSH user", EnvVar: "GENERIC_SSH_USER", Default: "root"},
		{Name: flagKey, Usage: "SSH private key path (if not provided, default SSH key will be used)", EnvVar: "GENERIC_SSH_KEY", Default: ""},
		{Name: flagPort, Usage: "SSH port", EnvVar: "GENERIC_SSH_PORT", Default: defaultSSHPort},
	}
}

// fields are this driver's part of config.json, in docker-machine's spelling.
type fields struct{ SSHKey string }

// settings are the flags, understood.
type settings struct {
	address, user, key string
	sshPort, port      int
}

// What may stand in an ssh:// address and on ssh's command line.
var (
	userRule = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?$`)
	hostRule = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
)

func readSettings(spec machine.Spec) (settings, error) {
	set := settings{
		address: strings.Trim(spec.String(flagAddress), "[]"), user: spec.String(flagUser), key: spec.String(flagKey),
		sshPort: spec.Int(flagPort), port: spec.Int(flagEngine),
	}
	if set.address == "" {
		return set, errors.New("generic driver requires the --generic-ip-address option")
	}
	if _, err := netip.ParseAddr(set.address); err != nil && !hostRule.MatchString(set.address) {
		return set, fmt.Errorf("--%s %q: it is neither an IP address nor a host's name", flagAddress, set.address)
	}
	if !userRule.MatchString(set.user) {
		return set, fmt.Errorf("--%s %q: that is no user's name", flagUser, set.user)
	}
	for flag, port := range map[string]int{flagPort: set.sshPort, flagEngine: set.port} {
		if port < 1 || port > 65535 {
			return set, fmt.Errorf("--%s %d: a port is a number from 1 to 65535", flag, port)
		}
	}
	if set.key != "" {
		info, err := os.Stat(set.key)
		if err == nil && info.IsDir() {
			err = &fs.PathError{Op: "read", Path: set.key, Err: errors.New("it is a folder")}
		}
		if err != nil {
			return set, fmt.Errorf("SSH key does not exist or cannot be read: %w", err)
		}
	}
	return set, nil
}

// PreCreateCheck implements machine.PreChecker.
func (*Driver) PreCreateCheck(_ context.Context, spec machine.Spec) error {
	_, err := readSettings(spec)
	return err
}

// Create implements machine.Driver. Whether the host lets us in shows when it is provisioned.
func (d *Driver) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Name: spec.Name, Dir: spec.Dir}
	set, err := readSettings(spec)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return i, err
	}
	i.IPAddress, i.SSHUser, i.SSHPort, i.EnginePort = set.address, set.user, set.sshPort, set.port
	if i.Raw, err = json.Marshal(fields{set.key}); err != nil {
		return i, err
	}
	if set.key == "" {
		spec.Progress("No SSH key specified. Assuming an existing key at the default location.")
		return i, nil
	}
	spec.Progress("Importing SSH key...")
	i.SSHKeyPath, err = importKey(set.key, spec.Dir)
	return i, err
}

// importKey copies the key into the machine's folder, with its public half if that is beside it.
func importKey(from, dir string) (string, error) {
	to := filepath.Join(dir, keyName(filepath.Base(from)))
	if err := copyPrivate(from, to); err != nil {
		return "", fmt.Errorf("import the SSH key: %w", err)
	}
	if err := copyPrivate(from+".pub", to+".pub"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("import the public SSH key: %w", err)
	}
	return to, nil
}

// keyName keeps the key's name, as docker-machine does, unless a file of the machine's own has it.
func keyName(base string) string {
	switch base {
	case "config.json", "config.json.bak", "ca.pem", "cert.pem", "key.pem", "server.pem", "server-key.pem", "known_hosts":
		return "id_" + base
	}
	if strings.HasPrefix(base, ".") {
		return "id_" + strings.TrimLeft(base, ".")
	}
	return base
}

func copyPrivate(from, to string) (err error) {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(0o600); err != nil { // of a file that was there
		return err
	}
	_, err = f.Write(data)
	return err
}

// dialTime is how long a host may take to answer.
const dialTime = 15 * time.Second

// State implements machine.Driver: a host whose sshd accepts runs. What was never made has no address.
func (*Driver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	if i.IPAddress == "" {
		return machine.StateNotFound, nil
	}
	d := net.Dialer{Timeout: dialTime}
	port := i.SSHPort
	if port == 0 {
		port = defaultSSHPort
	}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(i.IPAddress, strconv.Itoa(port)))
	if err != nil {
		if ctx.Err() != nil {
			return machine.StateNone, ctx.Err()
		}
		return machine.StateStopped, nil
	}
	return machine.StateRunning, c.Close()
}

// BorrowsHosts implements machine.Borrower.
func (*Driver) BorrowsHosts() {}

// Remove implements machine.Driver. The host is not ours to delete.
func (*Driver) Remove(context.Context, machine.Instance) error { return nil }
