package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/discovery"
	"berth/internal/machine"
	"berth/internal/provision"
)

// defineSwarm takes docker-machine's flags for a Swarm.
func (f *createFlags) defineSwarm(fs *pflag.FlagSet) {
	s := &f.swarm
	fs.BoolVar(&f.agent, "swarm", false, "Run an agent there that keeps the machine in a Swarm")
	fs.BoolVar(&s.Master, "swarm-master", false, "Run a manager of the Swarm there: one endpoint for all its machines")
	fs.StringVar(&s.Discovery, "swarm-discovery", "", "`URL` of that Swarm's discovery service")
	fs.StringVar(&s.Image, "swarm-image", cmp.Or(os.Getenv("MACHINE_SWARM_IMAGE"), "swarm:latest"), "Image of classic Swarm, of no use now [$MACHINE_SWARM_IMAGE]")
	fs.StringVar(&s.Strategy, "swarm-strategy", "spread", "Placement `STRATEGY` of the manager: spread, binpack, random")
	fs.StringArrayVar(&s.ArbitraryFlags, "swarm-opt", nil, "Flag of the manager, `NAME=VALUE` of berth serve (repeatable)")
	fs.StringArrayVar(&s.ArbitraryJoinFlags, "swarm-join-opt", nil, "Flag of the agent, `NAME=VALUE` of berth join (repeatable)")
	fs.StringVar(&s.Host, "swarm-host", "tcp://0.0.0.0:3376", "`ADDRESS` the manager listens on")
	fs.StringVar(&s.Address, "swarm-addr", "", "`ADDRESS` to advertise (default the machine's)")
	fs.BoolVar(&s.IsExperimental, "swarm-experimental", false, "Experimental features, of which there are none now")
	for _, n := range []string{"image", "experimental"} {
		_ = fs.MarkHidden("swarm-" + n) // both are defined above
	}
}

// readSwarm looks at the flags together.
func (p *program) readSwarm(f *createFlags, fs *pflag.FlagSet) error {
	if f.swarm.Discovery != "" && !strings.Contains(f.swarm.Discovery, "://") {
		return errors.New("--swarm-discovery: the URL of a discovery service begins with its scheme: token://, etcd://, nodes://, file://")
	}
	f.swarm.IsSwarm, f.swarm.Agent = f.agent || f.swarm.Master, f.agent
	for _, name := range []string{"swarm-image", "swarm-experimental"} {
		if fs.Changed(name) {
			p.warn("--%s has no use now: agent and manager are berth itself, not an image of classic Swarm", name)
		}
	}
	return nil
}

// checkService refuses what `berth join` or `berth serve` would refuse on the machine, before there is one.
func (p *program) checkService(swarm machine.SwarmOptions) func(machine.Service) error {
	return func(s machine.Service) error {
		// Commands of their own: to define flags sets what they fill in.
		cmds := (&program{name: p.name, out: io.Discard, err: io.Discard}).fleetCommands()
		at := slices.IndexFunc(cmds, func(c *cobra.Command) bool { return c.Name() == s.Args[0] })
		if at < 0 {
			return fmt.Errorf("this berth has no command %s", s.Args[0])
		}
		flags := cmds[at].Flags()
		if err := flags.Parse(s.Args[1:]); err != nil {
			return err
		}
		if flags.NArg() > 0 {
			return fmt.Errorf("%q is no flag", flags.Arg(0))
		}
		if s.Args[0] != "serve" {
			return nil
		}
		return p.checkManager(s.Args[1:], swarm.Discovery)
	}
}

// checkManager is for what only the flags of a manager together tell.
func (p *program) checkManager(args []string, url string) error {
	o := newServeOptions()
	cmd := &cobra.Command{}
	p.serveFlags(cmd, o)
	if err := cmd.Flags().Parse(args); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	return discovery.CheckURL(url, discovery.Options{Heartbeat: o.heartbeat, Stores: stores()})
}

// afterSwarm says how to get at the Swarm, or that nothing was made of the flags.
func (p *program) afterSwarm(s *machine.Store, f *createFlags, names []string) {
	for _, name := range names {
		m, err := s.Load(name)
		switch {
		case err != nil:
			p.warn("%v", err)
		case !m.Services:
			p.warn("%s is noted as a member of a Swarm, and nothing was installed for it: driver %s gives no way to", name, m.DriverName)
		case m.Swarm.Master:
			p.say("To connect it to all machines of the Swarm, run: %s env --swarm %s", p.name, name)
		}
	}
}

// services are the record's, in the words of package provision.
func services(all []machine.Service) []provision.Service {
	var list []provision.Service
	for _, s := range all {
		list = append(list, provision.Service{
			Name: "berth-" + s.Name, Description: "berth: the " + s.Name + " of a Swarm", Args: s.Args, Env: s.Env, Port: s.Port,
		})
	}
	return list
}

// thisProgram is the file that berth runs from.
func thisProgram() (provision.Program, error) {
	path, err := os.Executable()
	if err != nil {
		return provision.Program{}, fmt.Errorf("where is this program? %w", err)
	}
	return provision.Program{Path: path, OS: runtime.GOOS, Arch: runtime.GOARCH}, nil
}
