// Package machine is a Docker host that berth made: its record on disk and its life, from create to remove.
//
// It owns the store (docker-machine's layout and config.json, so either program can read the other's machines), the order
// of the steps of a create, and what is undone when one fails. It does not know how any provider makes a host: that is a
// Driver. It does not know the fleet either; the two halves of berth meet in cmd/berth.
package machine

import (
	"context"
	"encoding/json"
)

// Driver makes, reports and removes the hosts of one provider. A Driver keeps no state of its own: whatever must last from
// one call to the next is in the Instance, which machine stores. Methods may be called for different machines at once.
type Driver interface {
	// Create makes the host and returns once it has an address. The Instance is returned even with an error, filled as far
	// as things got, so that Remove can take away what is there. Create must honour ctx.
	Create(ctx context.Context, spec Spec) (Instance, error)
	// State asks the provider. A host that is gone is StateNotFound without an error.
	State(ctx context.Context, i Instance) (State, error)
	// Remove deletes the host and everything Create made for it, also after a Create that failed half-way. One that is
	// already gone counts as removed; calling it twice is harmless.
	Remove(ctx context.Context, i Instance) error
}

// Power is the optional ability to switch a host on and off. Start returns the Instance because an address may change.
// Each returns when the state is reached or ctx ends.
type Power interface {
	Start(ctx context.Context, i Instance) (Instance, error)
	Stop(ctx context.Context, i Instance) error
	Kill(ctx context.Context, i Instance) error
	Restarter
}

// Restarter is the optional ability to have a running host boot anew. It returns when the host runs again or ctx ends.
type Restarter interface {
	Restart(ctx context.Context, i Instance) (Instance, error)
}

// Saver is the optional ability to keep a running host's memory on disk and switch it off, so that Start goes on where it was.
type Saver interface {
	// Save returns when the state is StateSaved or ctx ends. A host that could not be saved goes on running.
	Save(ctx context.Context, i Instance) error
}

// Borrower is implemented by drivers whose hosts were there before and are only borrowed: removing the machine leaves the host as
// it is, and what is wrong with the way to it now will not come right by waiting.
type Borrower interface {
	BorrowsHosts()
}

// PreChecker is the optional ability to refuse a create before anything is made or stored. The error names what is missing
// and how to get it; the command exits with status 3.
type PreChecker interface {
	PreCreateCheck(ctx context.Context, spec Spec) error
}

// Locator is the optional ability to look up where a host is just now, for providers that give hosts new addresses without berth's
// doing. A running host's Instance comes back with today's; that of any other as it was. The state stands also beside an error.
type Locator interface {
	Locate(ctx context.Context, i Instance) (Instance, State, error)
}

// EngineRunner is implemented by drivers whose host runs its Docker Engine without provisioning over SSH: machine hands it
// the engine's options and certificates, and the driver (re)starts the engine with them. Repeatable. For all other drivers' hosts
// there is a Provisioner.
type EngineRunner interface {
	RunEngine(ctx context.Context, i Instance, e EngineConfig) error
}

// ServiceRunner is implemented by EngineRunners that have EngineConfig.Services run as well. Provisioners do.
type ServiceRunner interface {
	EngineRunner
	RunsServices()
}

// Service is this program itself, going on beside an engine for as long as the machine runs, and started again when it ends or the
// machine starts. It sees the engine's certificates as HostCA, HostCert and HostKey.
type Service struct {
	Name string   // a word: agent, manager
	Args []string // the program's
	Env  []string // NAME=VALUE; may be secret
	Port int      // where it takes connections; 0 for none
}

// Where services find the engine's certificates, and docker-machine's containers did.
const (
	HostCA   = "/etc/docker/ca.pem"
	HostCert = "/etc/docker/server.pem"
	HostKey  = "/etc/docker/server-key.pem"
)

// Flagged drivers take flags of their own on create.
type Flagged interface {
	Flags() []Flag
}

// Flag is one driver flag of `create`. Default decides the type: string, int, bool or []string.
type Flag struct {
	Name    string // with the driver's prefix: "local-subnet"
	Usage   string
	EnvVar  string // read when the flag is not given; "" for none
	Default any
}

// Spec is what a driver is asked to make.
type Spec struct {
	Name string // the machine's name, already checked
	// Dir is the machine's own directory in the store (mode 0700); it exists when Create is called. A driver may keep its
	// files there (disk images, data roots). It is removed by machine after Remove.
	Dir string
	// StoreID names the store, so that a driver can tag and find what it made for it, and tell it from another store's.
	StoreID string
	// Values holds the driver's flags by name, with their defaults filled in.
	Values map[string]any
	// CacheDir is for files that the store's machines share, such as disk images. It need not exist.
	CacheDir string
	// Progress receives one line per step, without a newline. Never nil.
	Progress func(line string)
	// ShowBar is told how far a step has come that moves many bytes; nil where nobody sees it. See Bar.
	ShowBar func(what string, done, total int64)
	// Save stores what is known of the host so far; nil where nobody stores anything. See Keep.
	Save func(i Instance) error
}

// Keep stores what is known of the host so far. A driver calls it in the middle of Create, before a step after which the host
// could not be found again if this program came to a sudden end.
func (s Spec) Keep(i Instance) error {
	if s.Save == nil {
		return nil
	}
	return s.Save(i)
}

// Bar says how far the step what has come, in bytes; total is 0 where it is not known.
func (s Spec) Bar(what string, done, total int64) {
	if s.ShowBar != nil {
		s.ShowBar(what, done, total)
	}
}

// String reads a flag's value; one that is absent or of another type is the zero value.
func (s Spec) String(name string) string { v, _ := s.Values[name].(string); return v }

// Int is String for a number.
func (s Spec) Int(name string) int { v, _ := s.Values[name].(int); return v }

// Bool is String for a switch.
func (s Spec) Bool(name string) bool { v, _ := s.Values[name].(bool); return v }

// Strings is String for a list.
func (s Spec) Strings(name string) []string { v, _ := s.Values[name].([]string); return v }

// Instance is what is known of a host after Create. It is stored in config.json: the base fields as docker-machine's
// drivers store them (IPAddress, SSHUser, SSHPort, SSHKeyPath), Raw as the driver's further fields beside them.
type Instance struct {
	Name       string // the machine's name
	Dir        string // the machine's directory, filled in by machine on load
	IPAddress  string
	EnginePort int    // 0 means 2376
	InnerPort  int    // where the engine listens on the host itself, if a forward leads there from EnginePort; 0 means EnginePort
	URL        string // the engine's, if it is not tcp://IPAddress:EnginePort
	SSHHost    string // where SSH answers, if that is not IPAddress
	SSHUser    string
	SSHPort    int
	SSHKeyPath string
	// Raw is a JSON object with the driver's own fields; machine keeps it as it is. nil means none.
	Raw json.RawMessage
	// Whole says that Raw is all of config.json's Driver object: the driver writes the base fields in it, too, and machine notes
	// elsewhere what it knows.
	Whole bool
	// Stored is all of config.json's Driver object as it was read, for a driver that goes on with what another program made.
	// machine fills it in and does not write it.
	Stored json.RawMessage
}

// EngineConfig is what an engine is started with. Paths are on this computer.
type EngineConfig struct {
	Options                       EngineOptions
	CACert, ServerCert, ServerKey string // PEM files
	ExtraLabels                   []string
	// Services are what is to go on beside the engine. Only a ServiceRunner is handed any.
	Services []Service
	Progress func(line string)
}

// EngineOptions are the --engine-* flags, in config.json's spelling.
type EngineOptions struct {
	ArbitraryFlags   []string
	Dns              []string //nolint:revive // docker-machine's spelling
	GraphDir         string
	Env              []string
	Ipv6             bool //nolint:revive // docker-machine's spelling
	InsecureRegistry []string
	Labels           []string
	LogLevel         string
	StorageDriver    string
	SelinuxEnabled   bool
	TlsVerify        bool //nolint:revive // docker-machine's spelling
	RegistryMirror   []string
	InstallURL       string
	Version          string `json:",omitempty"` // wanted where one is installed; docker-machine does not know it
}

// State is a machine's state, with docker-machine's numbers and words.
type State int

// The states.
const (
	StateNone State = iota
	StateRunning
	StatePaused
	StateSaved
	StateStopped
	StateStopping
	StateStarting
	StateError
	StateTimeout
	StateNotFound
)

var stateWords = [...]string{"", "Running", "Paused", "Saved", "Stopped", "Stopping", "Starting", "Error", "Timeout", "Not Found"}

// String is the word that ls and status show.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateWords) {
		return ""
	}
	return stateWords[s]
}
