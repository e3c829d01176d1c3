package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"berth/internal/cluster"
	"berth/internal/ingress"
)

// What --publish-at-endpoint says.
const (
	publishAuto = "auto"
	publishOn   = "on"
	publishOff  = "off"
)

// publishing are the flags of published ports.
type publishing struct {
	at      string
	address string
	unique  bool
	ports   string
}

func (o *publishing) flags(f *pflag.FlagSet) {
	f.StringVar(&o.at, "publish-at-endpoint", publishAuto, "Ports published on any node answer on this computer, too: on (a conflict is an error), auto (a conflict is a warning; only if all -H are unix sockets), off")
	f.Lookup("publish-at-endpoint").NoOptDefVal = publishOn
	f.StringVar(&o.address, "publish-address", "", "With it: the `ADDRESS` of this computer for ports that are published on all addresses (default all)")
	f.BoolVar(&o.unique, "unique-ports", false, "Give published ports without a host port one that is unique over the fleet; --publish-at-endpoint does so, too")
	f.StringVar(&o.ports, "port-range", "20000-29999", "Where they are taken from")
}

func (o *publishing) check() error {
	switch o.at {
	case "true":
		o.at = publishOn
	case "false":
		o.at = publishOff
	case publishAuto, publishOn, publishOff:
	default:
		return fmt.Errorf("--publish-at-endpoint=%s: want auto, on or off", o.at)
	}
	if o.address != "" {
		if _, err := netip.ParseAddr(o.address); err != nil {
			return fmt.Errorf("--publish-address %s: want an IP address of this computer", o.address)
		}
	}
	if _, err := cluster.ParsePortRange(o.ports); err != nil {
		return fmt.Errorf("--port-range: %w", err)
	}
	return nil
}

// here tells whether ports answer at an endpoint that listens on these. An endpoint that others use over the network is a server's:
// there nobody expects ports to open that its own engine has not.
func (o *publishing) here(hosts []string) bool {
	if o.at != publishAuto {
		return o.at == publishOn
	}
	for _, h := range hosts {
		if !strings.HasPrefix(h, "unix://") {
			return false
		}
	}
	return true
}

// chosen is where host ports are chosen from; the zero value leaves the choice to engines.
func (o *publishing) chosen(hosts []string) cluster.PortRange {
	if !o.unique && !o.here(hosts) {
		return cluster.PortRange{}
	}
	r, _ := cluster.ParsePortRange(o.ports) // check has parsed it
	return r
}

// ingress forwards the fleet's published ports, or is nil. f is used once the ingress runs.
func (o *publishing) ingress(hosts []string, f ingress.Fleet, log *slog.Logger) *ingress.Ingress {
	if !o.here(hosts) {
		return nil
	}
	options := ingress.Options{Fleet: f, Strict: o.at == publishOn, Limits: ingress.DefaultLimits(), Timing: ingress.DefaultTiming(), Log: log}
	if o.address != "" {
		options.Address, _ = netip.ParseAddr(o.address) // check has parsed it
	}
	return ingress.New(options)
}
