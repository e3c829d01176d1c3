package plugin

import (
	"encoding/gob"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"berth/internal/machine"
)

// The protocol's constants: the environment of a plugin, its version, and its RPC service's name, of now and of docker-machine before
// 0.5.1.
const (
	tokenVariable = "MACHINE_PLUGIN_TOKEN"
	token         = "42"
	nameVariable  = "MACHINE_PLUGIN_DRIVER_NAME"
	apiVersion    = 1
	serviceV1     = "RPCServerDriver"
	serviceV0     = "RpcServerDriver"
)

// The flags of create as they go over the wire.
type (
	stringFlag struct {
		Name, Usage, EnvVar string
		Value               string
	}
	intFlag struct {
		Name, Usage, EnvVar string
		Value               int
	}
	listFlag struct {
		Name, Usage, EnvVar string
		Value               []string
	}
	boolFlag struct {
		Name, Usage, EnvVar string
	}
)

// flagValues are the values of all flags of a create, the driver's own and the shared ones: string, int, bool and []string.
type flagValues struct {
	Values map[string]any
}

// registerNames tells gob, whose register is the process's, the names by which docker-machine's types go over the wire.
var registerNames = sync.OnceFunc(func() {
	gob.RegisterName("*mcnflag.StringFlag", &stringFlag{})
	gob.RegisterName("*mcnflag.IntFlag", &intFlag{})
	gob.RegisterName("*mcnflag.StringSliceFlag", &listFlag{})
	gob.RegisterName("*mcnflag.BoolFlag", &boolFlag{})
	gob.RegisterName("*rpcdriver.RPCFlags", &flagValues{})
})

// flagName is what can stand behind -- on a command line, and in a help text.
var flagName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// fromWire is a plugin's flag as berth knows flags. docker-machine's command line took "name, n" for a flag and its short form; the first
// is its name.
func fromWire(v any) (machine.Flag, error) {
	var f machine.Flag
	switch w := v.(type) {
	case *stringFlag:
		f = machine.Flag{Name: w.Name, Usage: w.Usage, EnvVar: w.EnvVar, Default: w.Value}
	case *intFlag:
		f = machine.Flag{Name: w.Name, Usage: w.Usage, EnvVar: w.EnvVar, Default: w.Value}
	case *listFlag:
		f = machine.Flag{Name: w.Name, Usage: w.Usage, EnvVar: w.EnvVar, Default: w.Value}
	case *boolFlag:
		f = machine.Flag{Name: w.Name, Usage: w.Usage, EnvVar: w.EnvVar, Default: false}
	default:
		return f, fmt.Errorf("a flag of the unknown kind %T", v)
	}
	first, _, _ := strings.Cut(f.Name, ",")
	f.Name = strings.TrimSpace(first)
	if !flagName.MatchString(f.Name) {
		return f, fmt.Errorf("a flag with the unusable name %.100q", f.Name)
	}
	return f, nil
}

// fromWires are all of a plugin's flags. One that is there twice is the first: on a command line there can be only one.
func fromWires(wire []any) ([]machine.Flag, error) {
	var flags []machine.Flag
	seen := map[string]bool{}
	for _, w := range wire {
		f, err := fromWire(w)
		if err != nil {
			return nil, err
		}
		if !seen[f.Name] {
			flags = append(flags, f)
		}
		seen[f.Name] = true
	}
	return flags, nil
}

// toWire is berth's flag as docker-machine knows flags.
func toWire(f machine.Flag) (any, error) {
	switch v := f.Default.(type) {
	case string:
		return &stringFlag{f.Name, f.Usage, f.EnvVar, v}, nil
	case int:
		return &intFlag{f.Name, f.Usage, f.EnvVar, v}, nil
	case []string:
		return &listFlag{f.Name, f.Usage, f.EnvVar, v}, nil
	case bool:
		return &boolFlag{f.Name, f.Usage, f.EnvVar}, nil
	}
	return nil, fmt.Errorf("flag %s: the protocol has no values of type %T", f.Name, f.Default)
}

// states are docker-machine's, which berth's State shares the numbers of. Rancher adds the last.
func fromWireState(n int) (machine.State, error) {
	if n < int(machine.StateNone) || n > int(machine.StateNotFound) {
		return machine.StateNone, fmt.Errorf("it says that the machine is in the unknown state %d", n)
	}
	return machine.State(n), nil
}
