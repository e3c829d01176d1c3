package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/machine"
	"berth/internal/term"
)

const defaultInstallURL = "https://get.docker.com"

// createFlags are create's flags but for the driver's own.
type createFlags struct {
	driver string
	keep   bool
	plain  bool
	sans   []string
	engine machine.EngineOptions
	swarm  machine.SwarmOptions
	agent  bool

	noContext     bool
	ttl, idleStop span
	progress      progressFlags
}

func (p *program) createCmd() *cobra.Command {
	name := p.driverName()
	drv, err := p.creator(name)
	f := &createFlags{}
	cmd := &cobra.Command{
		Use:               "create [OPTIONS] NAME [NAME...]",
		Short:             "Create machines",
		Long:              "Create machines, several at once. Each driver has flags of its own: see them with -d DRIVER --help.",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				return &usageError{errors.New("Error: No machine name specified"), cmd.CommandPath()} //nolint:revive,staticcheck // docker-machine's text
			}
			if p.dropIn() && len(names) > 1 {
				return &usageError{fmt.Errorf("Invalid command line. Found extra arguments %v", names[1:]), cmd.CommandPath()} //nolint:revive,staticcheck // docker-machine's text
			}
			if f.driver != name { // the parser and driverName read the line in two ways
				return &usageError{fmt.Errorf("the driver is both %s and %s: name one, as --driver NAME", name, f.driver), cmd.CommandPath()}
			}
			return p.runCreate(cmd.Context(), drv, f, driverFlags(drv), cmd.LocalFlags(), unique(names))
		},
	}
	if err != nil && !p.completing() { // half a driver's name is no error yet
		// Nobody knows this driver's flags, so that it is unknown is all there is to say.
		cmd.DisableFlagParsing = true
		cmd.RunE = func(*cobra.Command, []string) error { return err }
		return cmd
	}
	f.define(cmd.Flags(), name)
	defineDriverFlags(cmd.Flags(), driverFlags(drv))
	return cmd
}

// driverName finds the driver before the command line is parsed, since it decides which flags there are.
func (p *program) driverName() string {
	fallback := cmp.Or(os.Getenv("MACHINE_DRIVER"), "local")
	args := p.argv[1:]
	for i, a := range args {
		if a == "--" {
			break
		}
		name, value, inline := strings.Cut(a, "=")
		if attached, ok := strings.CutPrefix(a, "-d"); ok && attached != "" && !inline && a != "-debug" && a != "-driver" {
			return attached
		}
		switch name {
		case "-d", "--driver", "-driver":
			if !inline && i+1 < len(args) {
				value = args[i+1]
			}
			if value != "" {
				return value
			}
		}
	}
	return fallback
}

func (f *createFlags) define(fs *pflag.FlagSet, driver string) {
	fs.SortFlags = false
	fs.StringVarP(&f.driver, "driver", "d", driver, "`DRIVER` to create the machine with [$MACHINE_DRIVER]")
	fs.BoolVar(&f.keep, "keep", false, "Leave a machine that could not be finished as it is, to look into it")
	fs.BoolVar(&f.plain, "no-install", false, "Change nothing on the host: use the engine that it has, through SSH")
	fs.StringArrayVar(&f.sans, "tls-san", nil, "Further `NAME` or address in the engine's certificate (repeatable)")
	e := &f.engine
	fs.StringArrayVar(&e.ArbitraryFlags, "engine-opt", nil, "Engine option, `NAME=VALUE` (repeatable)")
	fs.StringArrayVar(&e.Labels, "engine-label", nil, "Engine label, `KEY=VALUE` (repeatable)")
	fs.StringArrayVar(&e.InsecureRegistry, "engine-insecure-registry", nil, "`REGISTRY` the engine need not verify (repeatable)")
	fs.StringArrayVar(&e.RegistryMirror, "engine-registry-mirror", split(os.Getenv("ENGINE_REGISTRY_MIRROR")), "`URL` of a registry mirror for the engine (repeatable) [$ENGINE_REGISTRY_MIRROR]")
	fs.StringVar(&e.StorageDriver, "engine-storage-driver", "", "Storage `DRIVER` of the engine")
	fs.StringArrayVar(&e.Env, "engine-env", nil, "Environment of the engine, `NAME=VALUE` (repeatable)")
	fs.StringVar(&e.InstallURL, "engine-install-url", cmp.Or(os.Getenv("MACHINE_DOCKER_INSTALL_URL"), defaultInstallURL), "`URL` of the script that installs an engine where there is none; \"distro\" for the distribution's package, \"none\" for neither [$MACHINE_DOCKER_INSTALL_URL]")
	fs.StringVar(&e.Version, "engine-version", "", "`VERSION` of the engine, where one is installed (default the newest)")
	fs.Var(&f.ttl, "ttl", "Let berth gc remove the machine after this `TIME`: 8h, 2d")
	fs.Var(&f.idleStop, "idle-stop", "Let berth gc stop the machine once it ran no container for this `TIME`: 30m")
	fs.BoolVar(&f.noContext, "no-context", false, "Make no docker context")
	f.progress.define(fs)
	f.defineSwarm(fs)
}

func (p *program) runCreate(ctx context.Context, drv machine.Driver, f *createFlags, own []machine.Flag, fs *pflag.FlagSet, names []string) error {
	if err := p.readSwarm(f, fs); err != nil {
		return err
	}
	values, err := driverValues(fs, own)
	if err != nil {
		return err
	}
	s, err := p.store()
	if err != nil {
		return err
	}
	for _, name := range names { // before the first is made
		if err := s.CheckNew(name); err != nil {
			return err
		}
	}
	style, err := f.progress.parse(p)
	if err != nil {
		return err
	}
	err = p.showing(style, names, func(steps *term.Progress) error {
		return p.createAll(ctx, s, drv, f, values, names, steps)
	})
	if err != nil {
		return err
	}
	if !f.noContext && !p.dropIn() {
		p.offerMachineContexts(s, names...)
	}
	if style == term.Auto || style == term.Plain {
		p.afterCreate(s, f, names)
	}
	return nil
}

func (p *program) createAll(ctx context.Context, s *machine.Store, drv machine.Driver, f *createFlags, values map[string]any, names []string, steps *term.Progress) error {
	auth := p.auth
	auth.ServerCertSANs = f.sans
	return each(ctx, names, func(ctx context.Context, name string) (err error) {
		defer func() { steps.Done(name, err) }()
		return machine.Create(ctx, s, drv, machine.CreateOptions{
			Name: name, DriverName: f.driver, Values: values, Engine: f.engine, Swarm: f.swarm, Auth: auth,
			Keep: f.keep, Plain: f.plain, Progress: steps.For(name),
			Bar:          func(what string, done, total int64) { steps.Bar(name, what, done, total) },
			CheckService: p.checkService(f.swarm),
			TTL:          time.Duration(f.ttl), IdleStop: time.Duration(f.idleStop),
		})
	})
}

// afterCreate says what to do with the new machines.
func (p *program) afterCreate(s *machine.Store, f *createFlags, names []string) {
	if len(names) == 1 {
		p.say("To see how to connect your Docker Client to the Docker Engine running on this virtual machine, run: %s env %s", p.name, names[0])
	} else {
		p.say("To see how to connect your Docker Client to one of them, run: %s env NAME", p.name)
	}
	if f.swarm.IsSwarm {
		p.afterSwarm(s, f, names)
	}
}

func driverFlags(d machine.Driver) []machine.Flag {
	if flagged, ok := d.(machine.Flagged); ok {
		return flagged.Flags()
	}
	return nil
}

// defineDriverFlags adds a driver's flags. Where create has a flag of that name, it is for both.
func defineDriverFlags(fs *pflag.FlagSet, flags []machine.Flag) {
	for _, f := range flags {
		if fs.Lookup(f.Name) != nil || f.Name == "help" {
			continue
		}
		usage := f.Usage
		if f.EnvVar != "" {
			usage += " [$" + f.EnvVar + "]"
		}
		switch v := f.Default.(type) {
		case int:
			fs.Int(f.Name, v, usage)
		case bool:
			fs.Bool(f.Name, v, usage)
		case []string:
			fs.StringArray(f.Name, v, usage+" (repeatable)")
		case string:
			fs.String(f.Name, v, usage)
		default:
			fs.String(f.Name, "", usage)
		}
	}
}

// driverValues are the driver's flags: from the command line, else from the environment, else their defaults. With them are the values
// of create's own, which drivers that came from docker-machine look at.
func driverValues(fs *pflag.FlagSet, flags []machine.Flag) (map[string]any, error) {
	values := sharedValues(fs)
	for _, f := range flags {
		if f.Name == "help" { // a driver cannot have it
			continue
		}
		if given := firstEnv(f.EnvVar); given != "" && !fs.Changed(f.Name) {
			v, err := fromEnv(f, given)
			if err != nil {
				return nil, err
			}
			values[f.Name] = v
			continue
		}
		v, err := fromFlag(fs, f)
		if err != nil {
			return nil, err
		}
		values[f.Name] = v
	}
	return values, nil
}

// firstEnv is the first that is set of the variables named, one or several with commas.
func firstEnv(names string) string {
	for name := range strings.SplitSeq(names, ",") {
		if v := os.Getenv(strings.TrimSpace(name)); v != "" {
			return v
		}
	}
	return ""
}

// sharedValues are the values of all flags; lists only where there is something in them, as docker-machine hands them on.
func sharedValues(fs *pflag.FlagSet) map[string]any {
	values := map[string]any{}
	fs.VisitAll(func(f *pflag.Flag) {
		var v any
		var err error
		switch f.Value.Type() {
		case "string":
			v, err = fs.GetString(f.Name)
		case "int":
			v, err = fs.GetInt(f.Name)
		case "bool":
			v, err = fs.GetBool(f.Name)
		case "stringArray":
			var list []string
			if list, err = fs.GetStringArray(f.Name); len(list) == 0 {
				return
			}
			v = list
		default:
			return
		}
		if err == nil { // the type was looked at
			values[f.Name] = v
		}
	})
	return values
}

func fromFlag(fs *pflag.FlagSet, f machine.Flag) (any, error) {
	switch f.Default.(type) {
	case int:
		return fs.GetInt(f.Name)
	case bool:
		return fs.GetBool(f.Name)
	case []string:
		return fs.GetStringArray(f.Name)
	}
	return fs.GetString(f.Name)
}

func fromEnv(f machine.Flag, given string) (v any, err error) {
	switch f.Default.(type) {
	case int:
		v, err = strconv.Atoi(given)
	case bool:
		v, err = strconv.ParseBool(given)
	case []string:
		v = split(given)
	default:
		v = given
	}
	if err != nil {
		return nil, fmt.Errorf("%s=%s for --%s: %w", f.EnvVar, given, f.Name, errors.Unwrap(err))
	}
	return v, nil
}

// split reads a list from the environment.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}
