// Package provision makes a Docker Engine on TLS out of a bare Linux that a Runner reaches.
//
// It works in named steps: what kind of host it is, its name, an engine where there is none, the engine's configuration, the
// firewall, the service, and what else is to go on running there. Each step first looks whether there is anything to do, so that provisioning again changes nothing and
// goes on where an earlier attempt stopped. What others have configured stays: an engine that is there is kept, and so is what
// daemon.json says beyond our own. A step that fails is a *StepError with the command, what it said, and what to do.
//
// It does not know how the host is reached, who made it, or where certificates come from.
package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Runner runs scripts on the host.
type Runner interface {
	// Run gives the script to a POSIX shell there, as the user who logged in, and waits for its end. stdin may be nil; out gets
	// stdout and stderr as they come. A script that ends with another status than 0 is an error.
	Run(ctx context.Context, script string, stdin io.Reader, out io.Writer) error
}

// Config is what the host shall be. Everything in it may come from a user.
type Config struct {
	Hostname string // "" leaves the host's as it is
	Engine   Engine
	// Port is where the engine listens with TLS, on all addresses: on IPv6, too, if IPv6 says that the host is known by such an address.
	Port int
	IPv6 bool
	// CA, Cert and Key are PEM: whom the engine trusts, and what it shows.
	CA, Cert, Key []byte
	// Services are what is to run beside the engine, and Program is what they run. Those that are not named any more are left alone.
	Services []Service
	Program  Program
	// LockWait bounds the wait for another program that installs packages there. 0 means 5 minutes.
	LockWait time.Duration
	// Progress receives one line per step. nil means nobody is told.
	Progress func(line string)
}

// Engine is how the engine is installed and started.
type Engine struct {
	// InstallURL is a script that installs an engine where there is none. "" and DefaultURL mean Docker's own, where that knows the
	// distribution; Distro is the distribution's package; None installs nothing.
	InstallURL string
	// Version is the engine's, wanted if one is installed. "" is the newest.
	Version string

	Labels, RegistryMirrors, InsecureRegistries []string
	StorageDriver                               string
	Env                                         []string // NAME=VALUE
	// Flags are further options of dockerd, NAME=VALUE or NAME, without dashes.
	Flags []string
}

// What InstallURL may be beside a URL.
const (
	DefaultURL = "https://get.docker.com"
	Distro     = "distro"
	None       = "none"
)

// The files that hold TLS on the host, where docker-machine put them.
const (
	CAPath   = "/etc/docker/ca.pem"
	CertPath = "/etc/docker/server.pem"
	KeyPath  = "/etc/docker/server-key.pem"
)

// Result says what came of it.
type Result struct {
	OS        string // as its maker calls it
	Engine    string // version
	Restarted bool   // the engine was, and with it the containers without a restart policy ended
}

// Provision brings the host to what c says.
func Provision(ctx context.Context, r Runner, c Config) (Result, error) {
	if err := c.check(); err != nil {
		return Result{}, err
	}
	h := newHost(r, c)
	steps := []step{
		{"look at the host", h.look},
		{"wait for the host's first boot", h.waitFirstBoot},
		{"set the host name", h.setHostname},
		{"install Docker", h.install},
		{"upload the certificates", h.uploadCertificates},
		{"configure the engine", h.configure},
		{"open the engine's port", h.openPorts},
		{"start the engine", h.startEngine},
		{"install berth", h.installProgram},
		{"start the Swarm's services", h.startServices},
	}
	err := h.walk(ctx, steps)
	return Result{OS: h.os.pretty(), Engine: h.version, Restarted: h.restarted}, err
}

// check refuses what could only fail later, or would end up as something else than a word.
func (c Config) check() error {
	e := c.Engine
	for what, list := range map[string][]string{
		"label": e.Labels, "registry mirror": e.RegistryMirrors, "insecure registry": e.InsecureRegistries,
		"environment": e.Env, "option": e.Flags, "storage driver": {e.StorageDriver}, "version": {e.Version}, "install URL": {e.InstallURL},
	} {
		for _, v := range list {
			if !printable(v) {
				return fmt.Errorf("engine %s %q: it holds control characters", what, v)
			}
		}
	}
	for _, kv := range e.Env {
		if !envRule.MatchString(kv) {
			return fmt.Errorf("engine environment %q: want NAME=VALUE", kv)
		}
	}
	for _, f := range e.Flags {
		if !flagRule.MatchString(f) {
			return fmt.Errorf("engine option %q: want NAME=VALUE", f)
		}
	}
	if e.Version != "" && !versionRule.MatchString(e.Version) {
		return fmt.Errorf("engine version %q: want one like 28.5.1", e.Version)
	}
	if !installURLRule.MatchString(e.InstallURL) {
		return fmt.Errorf("engine install URL %q: want http:// or https://, %s or %s", e.InstallURL, Distro, None)
	}
	if c.Hostname != "" && !hostnameRule.MatchString(c.Hostname) {
		return fmt.Errorf("host name %q: it has other characters than letters, digits, dots and hyphens", c.Hostname)
	}
	if len(c.CA) == 0 || len(c.Cert) == 0 || len(c.Key) == 0 {
		return errors.New("the engine's certificates are missing")
	}
	for _, s := range c.Services {
		if err := s.check(); err != nil {
			return err
		}
	}
	return nil
}

// step is one thing to do, repeatable.
type step struct {
	name string
	do   func(context.Context) error
}

// walk does the steps in order and stops at the first that fails.
func (h *host) walk(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return asStep(s.name, err)
		}
	}
	return nil
}
