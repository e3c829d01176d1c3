package fleet

import (
	"encoding/json"
	"slices"
	"strings"
)

// Reschedule is what a container's policy wants done when its node is lost.
type Reschedule uint8

const (
	// RescheduleOff leaves it where it is, which is what is done without a policy.
	RescheduleOff Reschedule = iota
	// RescheduleOnFailure starts it on another node, unless it has data that would stay behind.
	RescheduleOnFailure
	// RescheduleEmpty starts it on another node in any case, with new volumes.
	RescheduleEmpty
)

// The words of the policy, in the environment (reschedule:…) and in LabelReschedule.
const (
	PolicyOff          = "off"
	PolicyOnFailure    = "on-node-failure"
	PolicyRestartEmpty = "restart-empty"
)

// ParseReschedule reads a container's label. What is not understood is no policy.
func ParseReschedule(labels Labels) Reschedule {
	text, ok := labels.Lookup(LabelReschedule)
	if !ok {
		return RescheduleOff
	}
	var words []string
	switch {
	case json.Unmarshal([]byte(text), &words) != nil:
		return RescheduleOff
	case slices.Contains(words, PolicyRestartEmpty):
		return RescheduleEmpty
	case slices.Contains(words, PolicyOnFailure):
		return RescheduleOnFailure
	}
	return RescheduleOff
}

// Rescue is what a container's label says of those whose place it took because their nodes were lost. Unlike with a Move nothing
// of theirs is ever removed: whoever finds one of them sets it aside.
type Rescue struct {
	From []string // their IDs, that of the last one first
	Node string   // the name of the node that the last one was on
	Run  bool     `json:",omitempty"` // it ran, so this one is to be started
}

// RescuingPrefix begins the name of a container whose turn has not come. It gets the lost one's name when it takes its place.
const RescuingPrefix = "berth-rescuing-"

// RescuingName is the name of the container that is to take a lost one's place.
func RescuingName(from string) string { return RescuingPrefix + from[:min(len(from), 32)] }

// maxRescued bounds how many lost ones a container remembers.
const maxRescued = 32

// After is the mark of the container that takes a lost one's place: it names those that the lost one had named, too.
func (r Rescue) After(earlier ...string) Rescue {
	for _, id := range earlier {
		if id != "" && !slices.Contains(r.From, id) && len(r.From) < maxRescued {
			r.From = append(slices.Clip(r.From), id)
		}
	}
	return r
}

// ParseRescue reads the label of a container; nil if it took no lost one's place.
func ParseRescue(labels Labels) *Rescue {
	text, ok := labels.Lookup(LabelRescued)
	if !ok {
		return nil
	}
	r := new(Rescue)
	if json.Unmarshal([]byte(text), r) != nil || len(r.From) == 0 || slices.Contains(r.From, "") {
		return nil // not written by us
	}
	return r
}

// Label is the text that ParseRescue reads.
func (r Rescue) Label() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(b)
}

// ToStart tells whether the container took a lost one's place that ran, and was not started yet. One that has moved since is what
// it was there.
func (c *Container) ToStart() bool {
	return c.Rescued != nil && c.Rescued.Run && c.Moved == nil && c.State == "created" && !c.Waiting()
}

const staleMiddle, staleDigits = "-stale-", 12

// StaleName is the name under which a container is kept whose place another has taken.
func StaleName(name, id string) string { return name + staleMiddle + id[:min(len(id), staleDigits)] }

// Stale tells whether a container has been set aside, and what its name was.
func Stale(name, id string) (was string, is bool) {
	at := len(name) - len(staleMiddle) - staleDigits
	if at <= 0 || len(id) < staleDigits || !strings.HasSuffix(name, id[:staleDigits]) || name[at:at+len(staleMiddle)] != staleMiddle {
		return "", false
	}
	return name[:at], true
}
