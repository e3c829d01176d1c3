// Package plugin speaks docker-machine's driver protocol, from both sides: a docker-machine-driver-NAME program on PATH becomes a
// driver of berth, and a driver of berth is served to programs that speak it (docker-machine, Rancher).
//
// It decides how a plugin is found, started, watched and ended, and how its answers become an Instance. It promises that no
// call outlives its context or its plugin, that no plugin outlives the call it was started for, and that what a plugin knows of a host
// it began to make is handed on even if making it failed. It does not know what a plugin does to its provider, nor how a host
// becomes a Docker host.
//
// A plugin is a process per call: nothing is kept from one call to the next but the Instance.
package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"berth/internal/machine"
)

// Log takes what plugins say while they work, with the name of the machine they work on.
type Log struct {
	Info  func(machine, line string) // meant for the user. Create's goes to Spec.Progress instead
	Debug func(machine, line string)
}

// Driver is a plugin as a driver.
type Driver struct {
	name  string
	path  string
	log   Log
	pace  pace
	flags []machine.Flag
}

var (
	_ machine.Driver     = (*Driver)(nil)
	_ machine.Power      = (*Driver)(nil)
	_ machine.PreChecker = (*Driver)(nil)
	_ machine.Locator    = (*Driver)(nil)
	_ machine.Flagged    = (*Driver)(nil)
)

// New is the driver called name that the program at path is a plugin for. Nothing is started yet.
func New(name, path string, log Log) *Driver {
	return &Driver{name: name, path: path, log: log, pace: usualPace()}
}

// lookupName is the machine that a plugin is told of which is only asked for its flags; docker-machine calls it so.
const lookupName = "flag-lookup"

// WithFlags is the driver with its flags, for which the plugin is asked.
func (d *Driver) WithFlags(ctx context.Context) (*Driver, error) {
	config, err := json.Marshal(baseConfig{MachineName: lookupName})
	if err != nil {
		return nil, err
	}
	s, err := d.open(ctx, lookupName, config, d.info(lookupName))
	if err != nil {
		return nil, err
	}
	defer s.close(ctx)
	flags, err := s.flags(ctx)
	if err != nil {
		return nil, err
	}
	with := *d
	with.flags = flags
	return &with, nil
}

// Flags implements machine.Flagged; they are known after WithFlags.
func (d *Driver) Flags() []machine.Flag { return d.flags }

func (d *Driver) info(name string) func(string) {
	return func(line string) { d.log.Info(name, line) }
}

// queryTime is how long a plugin, and its provider behind it, may take to say how a machine is.
const queryTime = 2 * time.Minute

// State implements machine.Driver.
func (d *Driver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	if !known(i) {
		return machine.StateNotFound, nil
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	s, err := d.resume(ctx, i)
	if err != nil {
		return machine.StateNone, err
	}
	defer s.close(ctx)
	return s.state(ctx)
}

// limit is for a question about a machine. The provider may be slow, but not for ever.
func limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, queryTime, fmt.Errorf("no answer within %s", queryTime))
}

// Locate implements machine.Locator. How SSH gets there is asked again only if the machine has moved: each question may be one to the
// provider.
func (d *Driver) Locate(ctx context.Context, i machine.Instance) (machine.Instance, machine.State, error) {
	if !known(i) {
		return i, machine.StateNotFound, nil
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	s, err := d.resume(ctx, i)
	if err != nil {
		return i, machine.StateNone, err
	}
	defer s.close(ctx)
	state, err := s.state(ctx)
	if err != nil || state != machine.StateRunning {
		return i, state, err
	}
	now, err := s.locate(ctx, i)
	if err == nil && (now.IPAddress != i.IPAddress || !i.Whole) {
		now = s.locateSSH(ctx, now)
	}
	return now, state, err
}

// Remove implements machine.Driver. What no plugin was ever told of is not there.
func (d *Driver) Remove(ctx context.Context, i machine.Instance) error {
	if !known(i) {
		return nil
	}
	s, err := d.resume(ctx, i)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	return s.call(ctx, "Remove")
}

// baseConfig is what every docker-machine driver's JSON has, and all that is known of a machine that is yet to be made.
type baseConfig struct {
	IPAddress      string
	MachineName    string
	SSHUser        string
	SSHPort        int
	SSHKeyPath     string
	StorePath      string
	SwarmMaster    bool
	SwarmHost      string
	SwarmDiscovery string
}

// newConfig is the JSON of a machine that is yet to be made. Drivers work out the machine's folder from the store's.
func newConfig(spec machine.Spec) ([]byte, error) {
	return json.Marshal(baseConfig{MachineName: spec.Name, StorePath: filepath.Dir(filepath.Dir(spec.Dir))})
}

// config is the JSON of a machine that is there: the plugin's own, also if docker-machine stored it.
func config(i machine.Instance) json.RawMessage {
	if i.Whole {
		return i.Raw
	}
	return i.Stored
}

// known tells whether a plugin was ever told of the machine.
func known(i machine.Instance) bool { return len(config(i)) > 0 }

// resume starts the plugin on a machine that is there.
func (d *Driver) resume(ctx context.Context, i machine.Instance) (*session, error) {
	return d.open(ctx, i.Name, config(i), d.info(i.Name))
}
