package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"berth/internal/driver/plugin"
	"berth/internal/machine"
)

// servePlugin is the program as a driver plugin, if docker-machine or the like started it as that.
func servePlugin(argv []string) (status int, asked bool) {
	name, asked := plugin.Asked(argv)
	if !asked {
		return 0, false
	}
	drv, known := drivers()[name]
	if !known {
		fmt.Fprintf(os.Stderr, "Unsupported driver: %s: this is berth, which has %s\n", name, driverNames(drivers())) //nolint:errcheck // nothing is left to say it to
		return exitError, true
	}
	ctx, stop := interruptible()
	defer stop()
	if err := plugin.Serve(ctx, name, drv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err) //nolint:errcheck // nothing is left to say it to
		return exitError, true
	}
	return 0, true
}

// plugin looks for a program that is the driver.
func (p *program) plugin(name string) (*plugin.Driver, error) {
	path, err := plugin.Find(name)
	if err != nil {
		return nil, err
	}
	p.debugf("driver %s is the plugin %s", name, path)
	return plugin.New(name, path, plugin.Log{
		// Standard output is for what the command answers.
		Info:  func(machine, line string) { p.warn("(%s) %s", machine, line) },
		Debug: func(machine, line string) { p.debugf("(%s) %s", machine, line) },
	}), nil
}

// creator is the driver for create: with its flags, also if it has to be started to tell them. That happens only if the command line
// is create's: it is a program of others, and takes its time.
func (p *program) creator(name string) (machine.Driver, error) {
	d, err := p.driver(name)
	if err != nil {
		return nil, err
	}
	asPlugin, is := d.(*plugin.Driver)
	if !is || !p.creates() {
		return d, nil
	}
	// The command has no context before its flags are known. This takes no more than seconds.
	return asPlugin.WithFlags(context.Background())
}

// creates tells whether the command line is one of create, its help or its completion.
func (p *program) creates() bool {
	isValue := false
	for _, a := range p.argv[1:] {
		name, _, inline := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch {
		case isValue:
			isValue = false
		case strings.HasPrefix(a, "-"):
			isValue = !inline && rootFlagTakesValue(name)
		case a == "help" || strings.HasPrefix(a, "__complete") || a == "berth": // what stands before a command
		default:
			return a == "create"
		}
	}
	return false
}

// rootFlagTakesValue tells so of flags before the command.
func rootFlagTakesValue(name string) bool {
	switch name {
	case "debug", "D", "version", "v", "help", "h", "native-ssh":
		return false
	}
	return true
}

// missingDriver is the error of a driver that neither berth nor a plugin has.
func (p *program) missingDriver(err error) error {
	var missing *plugin.NotFoundError
	if errors.As(err, &missing) {
		return fmt.Errorf("%w\nBerth itself has the drivers %s", err, driverNames(p.drivers))
	}
	return err
}

func driverNames(known map[string]machine.Driver) string {
	return strings.Join(slices.Sorted(maps.Keys(known)), ", ")
}
