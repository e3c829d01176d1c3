package cluster

import (
	"fmt"
	"strconv"
	"strings"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// PortRange is where host ports are taken from that are to be unique over the fleet. The zero value is none: each engine
// chooses its own, and all begin with the same ones.
type PortRange struct{ First, Last uint16 }

// ParsePortRange reads "20000-29999".
func ParsePortRange(s string) (PortRange, error) {
	first, last, ok := strings.Cut(s, "-")
	a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if !ok || errA != nil || errB != nil || a == 0 || b < a {
		return PortRange{}, fmt.Errorf("port range %q: want FIRST-LAST within 1-65535", s)
	}
	return PortRange{uint16(a), uint16(b)}, nil
}

func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// NoPortError says that the range is used up.
type NoPortError struct{ Range PortRange }

func (e *NoPortError) Error() string {
	return "no host port of " + e.Range.String() + " is free over the fleet"
}

// Unavailable makes it errdefs.ErrUnavailable: it may work later.
func (e *NoPortError) Unavailable() {}

// claimer returns what gives host ports to a create in flight, or nil if engines choose them. Ports claimed before for the
// same create, on another node, are given up.
func (c *Cluster) claimer(seat uint64, r *schedule.Request) func([]fleet.Port) ([]fleet.Port, error) {
	if c.o.UniquePorts == (PortRange{}) {
		return nil
	}
	return func(ports []fleet.Port) ([]fleet.Port, error) {
		c.seats.mu.Lock()
		defer c.seats.mu.Unlock()
		s := c.seats.state
		place, ok := s.taken[seat]
		if !ok || len(ports) == 0 {
			return nil, nil
		}
		place.Request = r
		s.taken[seat] = place
		given, err := s.free(c.Snapshot(), c.o.UniquePorts, ports, c.o.PortFree)
		if err != nil {
			return nil, err
		}
		with := *r
		with.Ports = append(append([]fleet.Port(nil), r.Ports...), given...)
		place.Request = &with
		s.taken[seat] = place
		return given, nil
	}
}

// free finds a host port for each that no container of the fleet has or wants, whatever its protocol. It goes on from where
// it was last, so that a port is not used again soon after it was given up. The caller holds mu.
func (s *seatState) free(snap *fleet.Snapshot, r PortRange, ports []fleet.Port, also func(fleet.Port) bool) ([]fleet.Port, error) {
	used := usedPorts(snap)
	for _, p := range s.taken {
		used.add(p.Request.Ports)
	}
	given := make([]fleet.Port, 0, len(ports))
	next := s.nextPort
	for range int(r.Last-r.First) + 1 {
		if next < r.First || next > r.Last {
			next = r.First
		}
		if !used.has(next) {
			p := ports[len(given)]
			p.HostPort = next
			if also != nil && !also(p) {
				next++
				continue
			}
			if given = append(given, p); len(given) == len(ports) {
				s.nextPort = next + 1
				return given, nil
			}
		}
		next++
	}
	return nil, &NoPortError{r}
}

// portSet has a bit for each port.
type portSet [1 << 16 / 64]uint64

func (s *portSet) add(ports []fleet.Port) {
	for _, p := range ports {
		s[p.HostPort/64] |= 1 << (p.HostPort % 64)
	}
}

func (s *portSet) has(port uint16) bool { return s[port/64]&(1<<(port%64)) != 0 }

func usedPorts(snap *fleet.Snapshot) *portSet {
	used := new(portSet)
	for _, n := range snap.Nodes() {
		for _, c := range n.Containers {
			used.add(c.Wanted)
			used.add(c.Published)
			if c.NetworkMode == "host" {
				for _, p := range c.Exposed {
					used.add([]fleet.Port{{HostPort: p.Port}})
				}
			}
		}
	}
	return used
}
