package cluster

import (
	"encoding/json"
	"fmt"

	"berth/internal/fleet"
)

// toldKey tells events apart that managers make themselves.
type toldKey struct {
	nano          int64
	action, actor string
}

// Hear takes over an event that another manager has told (see Tell), unless it is known. What happened before since, in Unix nanoseconds, is
// remembered, but is no news.
func (c *Cluster) Hear(raw []byte, since int64) error {
	var said struct {
		Type     string
		Action   string
		Scope    string `json:"scope"`
		TimeNano int64  `json:"timeNano"`
		Actor    struct {
			ID         string
			Attributes json.RawMessage
		}
		Node struct{ Name, ID string } `json:"node"`
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return fmt.Errorf("event of another manager: %w", err)
	}
	if said.Type == "" || said.Action == "" || said.TimeNano == 0 {
		return fmt.Errorf("event of another manager: %.200s is none", raw)
	}
	c.hub.once(fleet.Event{
		NodeID: said.Node.ID, Node: said.Node.Name, Type: said.Type, Action: said.Action, ActorID: said.Actor.ID, Attributes: said.Actor.Attributes,
		Scope: said.Scope, TimeNano: said.TimeNano, Raw: raw, Replay: said.TimeNano < since,
	})
	return nil
}

// once publishes an event of a manager, unless it was published before.
func (h *hub) once(ev fleet.Event) {
	if known, _ := h.own.ContainsOrAdd(toldKey{ev.TimeNano, ev.Action, ev.ActorID}, struct{}{}); !known {
		h.publish(ev)
	}
}
