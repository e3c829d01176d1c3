package schedule

import (
	"fmt"
	"slices"

	"berth/internal/fleet"
)

// portStage refuses nodes where a container, running or not, has or wants a port that the request wants.
func portStage(r *Request) *stage {
	if r.HostNetwork {
		return hostModeStage(r.Exposed)
	}
	var wanted []fleet.Port
	for _, p := range r.Ports {
		if p.HostPort != 0 {
			wanted = append(wanted, p)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	s := &stage{name: FilterPort}
	for _, p := range wanted {
		s.reasons = append(s.reasons, taken(hostPort(p), ""))
		s.classic = append(s.classic, fmt.Sprintf("port %d (Bridge mode)", p.HostPort))
	}
	s.check = func(c *candidate) int {
		for i, p := range wanted {
			if c.facts.PortTaken(p) || c.load.any(func(o *Request) bool { return !o.HostNetwork && slices.ContainsFunc(o.Ports, p.Overlaps) }) {
				return i
			}
		}
		return fits
	}
	return s
}

// hostModeStage keeps containers on the node's own network apart if they expose the same port. Published ports are
// another matter: the engine knows whether they collide, an EXPOSE says little.
func hostModeStage(exposed []fleet.Port) *stage {
	if len(exposed) == 0 {
		return nil
	}
	s := &stage{name: FilterPort}
	for _, p := range exposed {
		s.reasons = append(s.reasons, taken(p.String(), " on its own network"))
		s.classic = append(s.classic, "port "+p.String()+" (Host mode)")
	}
	s.check = func(c *candidate) int {
		for i, p := range exposed {
			if c.facts.ExposedOnHost(p) || c.load.any(func(o *Request) bool { return o.HostNetwork && slices.ContainsFunc(o.Exposed, p.SameExposed) }) {
				return i
			}
		}
		return fits
	}
	return s
}

func taken(port, where string) reason {
	return reason{"has port " + port + " taken" + where, "have port " + port + " taken" + where}
}

func hostPort(p fleet.Port) string {
	proto := p.Proto
	if proto == "" {
		proto = "tcp"
	}
	if p.HostIP == "" {
		return fmt.Sprintf("%d/%s", p.HostPort, proto)
	}
	return fmt.Sprintf("%s:%d/%s", p.HostIP, p.HostPort, proto)
}
