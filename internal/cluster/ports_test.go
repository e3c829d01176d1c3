package cluster

import (
	"errors"
	"testing"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

func TestParsePortRange(t *testing.T) {
	for s, want := range map[string]string{
		"20000-29999": "20000-29999", "1-1": "1-1", " 5 - 7 ": "5-7",
		"0-5": "", "7-5": "", "5": "", "a-b": "", "1-70000": "", "-5": "",
	} {
		r, err := ParsePortRange(s)
		if got := r.String(); err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q is %v, %v, want %q", s, r, err, want)
		}
	}
}

// claim claims ports for a create in flight on a node.
func (s *seatState) claimPorts(t *testing.T, seat uint64, snap *fleet.Snapshot, r PortRange, n int) []uint16 {
	t.Helper()
	given, err := s.free(snap, r, make([]fleet.Port, n), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.taken[seat] = schedule.Pending{Request: &schedule.Request{Ports: given}}
	var ports []uint16
	for _, p := range given {
		ports = append(ports, p.HostPort)
	}
	return ports
}

func TestUniquePortsPassByWhatAnyNodeHasOrWants(t *testing.T) {
	n := &fleet.Node{ID: "n1", Containers: []*fleet.Container{
		{ID: "a", Wanted: []fleet.Port{{HostPort: 100, Proto: "udp"}}, Published: []fleet.Port{{HostPort: 102}}},
		{ID: "b", NetworkMode: "host", Exposed: []fleet.Port{{Port: 103}}},
		{ID: "c", Exposed: []fleet.Port{{Port: 104}}},
	}}
	snap := new(fleet.Snapshot).Replace(n.Seal())
	s, r := newSeats().state, PortRange{100, 106}
	s.taken[9] = schedule.Pending{Request: &schedule.Request{Ports: []fleet.Port{{HostPort: 105}}}}
	if got := s.claimPorts(t, 1, snap, r, 2); len(got) != 2 || got[0] != 101 || got[1] != 104 {
		t.Errorf("got %v, want 101 and 104", got)
	}
	if got := s.claimPorts(t, 2, snap, r, 1); got[0] != 106 {
		t.Errorf("got %v, want 106", got)
	}
	var none *NoPortError
	if _, err := s.free(snap, r, make([]fleet.Port, 1), nil); !errors.As(err, &none) {
		t.Errorf("a range that is used up gives %v", err)
	}
	delete(s.taken, 1)
	if _, err := s.free(snap, r, make([]fleet.Port, 3), nil); !errors.As(err, &none) {
		t.Errorf("three of two free ports give %v", err)
	}
	if got := s.claimPorts(t, 3, snap, r, 2); got[0] != 101 || got[1] != 104 {
		t.Errorf("got %v, want what was given up", got)
	}
}

func TestUniquePortsAtTheEndOfTheNumbers(t *testing.T) {
	s, r := newSeats().state, PortRange{65534, 65535}
	if got := s.claimPorts(t, 1, new(fleet.Snapshot), r, 2); got[0] != 65534 || got[1] != 65535 {
		t.Errorf("got %v", got)
	}
	delete(s.taken, 1)
	if got := s.claimPorts(t, 1, new(fleet.Snapshot), r, 1); got[0] != 65534 {
		t.Errorf("got %v, want 65534", got)
	}
}

func TestUniquePortsPassByWhatIsTakenElsewhere(t *testing.T) {
	s := newSeats().state
	taken := func(p fleet.Port) bool { return p.HostPort != 7 && p.HostPort != 9 }
	given, err := s.free(new(fleet.Snapshot), PortRange{7, 10}, make([]fleet.Port, 2), taken)
	if err != nil || given[0].HostPort != 8 || given[1].HostPort != 10 {
		t.Errorf("got %v, %v, want 8 and 10", given, err)
	}
	if _, err := s.free(new(fleet.Snapshot), PortRange{7, 10}, make([]fleet.Port, 3), taken); err == nil {
		t.Error("three of two free ports were given")
	}
}
