package engine

import (
	"strconv"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// Promise puts a container into the picture that the engine has just made, from what it was asked to make: its ID, name,
// image, labels, limits, ports and overlay networks. So nobody has to ask for it before it is used. Its row is read when it was
// started, when somebody wants to see it, or after a moment.
func (e *Engine) Promise(c fleet.Container) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, gone := e.marks[c.ID]
	if _, listed := e.node.Find(c.ID); listed || gone {
		e.owe(object{fleet.KindContainer, c.ID}, false, settle) // others were quicker, and have seen more
		return nil
	}
	at := e.hints[c.ID].created
	if at.IsZero() {
		at = time.Now().Add(e.node.Skew)
	}
	made, err := promised(c, at, e.node.Name)
	if err != nil {
		return err
	}
	e.seq++
	e.marks[c.ID] = mark{row: e.seq, detail: e.seq}
	n := *e.node
	n.Containers = with(n.Containers, made)
	e.publish(&n)
	key := object{fleet.KindContainer, c.ID}
	delete(e.debts, key) // of its event of creation, which knew less
	e.owe(key, false, promise)
	return nil
}

// promised completes a container as its engine will list it.
func promised(c fleet.Container, at time.Time, node string) (*fleet.Container, error) {
	row := make([]byte, 0, 512+len(c.Labels))
	row = rawjson.AppendString(append(row, `{"Id":`...), c.ID)
	row = append(rawjson.AppendString(append(row, `,"Names":[`...), "/"+c.Name), ']')
	row = rawjson.AppendString(append(row, `,"Image":`...), c.Image)
	row = strconv.AppendInt(append(row, `,"ImageID":"","Command":"","Created":`...), at.Unix(), 10)
	row = append(append(append(row, `,"Ports":[],"Labels":{`...), c.Labels...), '}')
	row = append(row, `,"State":"created","Status":"Created","HostConfig":{"NetworkMode":"default"},"NetworkSettings":{"Networks":{}},"Mounts":[]}`...)
	made, err := parseRow(row, node)
	if err != nil {
		return nil, err
	}
	made.Created, made.Inspected, made.Promised = at.UnixNano(), true, true
	made.Memory, made.NanoCPUs, made.Wanted, made.Exposed, made.Networks = c.Memory, c.NanoCPUs, c.Wanted, c.Exposed, c.Networks
	return made, nil
}
