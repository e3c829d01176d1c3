package fleet

import "net"

// Hindrance is a port that a container publishes on its node and that does not answer on the endpoint's own computer.
type Hindrance struct {
	Port
	Reason string
	// Elsewhere is the address that does answer; "" if none does that is known.
	Elsewhere string
}

// PortTakenError refuses a port of the endpoint's computer, in dockerd's words, which programs look for.
type PortTakenError struct{ Hindrance }

func (e *PortTakenError) Error() string {
	ip := e.HostIP
	if ip == "" {
		ip = "0.0.0.0"
	}
	return "Bind for " + net.JoinHostPort(ip, e.number()) + " failed: port is already allocated: " + e.Reason
}

// Conflict makes it errdefs.ErrConflict.
func (e *PortTakenError) Conflict() {}
