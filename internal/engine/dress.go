package engine

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// dress puts the node on events: attributes node.name, node.id, node.addr and node.ip and the object "node", as classic Swarm
// did, and the attribute berth.node. Nearly every event is the engine's bytes with two pieces of text put in, which are the
// same for all of a node.
type dress struct {
	node       identity
	attributes []byte // fields, with a comma before each
	object     []byte // likewise
}

type identity struct{ id, name, addr, ip string }

func (d *dress) fit(n *fleet.Node) {
	who := identity{n.ID, n.Name, n.Addr, n.IP}
	if d.object != nil && d.node == who {
		return
	}
	d.node, d.attributes = who, nil
	for _, a := range who.attributes() {
		d.attributes = append(rawjson.AppendString(append(d.attributes, ','), a[0]), ':')
		d.attributes = rawjson.AppendString(d.attributes, a[1])
	}
	d.object = append([]byte(`,"node":`), who.object().Bytes()...)
}

func (w identity) attributes() [5][2]string {
	return [...][2]string{{fleet.LabelNode, w.name}, {"node.name", w.name}, {"node.id", w.id}, {"node.addr", w.addr}, {"node.ip", w.ip}}
}

func (w identity) object() *rawjson.Object {
	o := new(rawjson.Object)
	for _, f := range [...][2]string{{"Name", w.name}, {"Id", w.id}, {"Addr", w.addr}, {"Ip", w.ip}} {
		o.Set(f[0], f[1])
	}
	return o
}

var errEventTime = errors.New("an event whose time is no number")

// event reads what is needed of an event and makes its line. raw is not kept.
func (d *dress) event(n *fleet.Node, raw []byte) (fleet.Event, error) {
	d.fit(n)
	p := parts{plain: true}
	if err := rawjson.Walk(raw, p.field); err != nil {
		return fleet.Event{}, err
	}
	ev := fleet.Event{
		NodeID: n.ID, Node: n.Name, Type: eventWord(p.kind), Action: eventWord(p.action), ActorID: p.actor, Scope: eventWord(p.scope), TimeNano: p.nano,
	}
	if ev.TimeNano == 0 {
		ev.TimeNano = p.seconds * int64(time.Second) // an engine that gives no more
	}
	var err error
	if p.plain && p.attributes != nil {
		ev.Raw, ev.Attributes = d.splice(raw, p.attributes)
	} else {
		ev.Raw, ev.Attributes, err = d.rewrite(raw)
	}
	return ev, err
}

// parts are where things stand in an event.
type parts struct {
	kind, action, scope []byte // with their quotes
	actor               string
	attributes          []byte
	nano, seconds       int64
	plain               bool // nothing stands there yet that we add
}

func (p *parts) field(key string, value []byte) (err error) {
	switch key {
	case "Type":
		p.kind = value
	case "Action":
		p.action = value
	case "scope":
		p.scope = value
	case "timeNano":
		p.nano, err = eventNumber(value)
	case "time":
		p.seconds, err = eventNumber(value)
	case "Actor":
		return p.actorOf(value)
	case "node":
		p.plain = false
	}
	return err
}

func (p *parts) actorOf(actor []byte) error {
	if len(actor) == 0 || actor[0] != '{' {
		return nil
	}
	return rawjson.Walk(actor, func(key string, value []byte) error {
		if key == "ID" {
			p.actor = strings.Clone(rawjson.View(value))
			return nil
		}
		if key != "Attributes" || value[0] != '{' {
			return nil
		}
		p.attributes = value
		return rawjson.Walk(value, func(key string, _ []byte) error {
			if strings.HasPrefix(key, "node.") || key == fleet.LabelNode {
				p.plain = false
			}
			return nil
		})
	})
}

func eventNumber(value []byte) (int64, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil && string(value) != "null" {
		return 0, errEventTime
	}
	return n, nil
}

// splice puts our fields at the end of the attributes and of the event.
func (d *dress) splice(raw, attributes []byte) (line, ours []byte) {
	from := cap(raw) - cap(attributes) // it is a part of raw, so both end where its memory ends
	end, last := from+len(attributes)-1, bytes.LastIndexByte(raw, '}')
	add := d.attributes
	if len(bytes.TrimSpace(attributes[1:len(attributes)-1])) == 0 {
		add = add[1:]
	}
	line = make([]byte, 0, len(raw)+len(add)+len(d.object))
	line = append(append(line, raw[:end]...), add...)
	to := len(line) + 1
	line = append(append(line, raw[end:last]...), d.object...)
	line = append(line, raw[last:]...)
	return line, line[from:to:to]
}

// rewrite is splice for an event in another shape, or on which somebody else has put a node: as one berth does for another.
func (d *dress) rewrite(raw []byte) (line, ours []byte, err error) {
	o, err := rawjson.ParseTrusted(raw)
	if err != nil {
		return nil, nil, err
	}
	actor, err := o.Object("Actor")
	if err != nil {
		return nil, nil, err
	}
	attributes, err := actor.Object("Attributes")
	if err != nil {
		return nil, nil, err
	}
	for _, a := range d.node.attributes() {
		attributes.Set(a[0], a[1])
	}
	actor.Set("Attributes", attributes)
	o.Set("Actor", actor)
	o.Set("node", d.node.object())
	return o.Bytes(), attributes.Bytes(), nil
}

// eventWords are what most events say.
var eventWords = func() map[string]string {
	m := map[string]string{}
	for _, w := range []string{
		"container", "image", "network", "volume", "daemon", "builder", "plugin", "local", "swarm",
		"create", "start", "die", "kill", "stop", "destroy", "exec_die", "exec_detach", "attach", "connect", "disconnect", "mount", "unmount", "pull", "tag",
	} {
		m[w] = w
	}
	return m
}()

func eventWord(value []byte) string {
	text := rawjson.View(value)
	if w, ok := eventWords[text]; ok {
		return w
	}
	return strings.Clone(text)
}
