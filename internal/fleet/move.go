package fleet

import (
	"encoding/json"
	"strings"
)

// Move is what a container's label says of the container whose place it takes. It is written with the create, before the
// other is stopped, so that whoever finds the two knows how to go on.
type Move struct {
	From string // ID of the other container
	Node string // ID of the node that it is on
	Run  bool   `json:",omitempty"` // it was running
	By   string `json:",omitempty"` // who began it
}

// MovingPrefix begins the name of a container whose turn has not come. It gets the other's name when it takes its place,
// which is the moment from which on it is the one to be seen.
const MovingPrefix = "berth-moving-"

// MovingName is the name of the container that is to take a container's place. Once the other is about to be stopped the name
// says so: it may stop at any time from then on, however it looks.
func MovingName(from string, stopping bool) string {
	name := MovingPrefix + from[:min(len(from), 32)]
	if stopping {
		name += stoppingSuffix
	}
	return name
}

const stoppingSuffix = "-stop"

// Stopping tells whether the name of a container that waits for its turn says that the other is about to be stopped.
func Stopping(name string) bool {
	return strings.HasPrefix(name, MovingPrefix) && strings.HasSuffix(name, stoppingSuffix)
}

// ParseMove reads the label of a container; nil if it takes nobody's place.
func ParseMove(labels Labels) *Move {
	text, ok := labels.Lookup(LabelMoved)
	if !ok {
		return nil
	}
	m := new(Move)
	if json.Unmarshal([]byte(text), m) != nil || m.From == "" {
		return nil // not written by us
	}
	return m
}

// Label is the text that ParseMove reads.
func (m Move) Label() string {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(b)
}

// Waiting tells whether the container has not taken the other's place yet. It is not shown then.
func (c *Container) Waiting() bool {
	return c.Moved != nil && strings.HasPrefix(c.Name, MovingPrefix) || c.Rescued != nil && strings.HasPrefix(c.Name, RescuingPrefix)
}
