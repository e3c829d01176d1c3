package api

import (
	"bytes"
	"encoding/json"
	"slices"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// Ingress has published ports of all nodes answer on the endpoint's own computer.
type Ingress interface {
	// Strict tells whether a port that cannot be had there is a reason to refuse.
	Strict() bool
	// Claim opens the ports of a container that is about to be started; done ends the claim.
	Claim(n *fleet.Node, c *fleet.Container) (done func(started bool), err error)
	// Conflicts are those of some ports that could not be had, for a container that takes the place of predecessors.
	Conflicts(n *fleet.Node, ports []fleet.Port, predecessor func(id string) bool) []fleet.Hindrance
	// Hindered are the ports of a container that do not answer there.
	Hindered(id string) []fleet.Hindrance
	// Follow has what the snapshot shows answer at once.
	Follow()
}

// labelReplaces is on containers that Compose makes before it stops those whose place they take.
const labelReplaces, labelService = "com.docker.compose.replace", "com.docker.compose.service"

// checkPorts refuses a create whose ports cannot be had on this computer, or warns of it where they need not be.
func (s *Server) checkPorts(n *fleet.Node, c *creation, ports []fleet.Port) error {
	c.notes = nil
	if s.o.Ingress == nil {
		return nil
	}
	_, replaces := c.labels[labelReplaces]
	predecessor := func(id string) bool {
		old, err := s.fleet.Snapshot().Container(id)
		return err == nil && replaces && old.Container.Labels.Get(fleet.LabelProject) == c.labels[fleet.LabelProject] &&
			old.Container.Labels.Get(labelService) == c.labels[labelService]
	}
	for _, h := range s.o.Ingress.Conflicts(n, ports, predecessor) {
		err := &fleet.PortTakenError{Hindrance: h}
		if s.o.Ingress.Strict() {
			return err
		}
		note := "Port " + count(int(h.HostPort)) + " does not lead to this container on the endpoint's computer: " + h.Reason
		if h.Elsewhere != "" {
			note += ". The container is reached at " + h.Elsewhere + " (node " + n.Name + ")"
		}
		c.notes = append(c.notes, note)
	}
	return nil
}

// claimPorts opens the ports of a container for a request that starts it. done is told the status of the answer, or 0 for none.
func (s *Server) claimPorts(r *request, c fleet.Ref) (done func(status int), err error) {
	if s.o.Ingress == nil || r.route.pattern != "/containers/{id}/start" && r.route.pattern != "/containers/{id}/restart" {
		return func(int) {}, nil
	}
	end, err := s.o.Ingress.Claim(c.Node, c.Container)
	if err != nil {
		return nil, err
	}
	ended := false
	return func(status int) {
		if ended {
			return
		}
		ended = true
		started := status != 0 && status < 400
		end(started)
		if started && slices.ContainsFunc(c.Container.Wanted, func(p fleet.Port) bool { return p.HostPort == 0 }) {
			s.refresh(r.Context(), c.Node, fleet.KindContainer, c.Container.ID) // only the engine knows what it chose
			s.o.Ingress.Follow()
		}
	}, nil
}

// hindered are the ports of a container that answer only elsewhere.
func (s *Server) hindered(id string) []fleet.Hindrance {
	if s.o.Ingress == nil {
		return nil
	}
	return s.o.Ingress.Hindered(id)
}

// elsewhere is where a binding answers that does not answer here; "" if it answers as it stands, or nobody knows where.
func elsewhere(hindered []fleet.Hindrance, proto, ip string, port uint16) string {
	for _, h := range hindered {
		same := h.HostIP == ip || h.HostIP == "" && (ip == "0.0.0.0" || ip == "::") // one that is being started has the client's words
		if same && h.Proto == proto && h.HostPort == port {
			return h.Elsewhere
		}
	}
	return ""
}

// showPorts has the list Ports of a row show the addresses that work.
func showPorts(row *rawjson.Object, hindered []fleet.Hindrance) error {
	raws, err := rawjson.Array(orNull(row.Get("Ports")))
	if err != nil {
		return err
	}
	var shown []json.RawMessage
	for _, raw := range raws {
		var p struct {
			IP, Type   string
			PublicPort uint16
		}
		o, err := rawjson.ParseTrusted(raw)
		if err == nil {
			err = json.Unmarshal(raw, &p)
		}
		if err != nil {
			return err
		}
		if at := elsewhere(hindered, p.Type, p.IP, p.PublicPort); at != "" {
			o.Set("IP", at)
		}
		shown = appendOnce(shown, o)
	}
	row.Set("Ports", shown)
	return nil
}

// appendOnce leaves out what two bindings have become that differed in the address only.
func appendOnce(list []json.RawMessage, o *rawjson.Object) []json.RawMessage {
	b := o.Bytes()
	if slices.ContainsFunc(list, func(is json.RawMessage) bool { return bytes.Equal(is, b) }) {
		return list
	}
	return append(list, b)
}

// inspectPorts is showPorts for an inspection.
func inspectPorts(b []byte, hindered []fleet.Hindrance) ([]byte, error) {
	o, err := rawjson.ParseTrusted(b)
	if err != nil {
		return nil, err
	}
	settings, err := o.Object("NetworkSettings")
	if err != nil {
		return nil, err
	}
	ports, err := settings.Object("Ports")
	if err != nil {
		return nil, err
	}
	for _, spec := range ports.Keys() {
		raws, err := rawjson.Array(orNull(ports.Get(spec)))
		if err != nil {
			return nil, err
		}
		if len(raws) == 0 {
			continue
		}
		shown, err := showBindings(spec, raws, hindered)
		if err != nil {
			return nil, err
		}
		ports.Set(spec, shown)
	}
	settings.Set("Ports", ports)
	o.Set("NetworkSettings", settings)
	return append(o.Bytes(), '\n'), nil
}

func showBindings(spec string, raws []json.RawMessage, hindered []fleet.Hindrance) (shown []json.RawMessage, err error) {
	_, proto, err := readPort(spec)
	if err != nil {
		return nil, err
	}
	for _, raw := range raws {
		o, err := rawjson.ParseTrusted(raw)
		if err != nil {
			return nil, err
		}
		ip, port := o.Text("HostIp"), o.Text("HostPort")
		number, _, err := readPort(port)
		if err != nil {
			return nil, err
		}
		if at := elsewhere(hindered, proto, ip, number); at != "" {
			o.Set("HostIp", at)
		}
		shown = appendOnce(shown, o)
	}
	return shown, nil
}
